// The grid of samples with its filters, sort order, scatter plot and export.

import { go } from "./app.js";
import { announce, fetchJson, format, h, label, percent, stratum } from "./dom.js";
import { scatterPanel } from "./scatter.js";

const OPEN_FACETS = 6;  // values of a filter that are shown at once
const STRATA = ["easy", "medium", "hard", "unsolved"];

let view = null;  // the grid's elements, kept while filters change, so that focus stays

export async function showGrid(main, run, query, signal) {
  if (!view || !main.contains(view.root)) view = build(main, run);
  view.query = query;
  const url = new URLSearchParams(query);
  url.delete("x"); url.delete("y"); url.delete("plot");
  const content = await fetchJson(`/api/samples?${url}`, signal);
  const pages = Math.max(1, Math.ceil(content.total / run.page_size));
  const page = Math.min(Number(query.get("page") || 0), pages - 1);
  if (page !== Number(query.get("page") || 0)) { change((q) => q.set("page", page), true); return; }
  fillFilters(run, content, query);
  fillToolbar(run, content.total, query, page, pages);
  fillCards(run, content.rows, query);
  await view.scatter.update(query, signal);
  announce(`${content.total} of ${run.total} samples`);
}

/** Change the address with a function of its query. Filters go back to the first page. */
function change(edit, replace = false, keepPage = true) {
  const query = new URLSearchParams(view.query);
  edit(query);
  if (!keepPage) query.delete("page");
  go("/samples", query, replace);
}

const filter = (edit) => change(edit, true, false);

function build(main, run) {
  const root = h("div", { class: "samples" });
  const search = h("input", { type: "search", id: "search", maxlength: 500,
    placeholder: "question, options, answer, id", oninput: debounce(() => filter((q) => setOrDelete(q, "q", search.value)), 250) });
  const facets = h("div", {}), ranges = h("div", {});
  const toggle = h("button", { type: "button", class: "filters-toggle", "aria-expanded": "false", "aria-controls": "filters",
    onclick: () => toggle.setAttribute("aria-expanded", String(root.classList.toggle("filters-open"))) }, "Filters");
  const clear = h("button", { type: "button", class: "quiet", onclick: () => { search.value = ""; go("/samples", new URLSearchParams()); } }, "Clear all");
  const aside = h("aside", { id: "filters", "aria-label": "Filters" },
    h("div", { class: "filters-head" }, h("h2", {}, "Filters"), clear),
    h("label", { for: "search" }, "Search text"), search, facets, ranges);
  const count = h("h1", { class: "count" });
  const sort = h("select", { id: "sort", onchange: () => change((q) => q.set("sort", sort.value), true, false) },
    ["sample_id", ...run.numeric].map((name) => h("option", { value: name }, label(name))));
  const order = h("button", { type: "button", onclick: () => change((q) => q.set("order", q.get("order") === "desc" ? "asc" : "desc"), true, false) });
  const exporter = exportPanel();
  const plot = h("button", { type: "button", "aria-expanded": "false", "aria-controls": "scatter",
    onclick: () => change((q) => (q.has("plot") ? q.delete("plot") : q.set("plot", "1")), true) }, "Scatter plot");
  const toolbar = h("div", { class: "toolbar" }, toggle, count,
    h("span", { class: "sort" }, h("label", { for: "sort" }, "Sort by"), sort, order), plot, exporter.button);
  const chips = h("div", { class: "chips", role: "group", "aria-label": "Active filters" });
  const scatter = scatterPanel(run, (edit, keepPage) => change(edit, true, keepPage), plot);
  const cards = h("ul", { class: "cards", "aria-label": "Samples", onkeydown: moveFocus });
  const pager = h("nav", { class: "pager", "aria-label": "Pages of the grid" });
  root.append(aside, h("section", { class: "content", "aria-label": "Grid" }, toolbar, exporter.panel, chips, scatter.root, cards, pager));
  main.replaceChildren(root);
  return { root, search, facets, ranges, count, sort, order, chips, cards, pager, scatter, exporter };
}

function debounce(action, wait) {
  let timer = 0;
  return () => { clearTimeout(timer); timer = setTimeout(action, wait); };
}

function setOrDelete(query, key, value) {
  if (value === "" || value === null) query.delete(key); else query.set(key, value);
}

