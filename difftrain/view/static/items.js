// Benchmark items that two checkpoints answered, side by side.

import { go } from "./app.js";
import { announce, fetchJson, format, h } from "./dom.js";

const MEANINGS = { lost: "right before, wrong after (or a lower score)", won: "wrong before, right after (or a higher score)" };

export async function showItems(main, run, given, signal) {
  const query = new URLSearchParams(given);
  if (!run.default_pair) { main.replaceChildren(h("p", {}, "There are not two evaluations to compare. Name a finished run, or two: difftrain view RUN RUN.")); return; }
  if (!query.has("before")) query.set("before", run.default_pair[0]);
  if (!query.has("after")) query.set("after", run.default_pair[1]);
  if (!query.has("change")) query.set("change", "lost");
  const content = await fetchJson(`/api/items?${query}`, signal);
  const focused = document.activeElement?.id;
  const change = (key, value) => { const next = new URLSearchParams(query); next.set(key, value); if (key !== "page") next.delete("page"); go("/items", next, key !== "page"); };
  const select = (key, title, options) => {
    const field = h("select", { id: key, onchange: () => change(key, field.value) }, options.map(([value, text]) => h("option", { value }, text)));
    field.value = query.get(key) || "";
    return h("span", { class: "field" }, h("label", { for: key }, title), field);
  };
  const evaluations = run.evaluations.map((name) => [name, name]);
  const benchmarks = [...new Set(content.counts.map(([name]) => name))];
  const number = (benchmark, kind) => content.counts.filter(([b, k]) => (!benchmark || b === benchmark) && k === kind).reduce((sum, row) => sum + row[2], 0);
  const search = h("input", { type: "search", id: "q", value: query.get("q") || "", maxlength: 500, onchange: () => change("q", search.value) });
  const table = h("table", { class: "changes" }, h("caption", {}, "Items by benchmark and change; press a number to list them"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "benchmark"), run.changes.map((kind) => h("th", { scope: "col", title: MEANINGS[kind] }, kind)))),
    h("tbody", {}, [...benchmarks, ""].map((benchmark) => h("tr", {}, h("th", { scope: "row" }, benchmark || "all"), run.changes.map((kind) => {
      const isCurrent = (query.get("benchmark") || "") === benchmark && query.get("change") === kind;
      if (!number(benchmark, kind) && !isCurrent) return h("td", { class: "note" }, "0");
      return h("td", {}, h("button", { type: "button", class: "quiet", id: `n-${benchmark}-${kind}`, "aria-pressed": String(isCurrent), "aria-label": `${benchmark || "all"}, ${kind}: ${number(benchmark, kind)}`,
        onclick: () => { const next = new URLSearchParams(query); next.set("benchmark", benchmark); next.set("change", kind); next.delete("page"); go("/items", next, true); } }, format(number(benchmark, kind))));
    })))));
  const page = Number(query.get("page") || 0), pages = Math.max(1, Math.ceil(content.total / content.page_size));
  const step = (to, text) => h("button", { type: "button", id: `items-${text}`, disabled: to < 0 || to >= pages, onclick: () => { change("page", String(to)); window.scrollTo(0, 0); } }, text);
  main.replaceChildren(h("div", { class: "items" },
    h("h1", {}, "Benchmark items, before and after"),
    h("div", { class: "toolbar" }, select("before", "Before", evaluations), select("after", "After", evaluations),
      select("benchmark", "Benchmark", [["", "all"], ...benchmarks.map((name) => [name, name])]),
      select("change", "Change", [["", "all"], ...run.changes.map((kind) => [kind, MEANINGS[kind] ? `${kind}: ${MEANINGS[kind]}` : kind])]),
      h("span", { class: "field" }, h("label", { for: "q" }, "Search"), search)),
    h("div", { class: "scroll" }, table),
    h("h2", {}, `${format(content.total)} items`),
    content.items.length ? content.items.map((item) => itemCard(item, query)) : h("p", {}, "No item meets the filters."),
    h("nav", { class: "pager", "aria-label": "Pages of items" }, step(page - 1, "← Previous"), h("span", {}, `Page ${page + 1} of ${pages}`), step(page + 1, "Next →"))));
  if (focused) document.getElementById(focused)?.focus();
  announce(`${content.total} items`);
}

function itemCard(item, query) {
  const image = h("img", { loading: "lazy", alt: "The item's image", width: 220,
    src: `/item-image?${new URLSearchParams({ evaluation: query.get("after"), benchmark: item.benchmark, item: item.item_id })}`,
    onerror: () => image.replaceWith(h("p", { class: "note" }, "The image is not available here.")) });
  const side = (name) => h("div", { class: "side" },
    h("p", { class: "response-head" }, h("b", {}, name === "before" ? "before" : "after"), " ", h("span", { class: `score ${item[name] >= 1 ? "correct" : item[name] === null ? "unparsable" : item[name] > 0 ? "partial" : "incorrect"}` },
      item[name] === null ? "no score" : item[name] >= 1 ? "✓ right" : item[name] > 0 ? `${format(item[name])} of 1` : "✗ wrong"),
    h("span", { class: "note", dir: "auto" }, item[`${name}_extracted`] ? [" extracted: ", h("bdi", {}, item[`${name}_extracted`])] : "")),
    h("pre", { class: "response", dir: "auto", tabindex: "0" }, item[`${name}_response`] ?? `(no response${item[`${name}_error`] ? `: ${item[`${name}_error`]}` : ""})`));
  return h("article", { class: "item panel", "aria-label": `${item.benchmark}, item ${item.item_id}` },
    h("div", { class: "item-question" }, image,
      h("div", {}, h("p", { class: "note" }, `${item.benchmark} · ${item.item_id} · ${item.category}`),
        h("p", { class: "long-text", dir: "auto" }, item.question || ""),
        item.options?.length ? h("ol", { class: "options" }, item.options.map(([letter, text]) => h("li", { dir: "auto" }, h("b", {}, letter), ` ${text}`))) : null,
        item.gold ? h("p", { dir: "auto" }, "Gold answer: ", h("b", {}, h("bdi", {}, item.gold))) : null)),
    h("div", { class: "sides" }, side("before"), side("after")));
}
