// Builds elements. Text always becomes a text node, so that no sample or response can be markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "path", "circle", "rect", "line", "polyline", "text", "title"]);

/** An element with attributes; `onclick` and the like are listeners, children are nodes or text. */
export function h(tag, attributes = {}, ...children) {
  const isSvg = SVG_TAGS.has(tag);
  const node = isSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(node.style, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

export const byId = (id) => document.getElementById(id);

/** The JSON of an address of this server; throws Error with the server's message. */
export async function fetchJson(url, signal) {
  const response = await fetch(url, { signal, credentials: "same-origin" });
  const text = await response.text();
  let content;
  try { content = JSON.parse(text); } catch { content = { error: text.trim() }; }
  if (!response.ok) throw new Error(content.error || `the server answered ${response.status}`);
  return content;
}

/** A number with few digits; a dash if there is none. */
export function format(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return (value || 0).toLocaleString("en-US");  // || 0: no minus zero
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 1e5) ? value.toExponential(2) : String(+value.toFixed(3));
}

export const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(100 * share)} %`);

/** Announces a change to screen readers. */
export function announce(text) { byId("status").textContent = text; }

export function showError(error) {
  const box = byId("error");
  if (error && error.name === "AbortError") return;
  box.hidden = !error;
  box.textContent = error ? `Error: ${error.message || error}` : "";
}

const NAMES = {
  pism: "PISM", cmab: "CMAB", cde: "CDE", ace: "ACE", drm: "DRM",
  accuracy: "accuracy, full image", masked_accuracy: "accuracy, masked",
  text_only_accuracy: "accuracy, text only", mean_tokens: "tokens per response",
  gen_difficulty: "generated difficulty", task: "task", task_set: "task set",
  answer_kind: "kind of answer", full_image_outcome: "responses to the full image",
  masked_outcome: "responses to masked images", text_only_outcome: "responses to text only",
  unparsable: "parsing", selected: "selected for training", reason: "reason of the selection",
  decision: "RAP's decision", sample_id: "sample id",
};

/** A column's name for people. */
export function label(name) {
  if (name.endsWith("_stratum")) return `${label(name.slice(0, -8))} stratum`;
  return NAMES[name] || name;
}

const SYMBOLS = { correct: "✓", incorrect: "✗", unparsable: "?" };

/** A verdict as symbol and word; never color alone. */
export function verdict(name, short = false) {
  return h("span", { class: `verdict ${name}`, title: name },
    h("span", { "aria-hidden": "true" }, SYMBOLS[name] || ""), short ? h("span", { class: "visually-hidden" }, name) : ` ${name}`);
}

export function stratum(name) {
  return name ? h("span", { class: `stratum ${name}` }, name) : "";
}

/** A small line chart. `series`: [{name, points: [[x, y]]}]; `yMin`, `yMax` optional. */
export function lineChart(series, { title, xLabel, yLabel, yMin, yMax, width = 420, height = 170 }) {
  const points = series.flatMap((line) => line.points);
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const x0 = Math.min(...xs), x1 = Math.max(...xs);
  let y0 = yMin ?? Math.min(...ys), y1 = yMax ?? Math.max(...ys);
  if (y0 === y1) { y0 -= 0.5; y1 += 0.5; }
  const left = 46, bottom = height - 32, right = width - 8, top = 10;
  const sx = (x) => left + (x1 === x0 ? 0.5 : (x - x0) / (x1 - x0)) * (right - left);
  const sy = (y) => bottom - ((y - y0) / (y1 - y0)) * (bottom - top);
  const grid = [y0, (y0 + y1) / 2, y1].map((y) => h("g", {},
    h("line", { x1: left, x2: right, y1: sy(y), y2: sy(y), class: "grid-line" }),
    h("text", { x: left - 6, y: sy(y) + 4, "text-anchor": "end" }, format(+y.toPrecision(3)))));
  const lines = series.map((line, i) => h("g", { class: `series series-${i}` },
    h("polyline", { points: line.points.map(([x, y]) => `${sx(x)},${sy(y)}`).join(" ") }),
    line.points.length < 60 ? line.points.map(([x, y]) => h("circle", { cx: sx(x), cy: sy(y), r: 2.5 },
      h("title", {}, `${line.name}: ${format(x)}, ${format(y)}`))) : null));
  const legend = series.length > 1 ? h("p", { class: "legend" }, series.map((line, i) =>
    h("span", { class: `series-${i}` }, h("i", {}), line.name))) : null;
  const ticks = [...new Set([x0, x1])].map((x, i) =>
    h("text", { x: sx(x), y: bottom + 14, "text-anchor": i ? "end" : "start" }, format(x)));
  return h("figure", { class: "chart" },
    h("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title },
      grid, lines, ticks,
      h("text", { x: (left + right) / 2, y: height - 4, "text-anchor": "middle" }, xLabel)),
    legend, h("figcaption", {}, title, yLabel ? ` · ${yLabel}` : ""));
}
