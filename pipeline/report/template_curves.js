"use strict";
// The curves of one clip: decoded from its compressed text, and drawn by BokehJS on one time axis.

const MISSING = { u1: 255, u2: 65535 };

async function inflated(text, format) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(format));
  return new Response(stream).arrayBuffer();
}

/** Decode a clip's series; arrays are lists of columns, missing values NaN. The layout is that of series.py. */
async function decoded(text) {
  const buffer = await inflated(text, "deflate-raw");
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let at = 4 + length;
  const arrays = {};
  for (const one of header.arrays) {
    const size = one.kind === "u2" ? 2 : 1;
    const view = new DataView(buffer, at, one.rows * one.columns * size);
    const scale = (one.high - one.low) / (MISSING[one.kind] - 1);
    arrays[one.name] = Array.from({ length: one.columns }, (_, column) =>
      Array.from({ length: one.rows }, (_, row) => {
        const place = (column * one.rows + row) * size;
        const level = size === 2 ? view.getUint16(place, true) : view.getUint8(place);
        return level === MISSING[one.kind] ? NaN : one.low + level * scale;
      }),
    );
    at += one.rows * one.columns * size;
  }
  for (const name of ["audio", "vision"]) {
    if (!header[name]) continue;
    const { start, step } = header[name];
    const rows = (arrays.chroma && name === "audio" ? arrays.chroma : arrays.au)[0].length;
    header[name].times = arrays[`${name}_times`]?.[0] ?? Array.from({ length: rows }, (_, row) => start + row * step);
  }
  return { ...header, arrays };
}

let bokeh = null;

/** Run the library once: its code is compressed in this file, and its hash is in the file's policy. */
function loadBokeh() {
  bokeh ??= inflated(document.getElementById("bokeh").textContent, "deflate-raw").then((code) => {
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(code);
    document.head.append(script);
    if (!window.Bokeh) throw new Error("the drawing library was refused by the browser");
    Bokeh.set_log_level("error");
    return window.Bokeh;
  });
  return bokeh;
}

const COLOURS = {
  light: { text: "#565d66", line: "#dcdfe2", strong: "#1c1f23", quiet: "#c3c8cd", f0: "#b4430f", low: "#fcfcfb", high: "#3f7399", hole: "#e9ebec", lines: ["#1c5a85", "#b45f14", "#3c7a3f", "#8a3f86", "#7a6a10"] },
  dark: { text: "#a0a7b0", line: "#30353b", strong: "#e3e5e8", quiet: "#4a5159", f0: "#ffb27a", low: "#15171a", high: "#4f86ad", hole: "#23272c", lines: ["#8cc0e4", "#e8a765", "#8fca92", "#d79ad3", "#d3c266"] },
};

function ramp(low, high) {
  const parts = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const [a, b] = [parts(low), parts(high)];
  const mixed = (share) => a.map((part, k) => Math.round(part + share * (b[k] - part)).toString(16).padStart(2, "0"));
  return Array.from({ length: 64 }, (_, k) => `#${mixed(k / 63).join("")}`);
}

const PITCHES = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"];
const octaves = (hertz) => Math.log2(hertz);

function panel(Bokeh, colours, range, height, title, last) {
  const figure = Bokeh.Plotting.figure({
    height, sizing_mode: "stretch_width", x_range: range, y_range: new Bokeh.Range1d({ start: 0, end: 1 }), toolbar_location: null, tools: "xpan,xwheel_zoom",
    title, min_border_left: 64, min_border_right: 72, background_fill_color: null, border_fill_color: null, outline_line_color: null,
  });
  const font = "system-ui, sans-serif";
  figure.title.setv({ text_color: colours.strong, text_font_size: "12px", text_font: font, text_font_style: "bold", offset: 0 });
  for (const axis of [...figure.xaxes, ...figure.yaxes]) styled(axis, colours);
  for (const grid of [...figure.xgrids, ...figure.ygrids]) grid.grid_line_color = colours.line;
  for (const axis of figure.xaxes) axis.setv(last ? { axis_label: "time [s]" } : { visible: false });
  return figure;
}

function styled(axis, colours) {
  const font = "system-ui, sans-serif";
  axis.setv({
    major_label_text_color: colours.text, axis_label_text_color: colours.text, axis_line_color: colours.line,
    major_tick_line_color: colours.line, minor_tick_line_color: null, major_label_text_font: font, major_label_text_font_size: "11px",
    axis_label_text_font: font, axis_label_text_font_size: "11px", axis_label_text_font_style: "normal",
  });
}

