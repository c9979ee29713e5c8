// One sample: its image under every mask with the responses, its scores, attention and training.

import { fetchJson, format, h, label, lineChart, percent, stratum, verdict } from "./dom.js";
import { attentionPanel } from "./attention.js";

const MEANINGS = {
  pism: "share of the image that is masked when the model first fails; a dash: it never fails, or the ratio was not needed",
  cmab: "attention to the image over attention to the text",
  cde: "accuracy with the image minus accuracy without it",
  ace: "largest log psi: how much the response depends on one of its own tokens",
  drm: "share of incorrect responses to the full image",
};

export async function showSample(main, run, id, query, signal) {
  const data = await fetchJson(`/api/sample/${encodeURIComponent(id)}?${query}`, signal);
  const keep = new URLSearchParams(query);
  const back = h("a", { href: `#/samples?${keep}`, class: "back" }, "← Grid");
  const near = data.neighbors;
  const link = (target, text, rel) => (target
    ? h("a", { href: `#/sample/${encodeURIComponent(target)}?${keep}`, rel, class: "button" }, text)
    : h("span", { class: "button disabled", "aria-disabled": "true" }, text));
  const position = near.position === null ? "not in the filtered grid" : `number ${format(near.position + 1)} of the grid`;
  const top = h("nav", { class: "sample-nav", "aria-label": "Neighboring samples" }, back, h("span", { class: "note" }, position),
    link(near.previous, "← Previous", "prev"), link(near.next, "Next →", "next"));
  const sample = data.sample;
  const attention = attentionPanel(id, data);
  const views = viewsPanel(id, data, attention.setMasked);
  main.replaceChildren(h("article", { class: "sample", onkeydown: (event) => { if (event.key === "Escape") location.hash = `#/samples?${keep}`; } },
    top,
    h("div", { class: "sample-head" },
      h("h1", { dir: "auto", class: "long-text" }, sample.question),
      data.options.length ? h("ol", { class: "options" }, data.options.map(([letter, text]) => h("li", { dir: "auto" }, h("b", {}, letter), ` ${text}`))) : null,
      h("dl", { class: "facts" }, fact("gold answer", sample.answer), sample.accepted.length > 1 ? fact("also accepted", sample.accepted.slice(1).join(" · ")) : null,
        fact("kind", sample.answer_kind), fact("task", `${sample.task} (${sample.task_set})`),
        sample.gen_difficulty === null ? null : fact("generated difficulty", format(sample.gen_difficulty)),
        sample.requires_image === null ? null : fact("requires the image", sample.requires_image ? "yes" : "no"),
        fact("source", sample.source), fact("sample id", sample.sample_id)),
      sample.rationale ? h("details", {}, h("summary", {}, "Rationale of the data set"), h("p", { dir: "auto", class: "response" }, sample.rationale)) : null),
    views, textOnlyPanel(data),
    h("div", { class: "columns" }, scoresPanel(data), selectionPanel(data)),
    attention.root, trainingPanel(data)));
}

const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", { dir: "auto" }, value));

/** A response: verdict, what the grader compared, and the text. */
export function response(row) {
  return h("div", { class: "response-box" },
    h("p", { class: "response-head" }, verdict(row.verdict), h("span", { class: "note" }, `draw ${row.draw} · ${row.num_tokens} tokens${row.hit_eos ? "" : " · cut off"}`)),
    h("p", { class: "parsed", dir: "auto" }, row.parsed_answer === null || row.parsed_answer === undefined
      ? "The grader found no answer." : ["Parsed as ", h("b", {}, h("bdi", {}, row.parsed_answer)), " against ", h("b", {}, h("bdi", {}, row.parsed_gold)), row.rule ? ` by the rule “${row.rule}”` : ""]),
    h("pre", { class: "response", dir: "auto", tabindex: "0" }, row.response));
}

