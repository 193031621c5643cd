/* One cell, chosen by the address: cell.html#guest/kernel/stack/device?log=SHA&L=123 */
(function cellPage() {
  const main = document.getElementById("cell");
  const shelf = { details: new Map(), evidence: new Map() };
  // Chunk files are classic scripts that call these: fetch and import() do not work on file://.
  window.kdmatrixDetail = (number, cells) => shelf.details.set(number, cells);
  window.kdmatrixEvidence = (sha, text) => shelf.evidence.set(sha, text);

  const stateWords = new Map(page.states.map(([name, symbol, word, meaning]) => [name, { symbol, word, meaning }]));
  const tags = new Map(page.kinds);

  /** FNV-1a, as harness/report/detail.py computes it: the file of a cell is known without an index. */
  function chunkOf(id) {
    let value = 0x811c9dc5;
    for (const byte of new TextEncoder().encode(id)) value = Math.imul(value ^ byte, 0x01000193) >>> 0;
    return value % page.chunks;
  }
  function load(kind, key, src) {
    if (shelf[kind].has(key)) return Promise.resolve(shelf[kind].get(key));
    return new Promise((done, failed) => {
      const script = el("script", { src });
      script.onload = () => (shelf[kind].has(key) ? done(shelf[kind].get(key)) : failed(new Error(`${src} is damaged`)));
      script.onerror = () => failed(new Error(`${src} could not be read: the folder of this report must be kept whole`));
      document.head.append(script);
    }).finally(() => document.head.querySelector("script[src]")?.remove());
  }
  function address() {
    const text = location.hash.slice(1);
    const cut = text.indexOf("?");
    const rest = new URLSearchParams(cut < 0 ? "" : text.slice(cut + 1));
    let id = cut < 0 ? text : text.slice(0, cut);
    try { id = decodeURIComponent(id); } catch { /* taken as it is */ }
    const line = /^L?(\d+)$/.exec(rest.get("L") || "");
    return { id, log: rest.get("log") || "", line: line ? +line[1] : 0 };
  }
  function logLink(id, sha, line) {
    return cellLink(id) + `?log=${sha.slice(0, 16)}` + (line ? `&L=${line}` : "");
  }

  function badge(name) {
    const { symbol, word, meaning } = stateWords.get(name);
    return el("span", { class: `badge s-${name}`, title: meaning }, el("span", { class: "sym", "aria-hidden": "true" }, symbol), word);
  }
  function factList(pairs) {
    return el("dl", { class: "facts" }, pairs.map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", {}, value))));
  }
  function bar(fraction, from, name) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", `bar s-${name}`);
    svg.setAttribute("aria-hidden", "true");
    svg.setAttribute("viewBox", "0 0 100 10");
    svg.setAttribute("preserveAspectRatio", "none");
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    rect.setAttribute("x", String(from * 100));
    rect.setAttribute("width", String(Math.max(0.4, fraction * 100)));
    rect.setAttribute("height", "10");
    svg.append(rect);
    return svg;
  }

  function ladderTable(attempt) {
    const total = attempt.ladder.reduce((sum, rung) => sum + rung.seconds, 0);
    let before = 0;
    return el("div", { class: "scroll" }, el("table", { class: "plain ladder" },
      el("caption", { class: "unseen" }, "Ladder: outcome and time of each rung"),
      el("thead", {}, el("tr", {}, ["Rung", "Outcome", "Time", "Of the whole", "Reason"].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, attempt.ladder.map((rung) => {
        const from = total ? before / total : 0;
        before += rung.seconds;
        return el("tr", { class: rung.stage === attempt.rung && attempt.outcome !== "pass" ? "decides" : null },
          el("th", { scope: "row" }, rung.stage), el("td", {}, rung.reason === "no record" ? el("span", { class: "badge nothing" }, "NO RECORD") : badge(rung.state)),
          el("td", { class: "num" }, rung.time || "–"), el("td", { class: "track" }, rung.seconds ? bar(rung.seconds / total, from, rung.state) : ""),
          el("td", { class: "reason" }, rung.reason === "no record" ? "" : rung.reason));
      }))));
  }
  function roofline(metric) {
    if (metric.roofline === "not known") return el("span", { class: "quiet" }, "not known");
    return el("span", { title: metric.source || null }, `${metric.share} of ${metric.roofline}`, metric.source ? el("span", { class: "source" }, metric.source) : null);
  }
  function testTable(attempt) {
    if (!attempt.tests.length) return el("p", { class: "quiet" }, "No test ran in this attempt.");
    const head = ["Test", "Outcome", "Computed on", "Metric", "p50", "Spread (n)", "Roofline", "Time"];
    const rows = attempt.tests.flatMap((test) => {
      const metrics = test.metrics.length ? test.metrics : [null];
      return metrics.map((metric, index) => el("tr", { class: index ? "again" : null },
        index ? el("td", { colspan: 3 }) : [
          el("th", { scope: "row" }, test.name, el("span", { class: "sub" }, test.stage)),
          el("td", {}, badge(test.outcome), test.reason ? el("span", { class: "reason" }, test.reason) : null),
          el("td", {}, el("span", { class: `tag t-${test.kind}` }, tags.get(test.kind) || test.kind))],
        metric ? [el("td", {}, metric.name, el("span", { class: "sub" }, `${metric.better} is better`),
          metric.beside ? el("span", { class: "sub" }, metric.beside) : null), el("td", { class: "num" }, metric.p50),
          el("td", { class: "num" }, metric.spread || "not known", el("span", { class: "sub" }, `n = ${metric.n}`)),
          el("td", {}, metric.fractions.length ? bar(Math.min(1, metric.fractions[1]), 0, "range") : null, roofline(metric))]
          : [el("td", { class: "quiet" }, "no metric"), el("td"), el("td"), el("td")],
        el("td", { class: "num" }, index ? "" : test.time)));
    });
    const details = attempt.tests.filter((test) => test.details.length);
    return [el("div", { class: "scroll" }, el("table", { class: "plain tests" },
      el("caption", { class: "unseen" }, "Tests of this attempt"),
      el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, rows))),
    details.length ? el("details", {}, el("summary", {}, "What the tests said about themselves"),
      details.map((test) => [el("h4", {}, test.name), factList(test.details)])) : null];
  }
  function evidenceList(cell, attempt) {
    if (!attempt.evidence.length) return el("p", { class: "missing" }, "Evidence: not collected. Nothing is known about what the logs would have shown.");
    return el("ul", { class: "files" }, attempt.evidence.map((file) => {
      const known = file.status === "text" || file.status === "binary";
      const parts = [el("span", { class: "name" }, file.status === "text" ? el("a", { href: logLink(cell.id, file.sha) }, file.name) : file.name), el("span", { class: "sub" }, file.stage)];
      if (file.line) parts.push(el("a", { class: "deciding", href: logLink(cell.id, file.sha, file.line) }, `deciding line ${file.line}`));
      if (known) parts.push(el("span", { class: "sub" }, file.size), el("a", { href: file.raw, class: "sub" }, "raw"));
      if (file.truncated) parts.push(el("span", { class: "warn" }, "cut when it was collected"));
      if (file.status === "not collected") parts.push(el("b", { class: "missing" }, "not collected"));
      if (file.status === "altered") parts.push(el("b", { class: "missing" }, "altered: its bytes do not have the digest on record"));
      return el("li", {}, parts);
    }));
  }
  function predictionTable(attempt) {
    const head = ["Rung", "Expected", "Happened", "", "Because"];
    return el("div", { class: "scroll" }, el("table", { class: "plain groups expected" },
      el("caption", { class: "unseen" }, "What was expected before the cell ran, and what happened"),
      el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, attempt.predictions.map((one) => el("tr", { class: one.failed ? "decides" : null },
        el("th", { scope: "row" }, one.stage), el("td", {}, badge(one.outcome)),
        el("td", {}, stateWords.has(one.happened.toLowerCase()) ? badge(one.happened.toLowerCase()) : one.happened),
        el("td", {}, one.failed ? el("b", { class: "warn" }, one.judgement) : one.judgement),
        el("td", {}, el("span", { class: "reason" }, one.reason), el("span", { class: "sub" }, one.source)))))));
  }
  function sourceLinks(pairs) {
    return pairs.map(([text, href], index) => [index ? ", " : "",
      href ? el("a", { href, rel: "noopener noreferrer", target: "_blank" }, text) : text]).flat();
  }
  function issueList(attempt) {
    const sure = attempt.issues.filter((one) => one.grade !== "candidate");
    const rest = attempt.issues.filter((one) => one.grade === "candidate");
    const shown = (one) => el("section", { class: "issue" },
      el("h4", {}, el("span", { class: "mono" }, one.id), ` ${one.title} `, el("span", { class: "tag" }, one.grade)),
      el("dl", { class: "facts" }, one.facts.map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", {}, value))),
        el("div", {}, el("dt", {}, "sources"), el("dd", {}, sourceLinks(one.links)))));
    return [sure.map(shown), rest.length ? el("details", { open: !sure.length },
      el("summary", {}, `${rest.length} more that these versions are known for, not seen in the logs`), rest.map(shown)) : null];
  }
  function reproLine(command) {
    if (!command) return el("p", { class: "quiet" }, "No command is known that repeats this attempt.");
    const button = el("button", { type: "button" }, "Copy");
    const code = el("code", { tabindex: "0" }, command);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(command);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);  // no clipboard here: ready for the reader's own copy
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    return el("div", { class: "repro" }, code, button);
  }
  function attemptSection(cell, attempt, open) {
    return el("details", { class: "attempt", open },
      el("summary", {}, el("b", {}, `Attempt ${attempt.number}`), badge(attempt.outcome), el("span", { class: "sub" }, `${attempt.outcome === "pass" ? "reached" : "at"} ${attempt.rung}`), el("span", { class: "sub" }, `${attempt.started.slice(0, 19).replace("T", " ")} UTC`), el("span", { class: "sub" }, `took ${attempt.total}`)),
      attempt.reason ? el("p", { class: "reason" }, attempt.reason) : null,
      attempt.issues.length ? [el("h3", {}, "Known issues"), issueList(attempt)].flat(2) : null,
      attempt.predictions.length ? el("h3", {}, "Expected and happened") : null,
      attempt.predictions.length ? predictionTable(attempt) : null,
      el("h3", {}, "Repeat it"), reproLine(attempt.repro),
      el("h3", {}, "Ladder"), ladderTable(attempt),
      el("h3", {}, "Tests"), testTable(attempt),
      el("h3", {}, "Evidence"), evidenceList(cell, attempt),
      el("h3", {}, "Versions and facts"), attempt.facts.length ? factList(attempt.facts) : el("p", { class: "quiet" }, "None recorded."));
  }
  function showCell(cell) {
    document.title = cell.id;
    const name = document.getElementById("name");
    name.replaceChildren(el("span", {}, cell.kernel), el("span", { class: "times" }, "×"), el("span", {}, cell.stack), el("span", { class: "sub" }, `${cell.guest}, device: ${cell.device}`));
    const verdict = el("section", { class: `verdict s-${cell.state} k-${cell.kind}` }, badge(cell.state),
      cell.tag ? el("span", { class: "tag" }, cell.tag) : null,
      cell.rung && cell.attempts.length ? el("span", {}, (["fail", "error", "miss"].includes(cell.state) ? "stopped at " : "reached ") + cell.rung) : null,
      cell.tests ? el("span", {}, `${cell.tests} tests`) : null, cell.boots ? el("span", { title: "lower end of the 95 % Wilson interval" }, cell.boots) : null,
      el("p", {}, cell.reason || stateWords.get(cell.state).meaning));
    // The attempt that decides is open; with one attempt that is the only one.
    const decides = cell.attempts.findIndex((one) => one.outcome === cell.state && one.rung === cell.rung);
    main.replaceChildren(verdict, el("div", { class: "summary" }, el("section", {}, el("h2", {}, "This cell"), factList(cell.facts)),
      cell.spec.length ? el("section", {}, el("h2", {}, "What was asked for"), factList(cell.spec)) : ""),
    el("section", { class: "attempts" }, el("h2", {}, cell.attempts.length > 1 ? `${cell.attempts.length} attempts` : "Attempts"),
      cell.attempts.length ? cell.attempts.map((one, index) => attemptSection(cell, one, index === Math.max(0, decides)))
        : el("p", { class: "quiet" }, cell.state === "left-out" ? "Left out: no attempt was meant to be made." : "No attempt is recorded.")),
    el("section", { id: "log", hidden: true }));
  }

  /* ---- logs ---- */
  let shown = { id: "", sha: "" };
  function logLines(cell, sha, lines, first, deciding) {
    const blocks = [];
    for (let start = 0; start < lines.length; start += 100) {
      const block = el("div", { class: "lines" });
      lines.slice(start, start + 100).forEach((text, index) => {
        const number = first + start + index;
        block.append(el("div", { id: `L${number}`, class: deciding === number ? "decides" : null },
          el("a", { href: logLink(cell.id, sha, number), tabindex: "-1" }, String(number)), el("span", {}, text || " ")));
      });
      blocks.push(block);
    }
    return blocks;
  }
  async function showLog(cell, short, line) {
    const section = document.getElementById("log");
    const file = cell.attempts.flatMap((one) => one.evidence).find((one) => one.sha && one.sha.startsWith(short));
    if (!short || !file) { section.hidden = true; shown.sha = ""; return; }
    if (shown.sha !== file.sha) {
      section.hidden = false;
      section.replaceChildren(el("h2", {}, file.name), el("p", { class: "quiet" }, "Reading …"));
      if (file.status !== "text") { section.append(el("p", { class: "missing" }, file.status)); return; }
      const text = await load("evidence", file.sha, `evidence/${file.sha}.js`);
      shown.sha = file.sha;
      const gap = text.tail_from ? el("p", { class: "cut" }, `Lines ${text.head.length + 1} to ${text.tail_from - 1} are left out here: `, el("a", { href: file.raw }, "raw file")) : null;
      section.replaceChildren(el("h2", {}, file.name, el("span", { class: "sub" }, `${text.lines.toLocaleString("en")} lines, ${file.size}`), el("a", { class: "sub", href: file.raw }, "raw"), el("a", { class: "sub", href: cellLink(cell.id) }, "close")),
        text.lines ? el("div", { class: "log", tabindex: "0", role: "group", "aria-label": file.name },
          logLines(cell, file.sha, text.head, 1, file.line), gap, text.tail_from ? logLines(cell, file.sha, text.tail, text.tail_from, file.line) : null)
          : el("p", { class: "missing" }, "The file was collected, and is empty."));
    }
    section.querySelector(".target")?.classList.remove("target");
    const target = line ? document.getElementById(`L${line}`) : null;
    if (target) target.classList.add("target");
    (target || section).scrollIntoView({ block: target ? "center" : "start" });
  }

  async function show() {
    const { id, log, line } = address();
    try {
      const number = chunkOf(id);
      const cells = await load("details", number, `details/${String(number).padStart(4, "0")}.js`);
      const cell = cells.find((one) => one.id === id);
      if (!cell) throw new Error(id ? `This report has no cell “${id}”.` : "No cell is named in the address.");
      if (shown.id !== id) { showCell(cell); shown = { id, sha: "" }; }
      await showLog(cell, log, line);
    } catch (error) {
      shown = { id: "", sha: "" };
      main.replaceChildren(el("p", { class: "missing" }, error.message), el("p", {}, el("a", { href: "index.html" }, "Back to the matrix")));
    }
  }
  addEventListener("hashchange", show);
  show();
})();