function drawAudio(Bokeh, figure, colours, clip) {
  const { chroma, log_f0: f0, zcr } = clip.arrays;
  const times = clip.audio.times;
  const step = clip.audio.step || 0.02;
  const rows = times.length;
  const flat = new Float64Array(12 * rows);
  for (let pitch = 0; pitch < 12; pitch++) for (let row = 0; row < rows; row++) flat[pitch * rows + row] = chroma[pitch][row];
  const low = octaves(50);
  const high = octaves(640);
  const overlay = f0 ? f0[0].map((value) => value / Math.LN2) : zcr[0];
  const [bottom, top] = f0 ? [low, high] : [0, 1];
  figure.y_range.setv({ start: bottom, end: top });
  const mapper = new (Bokeh.Models.get("LinearColorMapper"))({ palette: ramp(colours.low, colours.high), low: 0, high: 1 });
  const image = Bokeh.require("core/util/ndarray").ndarray(flat, { dtype: "float64", shape: [12, rows] });
  figure.image({
    image: { value: image }, x: times[0] - step / 2, y: bottom, dw: rows * step, dh: top - bottom, color_mapper: mapper, level: "image",
  });
  figure.line(times, overlay, { color: colours.f0, width: 2 });
  const wanted = f0 ? [62.5, 125, 250, 500] : [0, 0.25, 0.5, 0.75, 1];
  const Fixed = Bokeh.Models.get("FixedTicker");
  const [axis] = figure.yaxes;
  const places = f0 ? wanted.map(octaves) : wanted;
  axis.ticker = new Fixed({ ticks: places });
  axis.major_label_overrides = new Map(places.map((place, k) => [place, f0 ? `${wanted[k]} Hz` : `${wanted[k]}`]));
  for (const grid of figure.ygrids) grid.grid_line_color = null;
  for (const grid of figure.xgrids) grid.grid_line_color = null;
  const right = new (Bokeh.Models.get("LinearAxis"))();
  const centres = PITCHES.map((_, pitch) => bottom + ((pitch + 0.5) / 12) * (top - bottom));
  right.ticker = new Fixed({ ticks: centres });
  right.major_label_overrides = new Map(centres.map((centre, pitch) => [centre, PITCHES[pitch].includes("#") ? "" : PITCHES[pitch]]));
  styled(right, colours);
  figure.add_layout(right, "right");
}

/** Shade the rows without a face. */
function shadeHoles(figure, colours, times, step, known, bottom, top) {
  const left = [];
  const right = [];
  for (let row = 0; row < times.length; row++) {
    if (known(row)) continue;
    const start = times[row] - step / 2;
    if (right.length && Math.abs(right[right.length - 1] - start) < step / 2) right[right.length - 1] = start + step;
    else { left.push(start); right.push(start + step); }
  }
  if (left.length) {
    figure.quad({ left, right, bottom: left.map(() => bottom), top: left.map(() => top), fill_color: colours.hole, line_color: null, level: "underlay" });
  }
}

const spread = (values) => {
  const known = values.filter((value) => !Number.isNaN(value));
  const mean = known.reduce((sum, value) => sum + value, 0) / (known.length || 1);
  return known.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (known.length || 1);
};

function lines(Bokeh, figure, colours, times, named) {
  const items = [];
  named.forEach(([name, values], k) => {
    const renderer = figure.line(times, values, { color: colours.lines[k % colours.lines.length], width: 1.5 });
    items.push(new (Bokeh.Models.get("LegendItem"))({ label: { value: name }, renderers: [renderer] }));
  });
  const legend = new (Bokeh.Models.get("Legend"))({
    items, label_text_color: colours.text, label_text_font_size: "11px", label_text_font: "system-ui, sans-serif", background_fill_color: null,
    border_line_color: null, padding: 0, margin: 4, spacing: 0, glyph_width: 12, glyph_height: 14, label_height: 14, label_standoff: 4,
  });
  figure.min_border_right = 0;
  figure.add_layout(legend, "right");
}

function drawUnits(Bokeh, figure, colours, clip) {
  const times = clip.vision.times;
  const units = clip.units.map((name, k) => [name, clip.arrays.au[k]]).sort((a, b) => spread(b[1]) - spread(a[1]));
  figure.y_range.setv({ start: 0, end: 5 });
  shadeHoles(figure, colours, times, clip.vision.step || 1 / 30, (row) => !Number.isNaN(clip.arrays.au[0][row]), 0, 5);
  for (const [, values] of units.slice(5)) figure.line(times, values, { color: colours.quiet, width: 0.75 });
  lines(Bokeh, figure, colours, times, units.slice(0, 5));
}

function drawGaze(Bokeh, figure, colours, clip) {
  const times = clip.vision.times;
  const [x, y] = clip.arrays.gaze;
  const most = Math.max(10, ...[...x, ...y].filter((value) => !Number.isNaN(value)).map(Math.abs)) * 1.1;
  figure.y_range.setv({ start: -most, end: most });
  shadeHoles(figure, colours, times, clip.vision.step || 1 / 30, (row) => !Number.isNaN(x[row]), -most, most);
  lines(Bokeh, figure, colours, times, [["sideways", x], ["down", y]]);
}