/** The image with a slider through the mask ratios, and a table of the verdicts of all draws. */
function viewsPanel(id, data, onSelect) {
  const rows = data.rollouts.filter((row) => row.view !== "text_only");
  const percents = data.mask_percents.filter((value) => rows.some((row) => row.mask_percent === value));
  const draws = [...new Set(rows.map((row) => row.draw))].sort((a, b) => a - b);
  const cell = (p, d) => rows.find((row) => row.mask_percent === p && row.draw === d);
  let chosen = rows[0] || null;
  const imageNodes = data.image_sizes.map(([width, height], i) => h("img", { width, height, alt: "", "data-number": i }));
  const caption = h("figcaption", { "aria-live": "polite" });
  const slider = h("input", { type: "range", id: "mask", min: 0, max: Math.max(0, percents.length - 1), step: 1, value: 0,
    oninput: () => { const p = percents[slider.value]; select(cell(p, chosen.draw) || rows.find((row) => row.mask_percent === p)); } });
  const answer = h("div", {});
  const buttons = new Map();
  const table = h("table", { class: "verdicts" }, h("caption", {}, "Verdict of each draw; press one to see its image and response"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "masked"), draws.map((d) => h("th", { scope: "col" }, d)), h("th", { scope: "col" }, "correct"))),
    h("tbody", {}, percents.map((p) => {
      const drawn = rows.filter((row) => row.mask_percent === p), correct = drawn.filter((row) => row.verdict === "correct").length;
      return h("tr", {}, h("th", { scope: "row" }, `${p} %`), draws.map((d) => {
        const row = cell(p, d);
        if (!row) return h("td", { class: "note" }, h("span", { title: "not drawn" }, "·"));
        const button = h("button", { type: "button", class: `cell ${row.verdict}`, "aria-pressed": "false",
          "aria-label": `${p} % masked, draw ${d}: ${row.verdict}`, onclick: () => select(row) }, verdict(row.verdict, true));
        buttons.set(row, button);
        return h("td", {}, button);
      }), h("td", { class: "note" }, `${correct} of ${drawn.length}`));
    })));
  function select(row) {
    chosen = row;
    slider.value = percents.indexOf(row.mask_percent);
    slider.setAttribute("aria-valuetext", `${row.mask_percent} % masked`);
    for (const [other, button] of buttons) button.setAttribute("aria-pressed", String(other === row));
    imageNodes.forEach((image, i) => {
      image.src = `/image/${encodeURIComponent(id)}/${i}?percent=${row.mask_percent}&draw=${row.mask_percent ? row.draw : 0}`;
      image.alt = row.mask_percent ? `Image ${i + 1} with ${row.mask_percent} % masked, draw ${row.draw}` : `Image ${i + 1}, unmasked`;
    });
    caption.textContent = row.mask_percent ? `${row.mask_percent} % masked, as the model got it for draw ${row.draw}` : "The full image";
    if (row.mask_percent && !row.same_seed) caption.textContent += " (warning: the response has another seed, so its mask may differ)";
    answer.replaceChildren(response(row));
    onSelect(row);
  }
  if (!chosen) return h("section", { class: "panel" }, h("h2", {}, "Responses"), h("p", {}, "The probe has no response to this sample's image."));
  select(chosen);
  return h("section", { class: "views panel", "aria-labelledby": "views-title" }, h("h2", { id: "views-title" }, "Responses while the image disappears"),
    h("div", { class: "views-columns" },
      h("figure", { class: "image" }, imageNodes, caption,
        percents.length > 1 ? h("div", { class: "slider" }, h("label", { for: "mask" }, "Masked share"), slider) : null),
      h("div", {}, h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Verdicts" }, table), answer)));
}

function textOnlyPanel(data) {
  const rows = data.rollouts.filter((row) => row.view === "text_only");
  if (!rows.length) return null;
  const correct = rows.filter((row) => row.verdict === "correct").length;
  return h("section", { class: "panel" }, h("details", {}, h("summary", {}, h("h2", {}, `Without the image: ${correct} of ${rows.length} correct`)), rows.map(response)));
}

function scoresPanel(data) {
  return h("section", { class: "panel" }, h("h2", {}, "Scores"),
    h("table", { class: "scores" }, h("thead", {}, h("tr", {}, ["measure", "value", "stratum", "meaning"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, data.scores.map((row) => h("tr", {}, h("th", { scope: "row" }, label(row.measure)), h("td", {}, format(row.value)), h("td", {}, stratum(row.stratum)), h("td", { class: "note" }, MEANINGS[row.measure] || ""))))));
}

function selectionPanel(data) {
  return h("section", { class: "panel" }, h("h2", {}, "Selection"),
    data.selections.length ? h("ul", {}, data.selections.map((row) => h("li", {}, h("b", {}, row.name), `: ${row.reason}`))) : h("p", {}, "Not selected for training."));
}

function trainingPanel(data) {
  if (!data.training.length) return null;
  return h("section", { class: "panel" }, h("h2", {}, "Training"),
    h("p", { class: "note" }, "Curves are of all samples of the same task or stratum. Below them, some of this sample's own completions by step."),
    h("div", { class: "columns" }, data.training.map((row) => lineChart(
      Object.entries(row.curves).map(([name, points]) => ({ name, points })),
      { title: `${row.name}: accuracy reward over ${row.steps} steps`, xLabel: "step", yMin: 0, yMax: 1 }))),
    data.training.map((row) => row.rollouts.length ? h("details", { open: true },
      h("summary", {}, `${row.name}: ${row.rollouts.length} completions`),
      h("table", {}, h("thead", {}, h("tr", {}, ["step", "reward", "accuracy", "completion"].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, row.rollouts.map((item) => h("tr", {}, h("td", {}, String(item.step)), h("td", {}, item.reward.toFixed(2)),
          h("td", {}, item.accuracy.toFixed(2)), h("td", {}, h("div", { class: "response", dir: "auto" }, item.completion))))))) : null));
}

export { percent };
