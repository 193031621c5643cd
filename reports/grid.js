/* The matrix: only the rows and columns in view are in the document, however many there are. */
(function matrix() {
  const S = page.strings;
  // Places of a packed cell; the order is that of harness/report/grid.py.
  const ROW = 0, COL = 1, STATE = 2, KIND = 3, RUNG = 4, REACHED = 5, PASSED = 6, TOTAL = 7, METRIC = 8, HEAD = 9,
    BOOTS_OK = 10, BOOTS = 11, PLANNED = 12, BOUND = 13, REASON = 14, RELEASES = 15, EVIDENCE = 16, ISSUE = 17, GRADE = 18,
    EXPECTED = 19;
  const state = (cell) => page.states[cell[STATE]];
  const kind = (cell) => page.kinds[cell[KIND]];
  const idOf = (cell) => {
    const [stack, guest, device] = page.columns[cell[COL]];
    return `${guest}/${page.rows[cell[ROW]][0]}/${stack}/${device}`;
  };
  // "NO GPU" beside a failure would accuse the wrong thing: it qualifies passes only.
  const tagged = (cell) => kind(cell)[0] !== "none" || ["pass", "done"].includes(state(cell)[0]);
  const percent = (share) => `${share < 1 ? Math.min(99, Math.round(share * 100)) : 100} %`;
  const boots = (cell) => !cell[BOOTS] ? "" :
    `${cell[BOOTS_OK]}/${cell[BOOTS]} boots` + (cell[BOOTS_OK] && cell[BOUND] ? ` ≥ ${percent(cell[BOUND])}` : "");

  const at = new Map();
  for (const cell of page.cells) at.set(cell[ROW] * page.columns.length + cell[COL], cell);
  // What free text is looked for in: built once, so that a key press only searches.
  const words = page.cells.map((cell) => [
    idOf(cell), page.rows[cell[ROW]].join(" "), state(cell)[2], kind(cell)[1], S[cell[RUNG]], S[cell[REASON]],
    S[cell[RELEASES]], S[cell[METRIC]], S[cell[EVIDENCE]], S[cell[ISSUE]], S[cell[EXPECTED]],
  ].join(" ").toLowerCase());

  const unique = (list) => [...new Set(list)];
  const axes = {
    series: unique(page.rows.map((row) => row[1])),
    stack: unique(page.columns.map((column) => column[0])),
    outcome: page.states.map((one) => one[0]).filter((name) => page.cells.some((cell) => state(cell)[0] === name)),
  };
  const filter = { series: new Set(), stack: new Set(), outcome: new Set(), rung: "", q: "" };
  let rows = [], columns = [], hits = new Set();

  /* ---- address ---- */
  function readAddress() {
    const given = new URLSearchParams(location.hash.slice(1));
    for (const name of Object.keys(axes)) {
      filter[name] = new Set((given.get(name) || "").split(",").filter((value) => value));
    }
    filter.rung = given.get("rung") || "";
    filter.q = given.get("q") || "";
  }
  function writeAddress() {
    const parts = Object.keys(axes).filter((name) => filter[name].size)
      .map((name) => `${name}=${[...filter[name]].map(encodeURIComponent).join(",")}`);
    if (filter.rung) parts.push("rung=" + encodeURIComponent(filter.rung));
    if (filter.q) parts.push("q=" + encodeURIComponent(filter.q));
    history.replaceState(null, "", "#" + parts.join("&"));
  }

  /* ---- filter bar ---- */
  const form = document.getElementById("filters");
  const search = el("input", { type: "search", id: "q", placeholder: "release, reason, guest …", "aria-label": "Search",
    autocomplete: "off", spellcheck: "false" });
  const status = el("output", { class: "matches", "aria-live": "polite" });
  const label = { series: (name) => name || "series not known", stack: (name) => name,
    outcome: (name) => page.states.find((one) => one[0] === name)[2] };
  function buildFilters() {
    const sets = Object.entries(axes).map(([name, values]) => {
      const boxes = values.map((value) => el("label", { class: "chip" + (name === "outcome" ? ` s-${value}` : "") },
        el("input", { type: "checkbox", name, value }),
        name === "outcome" ? el("span", { class: "sym", "aria-hidden": "true" },
          page.states.find((one) => one[0] === value)[1]) : null, label[name](value)));
      const set = el("fieldset", {}, el("legend", {}, name), el("div", { class: "chips" }, boxes));
      return values.length > 14 ? el("details", { class: "many" },
        el("summary", {}, `${name}: choose of ${values.length}`), set) : set;
    });
    const reset = el("button", { type: "button", class: "quiet-button" }, "Clear");
    const csv = el("button", { type: "button", id: "csv" }, "Download CSV of this view");
    form.append(el("div", { class: "find" }, search, reset, csv, status), el("div", { class: "sets" }, sets));
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", (event) => {
      const box = event.target;
      if (box.type !== "checkbox") return;
      filter[box.name][box.checked ? "add" : "delete"](box.value);
      changed();
    });
    search.addEventListener("input", () => { filter.q = search.value; changed(); });
    reset.addEventListener("click", () => {
      for (const name of Object.keys(axes)) filter[name].clear();
      filter.rung = filter.q = "";
      changed();
    });
    csv.addEventListener("click", download);
  }
  function showFilters() {
    for (const box of form.querySelectorAll("input[type=checkbox]")) box.checked = filter[box.name].has(box.value);
    if (search.value !== filter.q) search.value = filter.q;
  }
  function apply() {
    const needles = filter.q.toLowerCase().split(/\s+/).filter((word) => word);
    hits = new Set();
    const seenRows = new Set(), seenColumns = new Set();
    page.cells.forEach((cell, index) => {
      if (filter.series.size && !filter.series.has(page.rows[cell[ROW]][1])) return;
      if (filter.stack.size && !filter.stack.has(page.columns[cell[COL]][0])) return;
      if (filter.outcome.size && !filter.outcome.has(state(cell)[0])) return;
      if (filter.rung && S[cell[RUNG]] !== filter.rung) return;
      if (!needles.every((needle) => words[index].includes(needle))) return;
      hits.add(cell);
      seenRows.add(cell[ROW]);
      seenColumns.add(cell[COL]);
    });
    rows = page.rows.map((_, index) => index).filter((index) => seenRows.has(index));
    columns = page.columns.map((_, index) => index).filter((index) => seenColumns.has(index));
    const all = page.cells.length.toLocaleString("en");
    status.textContent = (hits.size === page.cells.length ? `all ${all} cells` : `${hits.size.toLocaleString("en")} of ${all} cells`)
      + (filter.rung ? `, rung ${filter.rung}` : "");
    showFilters();
    active.row = Math.min(active.row, Math.max(0, rows.length - 1));
    active.column = Math.min(active.column, Math.max(0, columns.length - 1));
    drawn = "";
    draw();
  }
  function changed() { writeAddress(); apply(); }

  /* ---- drawing ---- */
  const view = el("div", { class: "viewport", tabindex: "-1" });
  const caption = el("caption", { class: "unseen" }, "Kernels × driver stacks; move with the arrow keys, Enter opens a cell");
  const head = el("thead"), body = el("tbody"), sizes = el("colgroup");
  const table = el("table", { class: "matrix live", role: "grid" }, caption, sizes, head, body);
  const active = { row: 0, column: 0, focus: false };
  let drawn = "", everything = false;

  function measure() {
    const style = getComputedStyle(table);
    const px = (name) => parseFloat(style.getPropertyValue(name));
    return { side: px("--side"), wide: px("--wide"), tall: px("--tall"), top: px("--top") };
  }
  function span(from, size, extent, count, more) {
    const first = Math.max(0, Math.floor(from / size) - more);
    return [first, Math.min(count, Math.ceil((from + extent) / size) + more)];
  }
  function cellNode(rowAt, columnAt) {
    const cell = at.get(rows[rowAt] * page.columns.length + columns[columnAt]);
    const here = rowAt === active.row && columnAt === active.column;
    const common = { "aria-colindex": columnAt + 2, "data-row": rowAt, "data-column": columnAt };
    const tabindex = here ? "0" : "-1";
    if (!cell) {
      return el("td", { ...common, class: "nothing", tabindex }, el("span", { class: "line" }, "· not in the plan"));
    }
    const [name, symbol, word] = state(cell);
    const tests = cell[TOTAL] ? `${cell[PASSED]}/${cell[TOTAL]} tests` : "";
    const second = [S[cell[REACHED]], S[cell[REACHED]] ? tests : "", S[cell[GRADE]] === "identified" ? S[cell[ISSUE]] : "",
      S[cell[EVIDENCE]] === "not collected" ? "no evidence" : ""].filter((part) => part).join(" · ");
    const third = name === "pass" ? el("span", { class: "line num" }, S[cell[METRIC]] || "no throughput measured")
      : el("span", { class: "line why", title: S[cell[REASON]] }, S[cell[REASON]]);
    return el("td", { ...common, class: `s-${name} k-${kind(cell)[0]}` + (hits.has(cell) ? "" : " off") },
      el("a", { href: cellLink(idOf(cell)), tabindex },
        el("span", { class: "line top" },
          el("span", { class: "state" }, el("span", { class: "sym", "aria-hidden": "true" }, symbol), word),
          tagged(cell) ? el("span", { class: "tag" }, kind(cell)[1]) : null,
          el("span", { class: "boots" }, boots(cell))),
        second ? el("span", { class: "line" }, second) : null, third));
  }
  function draw() {
    const { side, wide, tall, top } = measure();
    // Sizes first: what is in view depends on them.
    const width = side + columns.length * wide;
    table.style.width = width + "px";
    const bar = width > view.parentNode.clientWidth ? 16 : 0;
    view.style.setProperty("--rows", top + Math.max(1, rows.length) * tall + bar + 2 + "px");
    const all = everything && rows.length * columns.length <= 3000;
    const [r0, r1] = all ? [0, rows.length] : span(view.scrollTop, tall, view.clientHeight, rows.length, 4);
    const [c0, c1] = all ? [0, columns.length] : span(view.scrollLeft, wide, view.clientWidth - side, columns.length, 1);
    const key = [r0, r1, c0, c1, wide, tall].join();
    if (key === drawn) return;
    drawn = key;
    const focused = body.contains(document.activeElement);
    const left = c0 * wide, right = (columns.length - c1) * wide;
    const gaps = (tag, attributes, middle, first) => [first, left ? el(tag, attributes) : null, ...middle, right ? el(tag, attributes) : null];
    const track = (px) => { const node = el("col"); node.style.width = px + "px"; return node; };
    const visible = Array.from({ length: c1 - c0 }, (_, index) => c0 + index);
    table.setAttribute("aria-rowcount", rows.length + 1);
    table.setAttribute("aria-colcount", columns.length + 1);
    sizes.replaceChildren(...[track(side), left ? track(left) : null, ...visible.map(() => track(wide)), right ? track(right) : null].filter((node) => node));
    head.replaceChildren(el("tr", { "aria-rowindex": 1 }, gaps("td", { class: "gap", "aria-hidden": "true" }, visible.map((index) => {
      const [stack, guest, device] = page.columns[columns[index]];
      return el("th", { scope: "col", "aria-colindex": index + 2, title: `${stack} · ${guest} · ${device}` },
        el("span", { class: "stack" }, stack), el("span", { class: "sub" }, guest), el("span", { class: "sub" }, `device: ${device}`));
    }), el("th", { scope: "col", class: "corner", "aria-colindex": 1 }, "Kernel"))));
    const lines = [];
    const gap = (count) => {
      const row = el("tr", { class: "gap", "aria-hidden": "true" }, el("td", { class: "gap", colspan: visible.length + 3 }));
      row.firstChild.style.height = count * tall + "px";
      return row;
    };
    if (r0) lines.push(gap(r0));
    for (let index = r0; index < r1; index++) {
      const [kernel, series, release] = page.rows[rows[index]];
      lines.push(el("tr", { "aria-rowindex": index + 2 }, gaps("td", { class: "gap", "aria-hidden": "true" },
        visible.map((column) => cellNode(index, column)),
        el("th", { scope: "row", "aria-colindex": 1, title: `${kernel}\n${release}` }, el("span", { class: "stack" }, kernel),
          el("span", { class: "sub mono" }, release), el("span", { class: "sub" }, series || "series not known")))));
    }
    if (r1 < rows.length) lines.push(gap(rows.length - r1));
    if (!rows.length) lines.push(el("tr", {}, el("td", { class: "empty" }, "No cell matches these filters.")));
    body.replaceChildren(...lines);
    if (focused || active.focus) focusActive();
  }
  function focusActive() {
    active.focus = false;
    const place = body.querySelector(`[data-row="${active.row}"][data-column="${active.column}"]`);
    if (place) (place.querySelector("a") || place).focus({ preventScroll: true });
  }
  function moveTo(row, column) {
    active.row = Math.max(0, Math.min(rows.length - 1, row));
    active.column = Math.max(0, Math.min(columns.length - 1, column));
    const { side, wide, tall, top } = measure();
    const y = active.row * tall, x = active.column * wide;
    if (y < view.scrollTop) view.scrollTop = y;
    else if (y + tall + top > view.scrollTop + view.clientHeight) view.scrollTop = y + tall + top - view.clientHeight;
    if (x < view.scrollLeft) view.scrollLeft = x;
    else if (x + wide + side > view.scrollLeft + view.clientWidth) view.scrollLeft = x + wide + side - view.clientWidth;
    active.focus = true;
    drawn = "";
    draw();
  }

  /* ---- keys ---- */
  body.addEventListener("focusin", (event) => {
    const place = event.target.closest("[data-row]");
    if (place) { active.row = +place.dataset.row; active.column = +place.dataset.column; }
  });
  body.addEventListener("keydown", (event) => {
    if (event.ctrlKey && event.key !== "Home" && event.key !== "End" || event.altKey || event.metaKey) return;
    const jump = Math.max(1, Math.floor(view.clientHeight / measure().tall) - 2);
    const target = {
      ArrowUp: [active.row - 1, active.column], ArrowDown: [active.row + 1, active.column],
      ArrowLeft: [active.row, active.column - 1], ArrowRight: [active.row, active.column + 1],
      PageUp: [active.row - jump, active.column], PageDown: [active.row + jump, active.column],
      Home: [event.ctrlKey ? 0 : active.row, 0], End: [event.ctrlKey ? rows.length - 1 : active.row, columns.length - 1],
    }[event.key];
    if (!target) return;
    event.preventDefault();
    moveTo(...target);
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input:not([type=checkbox]), textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      search.focus();
      search.select();
    } else if (event.key === "Escape" && event.target === search) {
      moveTo(active.row, active.column);
    } else if (event.key === "Enter" && event.target === search) {
      moveTo(0, 0);
    }
  });

  /* ---- CSV of what is seen ---- */
  function quote(value) {
    let text = value === null || value === undefined ? "" : String(value);
    if (typeof value === "string" && /^[=+\-@\t]/.test(text)) text = "'" + text;  // no spreadsheet may run it
    return /[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  }
  function csvText() {
    const lines = [page.csv.join(",")];
    for (const cell of page.cells) {
      if (!hits.has(cell)) continue;
      const [stack, guest, device] = page.columns[cell[COL]];
      const [kernel, series] = page.rows[cell[ROW]];
      const [metric, value, unit, low, high] = cell[HEAD] || [0, null, 0, null, null];
      lines.push([idOf(cell), guest, kernel, series, S[cell[RELEASES]], stack, device, state(cell)[0], kind(cell)[0],
        S[cell[RUNG]], cell[PASSED], cell[TOTAL], cell[BOOTS_OK], cell[BOOTS], cell[PLANNED], cell[BOUND], S[metric],
        value, S[unit], low, high, S[cell[EVIDENCE]], S[cell[REASON]], S[cell[ISSUE]], S[cell[GRADE]],
        S[cell[EXPECTED]]].map(quote).join(","));
    }
    return lines.join("\n") + "\n";
  }
  function download() {
    const link = el("a", { href: URL.createObjectURL(new Blob([csvText()], { type: "text/csv" })), download: "view.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  let asked = false;
  const soon = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  };
  view.addEventListener("scroll", soon, { passive: true });
  addEventListener("resize", soon);
  addEventListener("beforeprint", () => { everything = true; document.documentElement.classList.add("printing"); draw(); });
  addEventListener("afterprint", () => { everything = false; document.documentElement.classList.remove("printing"); draw(); });
  addEventListener("hashchange", () => {
    if (location.hash === "#matrix") return;
    readAddress();
    apply();
    if (location.hash.includes("=")) document.getElementById("matrix").scrollIntoView();
  });

  buildFilters();
  view.append(table);
  document.getElementById("grid").replaceChildren(view);
  if (location.hash !== "#matrix") readAddress();
  apply();
})();