function drawTokens(figure, colours, allTokens, end, times) {
  const timed = times ? allTokens.map((_, k) => k).filter((k) => times[k] !== null) : null;
  const tokens = timed ? timed.map((k) => allTokens[k]) : allTokens;
  const at = timed ? timed.map((k) => times[k]) : tokens.map((_, k) => ((k + 0.5) * end) / tokens.length);
  figure.y_range.setv({ start: 0, end: 1 });
  for (const axis of figure.yaxes) axis.visible = false;
  for (const grid of figure.ygrids) grid.grid_line_color = null;
  const y = tokens.map((_, k) => [0.8, 0.5, 0.2][k % 3]);
  figure.text({ x: at, y, text: tokens, text_color: colours.strong, text_font_size: "12px", text_font: "system-ui, sans-serif", text_align: "center", text_baseline: "middle" });
}

/** Draw a clip's curves into a place; return an object whose `clear` removes them. */
async function drawCurves(place, clip, seconds) {
  const Bokeh = await loadBokeh();
  const shade = isDark() ? "dark" : "light";
  const colours = COLOURS[shade];
  const ends = ["audio", "vision"].filter((name) => clip[name]).map((name) => clip[name].times.at(-1) + clip[name].step);
  const end = Math.max(seconds ?? 0, ...ends, 0.1);
  const range = new Bokeh.Range1d({ start: 0, end, bounds: [0, end] });
  const parts = [];
  if (clip.audio) parts.push([200, clip.arrays.log_f0 ? "F0 over chroma" : "Zero-crossing rate over chroma", (figure) => drawAudio(Bokeh, figure, colours, clip)]);
  if (clip.vision) parts.push([150, "Action units, intensity: the five that change most in colour", (figure) => drawUnits(Bokeh, figure, colours, clip)]);
  if (clip.vision) parts.push([120, "Gaze [degrees]", (figure) => drawGaze(Bokeh, figure, colours, clip)]);
  if (clip.tokens?.length) parts.push([100, clip.token_times ? "Tokens, at the start of their words" : "Tokens, at even distances: text rows have no times", (figure) => drawTokens(figure, colours, clip.tokens, end, clip.token_times)]);
  if (!parts.length) {
    place.textContent = "The columns of this clip have no names or its rows no times, so that no curve can be drawn.";
    return null;
  }
  const spans = [];
  const figures = parts.map(([height, title, fill], k) => {
    const last = k === parts.length - 1;
    const figure = panel(Bokeh, colours, range, height + (last ? 34 : 0), title, last);
    fill(figure);
    const span = new (Bokeh.Models.get("Span"))({ location: 0, dimension: "height", line_color: colours.strong, line_width: 1, visible: false });
    figure.add_layout(span);
    spans.push(span);
    return figure;
  });
  const column = new (Bokeh.Models.get("Column"))({ children: figures, sizing_mode: "stretch_width", spacing: 6 });
  const names = parts.map(([, title]) => title.toLowerCase().split(":")[0]).join("; ");
  const drawing = element("div", { className: "drawing" });
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", `Curves over ${end.toFixed(2)} s: ${names}. The slider below reads values at a time.`);
  place.replaceChildren(drawing, reader(clip, end, spans));
  place.classList.toggle("on-dark", shade === "dark");
  const view = await Bokeh.Plotting.show(column, drawing);
  removeStops(drawing);
  return { clear: () => { view.remove?.(); place.replaceChildren(); } };
}

/** Take the canvases out of the order of the Tab key: they do nothing by keyboard, the slider does. */
function removeStops(node) {
  for (const child of node.children) {
    if (child.tabIndex >= 0) child.removeAttribute("tabindex");
    removeStops(child);
    if (child.shadowRoot) removeStops(child.shadowRoot);
  }
}

/** Make the slider that moves a line through all curves and reads them. */
function reader(clip, end, spans) {
  const slider = element("input", { type: "range", min: "0", max: String(end), step: "0.02", value: "0" });
  slider.setAttribute("aria-label", "Time in seconds");
  const output = element("output", { textContent: "Move the slider to read values." });
  slider.addEventListener("input", () => {
    const time = Number(slider.value);
    for (const span of spans) span.setv({ location: time, visible: true });
    output.textContent = reading(clip, time);
    slider.setAttribute("aria-valuetext", output.textContent);
  });
  return element("div", { className: "cursor" }, slider, output);
}

function reading(clip, time) {
  const words = [`${time.toFixed(2)} s`];
  const nearest = (times) => times.reduce((best, at, row) => (Math.abs(at - time) < Math.abs(times[best] - time) ? row : best), 0);
  if (clip.arrays.log_f0) {
    const value = clip.arrays.log_f0[0][nearest(clip.audio.times)];
    words.push(Number.isNaN(value) ? "unvoiced" : `F0 ${Math.exp(value).toFixed(0)} Hz`);
  }
  if (clip.vision) {
    const row = nearest(clip.vision.times);
    if (Number.isNaN(clip.arrays.au[0][row])) words.push("no valid face");
    else {
      const strongest = clip.units.map((name, k) => [clip.arrays.au[k][row], name]).sort((a, b) => b[0] - a[0]).slice(0, 3);
      words.push(strongest.map(([value, name]) => `${name} ${value.toFixed(1)}`).join(", "));
      words.push(`gaze ${clip.arrays.gaze.map((axis) => `${axis[row].toFixed(0)}°`).join(" sideways, ")} down`);
    }
  }
  return words.join(" · ");
}