function toggleValue(query, name, value, isOn) {
  const key = `is.${name}`, values = query.getAll(key).filter((other) => other !== value);
  query.delete(key);
  for (const other of isOn ? [...values, value] : values) query.append(key, other);
}

/** Fill an element anew, and give the focus back to the control with the same id. */
function refill(element, ...children) {
  const id = element.contains(document.activeElement) ? document.activeElement.id : "";
  element.replaceChildren(...children);
  if (id) document.getElementById(id)?.focus();
}

function fillFilters(run, content, query) {
  if (document.activeElement !== view.search) view.search.value = query.get("q") || "";
  view.openFacets ||= new Set();
  const groups = Object.entries(content.facets).filter(([name, values]) => values.length > 1 || query.has(`is.${name}`)).map(([name, values]) => {
    const isOpen = view.openFacets.has(name);
    if (name.endsWith("_stratum")) values.sort((a, b) => STRATA.indexOf(a[0]) - STRATA.indexOf(b[0]));
    const rows = values.map(([value, number], i) => {
      const id = `is-${name}-${value}`, checked = query.getAll(`is.${name}`).includes(value);
      const box = h("input", { type: "checkbox", id, checked, onchange: () => filter((q) => toggleValue(q, name, value, box.checked)) });
      return h("li", { hidden: !isOpen && i >= OPEN_FACETS && !checked }, h("label", { for: id, title: value }, box,
        h("span", { class: "value" }, name.endsWith("_stratum") ? stratum(value) : value), h("span", { class: "number" }, format(number))));
    });
    const more = values.length > OPEN_FACETS ? h("button", { type: "button", class: "quiet", id: `more-${name}`, "aria-expanded": String(isOpen),
      onclick: () => { if (!view.openFacets.delete(name)) view.openFacets.add(name); fillFilters(run, content, view.query); } },
      isOpen ? "show fewer" : `show ${values.length - OPEN_FACETS} more`) : null;
    return h("fieldset", {}, h("legend", {}, label(name)), h("ul", { class: "facet" }, rows), more);
  });
  refill(view.facets, ...groups);
  const ranges = Object.entries(content.histograms).filter(([, range]) => range.low !== range.high)
    .map(([name, range]) => rangeFilter(name, range, query));
  refill(view.ranges, ...ranges);
}

function rangeFilter(name, range, query) {
  const top = Math.max(1, ...range.bins), width = 100 / range.bins.length;
  const bars = range.bins.map((number, i) => h("rect", { x: i * width + 0.3, width: width - 0.6, y: 30 - 30 * number / top, height: 30 * number / top },
    h("title", {}, `${format(range.low + (range.high - range.low) * i / range.bins.length)} and above: ${number}`)));
  const input = (side, bound) => {
    const id = `${side}-${name}`;
    const field = h("input", { type: "number", step: "any", id, value: query.get(`${side}.${name}`) || "", placeholder: format(bound),
      "aria-label": `${label(name)}, ${side === "min" ? "at least" : "at most"}`,
      onchange: () => filter((q) => setOrDelete(q, `${side}.${name}`, field.value)) });
    return field;
  };
  return h("fieldset", { class: "range" }, h("legend", {}, label(name)),
    h("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", class: "histogram", role: "img", "aria-label": `Histogram of ${label(name)} from ${format(range.low)} to ${format(range.high)}` }, bars),
    h("div", { class: "bounds" }, input("min", range.low), h("span", { "aria-hidden": "true" }, "to"), input("max", range.high)),
    range.missing ? h("p", { class: "note" }, `${format(range.missing)} without a value`) : null);
}

