// Where the model looked: attention on each image token, drawn over the image.

import { fetchJson, format, h, lineChart } from "./dom.js";

const POLL_MS = 600;

/** The panel: {root, setMasked(row)} where `row` is the response that the sample page shows. */
export function attentionPanel(id, data) {
  const full = data.rollouts.find((row) => row.view === "full_image" && row.verdict === "correct") || data.rollouts.find((row) => row.view === "full_image");
  const recorded = data.attention.map((row) => lineChart([{ name: "ratio", points: row.layers.map((value, i) => [i + 1, value]) }],
    { title: `CMAB's ratio by layer, draw ${row.draw}`, xLabel: "layer", yMin: 0 }));
  const recordedCharts = h("div", { class: "columns", hidden: !recorded.length }, recorded);
  const result = h("div", { class: "maps", "aria-live": "polite" });
  const button = h("button", { type: "button", onclick: compute }, "Compute attention maps");
  let masked = null;
  const root = h("section", { class: "panel" }, h("h2", {}, "Where the model looked"),
    h("p", { class: "note" }, "Attention of the response's tokens on each image token, exact, averaged over heads. The first map loads the model."),
    full ? button : h("p", {}, "The probe has no response to the full image."), result,
    recordedCharts);

  async function compute() {
    button.disabled = true;
    const rows = [full];
    if (masked && masked.mask_percent) rows.push(masked);
    result.replaceChildren(h("p", {}, "Computing …"));
    try {
      const maps = [];
      for (const row of rows) maps.push(await waitForMap(id, row));
      recordedCharts.hidden = true;  // the maps have charts of their own
      result.replaceChildren(h("div", { class: "columns" }, maps.map((map, i) => mapFigure(id, rows[i], map, data.image_sizes))),
        rows.length < 2 ? h("p", { class: "note" }, "Choose a masked image above and press the button again to see its map beside this one.") : "");
    } catch (error) {
      result.replaceChildren(h("p", { class: "failed" }, `No attention map: ${error.message}`));
    }
    button.disabled = false;
    button.textContent = "Compute again";
    label();
  }
  function label() {
    if (masked && masked.mask_percent) button.textContent = `Compute attention maps (full image and ${masked.mask_percent} % masked, draw ${masked.draw})`;
  }
  return { root, setMasked(row) { masked = row; label(); } };
}

async function waitForMap(id, row) {
  for (;;) {
    const map = await fetchJson(`/api/map/${encodeURIComponent(id)}?percent=${row.mask_percent}&draw=${row.draw}`);
    if (map.status === "done") return map;
    if (map.status === "failed") throw new Error(map.error);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

function mapFigure(id, row, map, sizes) {
  const layers = map.maps.response.length, groups = Object.keys(map.maps);
  const unique = `${row.mask_percent}-${row.draw}`;
  const canvases = map.grids.map(([rows, columns], i) => h("div", { class: "overlay" },
    h("img", { src: `/image/${encodeURIComponent(id)}/${i}?percent=${row.mask_percent}&draw=${row.mask_percent ? row.draw : 0}`, alt: "", width: sizes[i][0], height: sizes[i][1] }),
    h("canvas", { width: columns, height: rows, role: "img" })));
  const group = h("select", { id: `group-${unique}`, onchange: draw }, groups.map((name) => h("option", { value: name }, `${name === "answer" ? "answer" : "whole response"} (${map.tokens[name]} token${map.tokens[name] === 1 ? "" : "s"})`)));
  const layer = h("select", { id: `layer-${unique}`, onchange: draw }, layers > 2 ? h("option", { value: "inner" }, `mean of layers 2 to ${layers - 1}`) : null,
    h("option", { value: "all" }, "mean of all layers"), map.maps.response.map((_, i) => h("option", { value: i }, `layer ${i + 1}`)));
  const strength = h("input", { type: "range", id: `strength-${unique}`, min: 0, max: 100, value: 65, oninput: draw });
  const summary = h("p", { class: "note" });
  function draw() {
    const LI = map.maps[group.value];
    const chosen = layer.value === "inner" ? LI.slice(1, -1) : layer.value === "all" ? LI : [LI[Number(layer.value)]];
    const mean = LI[0].map((_, token) => chosen.reduce((sum, weights) => sum + weights[token], 0) / chosen.length);
    const top = Math.max(...mean, 1e-12), total = mean.reduce((a, b) => a + b, 0);
    let first = 0;
    map.grids.forEach(([rows, columns], i) => {
      const canvas = canvases[i].querySelector("canvas"), context = canvas.getContext("2d");
      const pixels = context.createImageData(columns, rows);
      for (let token = 0; token < rows * columns; token++) {
        const share = mean[first + token] / top;
        pixels.data.set([255, Math.round(220 * (1 - share) + 20), 30, Math.round(255 * share * strength.value / 100)], 4 * token);
      }
      context.putImageData(pixels, 0, 0);
      canvas.setAttribute("aria-label", `Attention map of image ${i + 1}, ${rows} by ${columns} tokens`);
      first += rows * columns;
    });
    summary.textContent = `${(100 * total).toFixed(1)} % of the attention is on the image; the brightest token has ${(100 * top).toFixed(2)} %, ${format(+(top * mean.length / Math.max(total, 1e-12)).toFixed(1))} times an even share.`;
  }
  draw();
  return h("figure", { class: "map" },
    h("figcaption", {}, row.mask_percent ? `${row.mask_percent} % masked, draw ${row.draw} (${row.verdict})` : `Full image, draw ${row.draw} (${row.verdict})`),
    canvases,
    h("div", { class: "map-controls" },
      h("label", { for: group.id }, "Tokens"), group, h("label", { for: layer.id }, "Layers"), layer, h("label", { for: strength.id }, "Strength"), strength),
    summary,
    lineChart([{ name: "ratio", points: map.ratio.map((value, i) => [i + 1, value]) }],
      { title: `CMAB's ratio by layer${map.balance === null ? "" : `; balance ${format(map.balance)}`}`, xLabel: "layer", yMin: 0 }));
}
