// Two columns against each other. Dragging draws a lasso, which filters the grid.

import { fetchJson, format, h, label } from "./dom.js";

const HEIGHT = 340, LEFT = 74, RIGHT = 14, TOP = 12, BOTTOM = 40;
const MAX_POINTS = 60;  // of a lasso

/** The panel with the plot: {root, update(query, signal)}. */
export function scatterPanel(run, change, button) {
  const canvas = h("canvas", { role: "img", tabindex: "-1" });
  const note = h("p", { class: "note" });
  const legend = h("p", { class: "legend" });
  const axis = (name, fallback) => {
    const select = h("select", { id: `scatter-${name}`, onchange: () => change((q) => { q.set(name, select.value); q.delete("lasso"); }, false) },
      run.numeric.map((column) => h("option", { value: column }, label(column))));
    select.value = fallback;
    return select;
  };
  const defaults = { x: run.numeric[0], y: run.numeric[1] };
  const axes = { x: axis("x", defaults.x), y: axis("y", defaults.y) };
  const clear = h("button", { type: "button", class: "quiet", onclick: () => change((q) => q.delete("lasso"), false) }, "Remove the lasso");
  const root = h("section", { id: "scatter", class: "panel", hidden: true, "aria-label": "Scatter plot" },
    h("div", { class: "scatter-axes" }, h("label", { for: "scatter-x" }, "Horizontal"), axes.x, h("label", { for: "scatter-y" }, "Vertical"), axes.y, clear),
    canvas, legend, note);
  let data = null, path = [], lasso = null, scale = null, isDrawing = false;

  const names = (query) => ({ x: query.get("x") || defaults.x, y: query.get("y") || defaults.y });

  function layout() {
    const width = canvas.clientWidth || 600, ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio; canvas.height = HEIGHT * ratio;
    const pad = ([low, high]) => { const extra = (high - low || 1) * 0.04; return [low - extra, high + extra]; };
    const [x0, x1] = pad(data.limits.x), [y0, y1] = pad(data.limits.y);
    scale = {
      ratio, width, x0, x1, y0, y1,
      x: (v) => LEFT + (v - x0) / (x1 - x0) * (width - LEFT - RIGHT),
      y: (v) => HEIGHT - BOTTOM - (v - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM),
      toX: (p) => x0 + (p - LEFT) / (width - LEFT - RIGHT) * (x1 - x0),
      toY: (p) => y0 + (HEIGHT - BOTTOM - p) / (HEIGHT - TOP - BOTTOM) * (y1 - y0),
    };
  }

  function draw() {
    if (!data || root.hidden) return;
    layout();
    const style = getComputedStyle(root), color = (name) => style.getPropertyValue(name).trim();
    const context = canvas.getContext("2d");
    context.setTransform(scale.ratio, 0, 0, scale.ratio, 0, 0);
    context.clearRect(0, 0, scale.width, HEIGHT);
    context.font = "12px system-ui, sans-serif";
    context.fillStyle = color("--faint"); context.strokeStyle = color("--rule");
    for (let i = 0; i <= 4; i++) {
      const [low, high] = data.limits.x, x = low + (high - low) * i / 4, [bottom, top] = data.limits.y, y = bottom + (top - bottom) * i / 4;
      context.beginPath(); context.moveTo(scale.x(x), TOP); context.lineTo(scale.x(x), HEIGHT - BOTTOM); context.moveTo(LEFT, scale.y(y)); context.lineTo(scale.width - RIGHT, scale.y(y)); context.stroke();
      context.textAlign = "center"; context.fillText(format(+x.toPrecision(3)), scale.x(x), HEIGHT - BOTTOM + 16);
      context.textAlign = "right"; context.fillText(format(+y.toPrecision(3)), LEFT - 8, scale.y(y) + 4);
    }
    context.textAlign = "center"; context.fillText(label(data.names.x), (LEFT + scale.width - RIGHT) / 2, HEIGHT - 6);
    context.save(); context.translate(12, (TOP + HEIGHT - BOTTOM) / 2); context.rotate(-Math.PI / 2); context.fillText(label(data.names.y), 0, 0); context.restore();
    const largest = Math.max(1, ...data.n.slice(0, 1));
    context.globalAlpha = 0.7;
    data.x.forEach((x, i) => {
      context.fillStyle = color(`--${data.color[i] || "none"}`) || color("--faint");
      context.beginPath(); context.arc(scale.x(x), scale.y(data.y[i]), 3.5 + 10 * Math.sqrt((data.n[i] - 1) / largest), 0, 2 * Math.PI); context.fill();
    });
    context.globalAlpha = 1;
    const outline = isDrawing ? path : (lasso || []).map(([x, y]) => [scale.x(x), scale.y(y)]);
    if (outline.length > 1) {
      context.beginPath(); outline.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      if (!isDrawing) context.closePath();
      context.strokeStyle = color("--accent"); context.lineWidth = 2; context.stroke(); context.lineWidth = 1;
    }
  }

  const position = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("pointerdown", (event) => { if (!data) return; isDrawing = true; path = [position(event)]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => { if (isDrawing) { path.push(position(event)); draw(); } });
  canvas.addEventListener("pointerup", () => {
    isDrawing = false;
    if (path.length < 3) { draw(); return; }
    const step = Math.ceil(path.length / MAX_POINTS), points = path.filter((_, i) => i % step === 0);
    const digits = (value) => +value.toPrecision(6);
    const text = points.map(([x, y]) => `${digits(scale.toX(x))},${digits(scale.toY(y))}`).join(",");
    change((q) => q.set("lasso", `${data.names.x},${data.names.y},${text}`), false);
  });
  canvas.addEventListener("pointercancel", () => { isDrawing = false; draw(); });
  new ResizeObserver(draw).observe(root);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  async function update(query, signal) {
    const isOpen = query.has("plot");
    root.hidden = !isOpen;
    button.setAttribute("aria-expanded", String(isOpen));
    if (!isOpen) return;
    const { x, y } = names(query);
    axes.x.value = x; axes.y.value = y;
    const main = run.measures[0], strata = `${main}_stratum`;
    const url = new URLSearchParams(query);
    url.set("x", x); url.set("y", y); url.set("color", main ? strata : "task"); url.delete("lasso");
    data = await fetchJson(`/api/scatter?${url}`, signal);
    data.names = { x, y };
    lasso = null;
    const numbers = (query.get("lasso") || "").split(",");
    if (numbers[0] === x && numbers[1] === y) {
      lasso = [];
      for (let i = 2; i + 1 < numbers.length; i += 2) lasso.push([Number(numbers[i]), Number(numbers[i + 1])]);
    }
    clear.hidden = !query.has("lasso");
    const colors = [...new Set(data.color)].filter(Boolean).sort();
    legend.replaceChildren(...colors.map((name) => h("span", {}, h("i", { class: `dot ${name}` }), name)));
    const total = data.n.reduce((a, b) => a + b, 0);
    canvas.setAttribute("aria-label", `${label(y)} against ${label(x)} of ${total} samples. The same limits can be typed under Filters.`);
    note.textContent = `${format(total)} samples${data.missing ? `, ${format(data.missing)} more without both values` : ""}; a larger dot stands for several. `
      + "Drag around dots to filter the grid; by keyboard, type limits of both columns under Filters.";
    draw();
  }
  return { root, update };
}
