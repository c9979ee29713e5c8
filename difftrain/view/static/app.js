// Reads the address after "#" and shows that page. The address holds all state: filters, sort, page.

import { byId, fetchJson, h, showError } from "./dom.js";
import { showGrid } from "./grid.js";
import { showItems } from "./items.js";
import { showSample } from "./sample.js";

let run = null;
let controller = new AbortController();
let currentPage = "";  // the page that is shown, without its filters
let lastSamples = "#/samples";  // the grid's last address, for the way back

/** The address as {path, query}. */
function route() {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  return { path: path || "/samples", query: new URLSearchParams(query) };
}

/** Change the address; `replace` adds no entry to the browser's history. */
export function go(path, query, replace = false) {
  const text = query.toString();
  const hash = `#${path}${text ? `?${text}` : ""}`;
  if (replace) { history.replaceState(null, "", hash); show(); } else location.hash = hash;
}

async function show() {
  controller.abort();
  controller = new AbortController();
  const { path, query } = route();
  const main = byId("main"), [, page, id] = path.split("/");
  const key = page === "samples" ? "samples" : `${page}/${id || ""}`;
  showError(null);
  if (page === "samples") lastSamples = location.hash || lastSamples;
  byId("nav-samples").setAttribute("href", page === "samples" ? "#/samples" : lastSamples);
  for (const [name, current] of [["samples", page !== "items"], ["items", page === "items"]]) {
    if (current) byId(`nav-${name}`).setAttribute("aria-current", "page");
    else byId(`nav-${name}`).removeAttribute("aria-current");
  }
  try {
    const isNew = key !== currentPage;
    currentPage = key;
    if (isNew) { main.replaceChildren(); window.scrollTo(0, 0); }
    if (page === "sample") await showSample(main, run, decodeURIComponent(id), query, controller.signal);
    else if (page === "items") await showItems(main, run, query, controller.signal);
    else await showGrid(main, run, query, controller.signal);
    if (isNew && document.activeElement === document.body) main.focus({ preventScroll: true });
  } catch (error) {
    showError(error);
  }
}

async function start() {
  try {
    run = await fetchJson("/api/run");
  } catch (error) {
    showError(error);
    return;
  }
  byId("run-title").textContent = run.title;
  document.title = `${run.title} · difftrain view`;
  if (!run.default_pair) byId("nav-items").hidden = true;
  window.addEventListener("hashchange", show);
  await show();
}

start();
export { h };
