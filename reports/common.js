"use strict";
/* Shared by both pages. Text reaches the page through textContent only: nothing here ever parses a string as HTML. */

const page = JSON.parse(document.getElementById("data").textContent);

/** Makes an element. Attributes that are null are left out; children are nodes or strings. */
function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined && child !== "") node.append(child);
  return node;
}

/** The address of a cell's page. */
function cellLink(id) {
  return "cell.html#" + encodeURIComponent(id).replace(/%2F/g, "/");
}

/** Storage may be forbidden on file://: then the choice lasts as long as the page. */
function remember(key, value) {
  try {
    if (value === undefined) return localStorage.getItem(key);
    localStorage.setItem(key, value);
  } catch { /* not kept */ }
  return null;
}

(function theme() {
  const button = document.getElementById("theme");
  const wants = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme || (wants.matches ? "dark" : "light")) === "dark";
  const show = () => { button.textContent = dark() ? "Light" : "Dark"; };
  const kept = remember("kdmatrix-theme");
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
  button.hidden = false;
  button.setAttribute("aria-label", "Switch between light and dark");
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    remember("kdmatrix-theme", document.documentElement.dataset.theme);
    show();
  });
  wants.addEventListener("change", show);
  show();
})();