function fillToolbar(run, total, query, page, pages) {
  view.count.textContent = total === run.total ? `${format(total)} samples` : `${format(total)} of ${format(run.total)} samples`;
  view.sort.value = query.get("sort") || "sample_id";
  const isDescending = query.get("order") === "desc";
  view.order.textContent = isDescending ? "↓ descending" : "↑ ascending";
  view.order.setAttribute("aria-label", `Order: ${isDescending ? "descending" : "ascending"}. Press to reverse.`);
  view.exporter.update(query, total);
  const chips = [];
  const chip = (text, edit) => chips.push(h("button", { type: "button", "aria-label": `Remove filter ${text}`, onclick: () => filter(edit) }, text, h("span", { "aria-hidden": "true" }, " ✕")));
  if (query.get("q")) chip(`text: ${query.get("q")}`, (q) => q.delete("q"));
  for (const [key, value] of query) {
    const [kind, ...rest] = key.split("."), name = rest.join(".");
    if (kind === "is") chip(`${label(name)}: ${value}`, (q) => toggleValue(q, name, value, false));
    if (kind === "min") chip(`${label(name)} ≥ ${value}`, (q) => q.delete(key));
    if (kind === "max") chip(`${label(name)} ≤ ${value}`, (q) => q.delete(key));
  }
  if (query.get("lasso")) chip("lasso in the scatter plot", (q) => q.delete("lasso"));
  refill(view.chips, ...chips);
  const step = (to, text, name) => h("button", { type: "button", id: `page-${name}`, disabled: to < 0 || to >= pages,
    onclick: () => { change((q) => q.set("page", to)); window.scrollTo(0, 0); } }, text);
  refill(view.pager, step(page - 1, "← Previous", "previous"), h("span", {}, `Page ${format(page + 1)} of ${format(pages)}`), step(page + 1, "Next →", "next"));
}

function fillCards(run, rows, query) {
  const main = run.measures.find((name) => rows.some((row) => row[`${name}_stratum`]));
  const sort = query.get("sort");
  const cards = rows.map((row, i) => {
    const values = run.measures.map((name) => h("span", { class: name === sort ? "measure current" : "measure" }, `${label(name)} ${format(row[name])}`));
    const isSelected = !row.selected.includes("not selected");
    return h("li", {}, h("a", { class: "card", href: `#/sample/${encodeURIComponent(row.sample_id)}?${query}`, tabindex: i ? "-1" : "0", dir: "auto" },
      h("img", { src: `/thumbnail/${encodeURIComponent(row.sample_id)}`, alt: "", loading: "lazy", width: 160, height: 120 }),
      h("span", { class: "card-head" }, main ? stratum(row[`${main}_stratum`]) : "", h("span", { class: "task" }, row.task)),
      h("span", { class: "question", dir: "auto" }, row.question.slice(0, 400)),
      h("span", { class: "answer", dir: "auto" }, `Answer: ${row.answer.slice(0, 80)}`),
      h("span", { class: "measures" }, h("span", { class: "measure" }, `correct ${percent(row.accuracy)}`), values),
      isSelected ? h("span", { class: "selected" }, `▣ ${row.selected.join(", ")}`) : null));
  });
  view.cards.replaceChildren(...(cards.length ? cards : [h("li", { class: "empty" }, "No sample meets all filters. Remove one of them above.")]));
}

/** Arrow keys move between cards; Home and End go to the first and last. */
function moveFocus(event) {
  const links = [...view.cards.querySelectorAll("a.card")], at = links.indexOf(event.target);
  if (at < 0) return;
  const top = links[0].offsetTop;
  const columns = Math.max(1, links.findIndex((link) => link.offsetTop > top));
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -at, End: links.length - 1 - at };
  const to = links[at + steps[event.key]];
  if (!(event.key in steps) || !to) return;
  event.preventDefault();
  for (const link of links) link.tabIndex = link === to ? 0 : -1;
  to.focus();
}

/** The dialog that exports the filtered ids and says how to train on them. */
function exportPanel() {
  const link = h("a", { class: "button", download: "ids.txt" }, "Download ids.txt");
  const text = h("p", {});
  const panel = h("section", { id: "export", class: "panel", hidden: true, "aria-label": "Export" }, text, h("p", {}, link),
    h("p", {}, "Train on exactly these samples:"),
    h("pre", {}, "accelerate launch launch/train.py … select.ids=ids.txt"),
    h("p", { class: "note" }, "select.ids takes the place of the strata; control=random trains on as many random samples for comparison."));
  const button = h("button", { type: "button", "aria-expanded": "false", "aria-controls": "export",
    onclick: () => { panel.hidden = !panel.hidden; button.setAttribute("aria-expanded", String(!panel.hidden)); } }, "Export ids");
  return { button, panel, update(query, total) {
    link.href = `/export/ids.txt?${query}`;
    text.textContent = `The file lists the ids of the ${format(total)} samples that meet the filters, in the grid's order.`;
  } };
}
