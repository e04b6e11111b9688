"use strict";
const data = JSON.parse(document.getElementById("data").textContent);

// -- colours ------------------------------------------------------------------------------------------

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);

function setTheme(theme) {
  if (theme === "system") delete root.dataset.theme;
  else root.dataset.theme = theme;
  redrawCurves();
}

for (const input of document.querySelectorAll(".theme input")) {
  input.addEventListener("change", () => setTheme(input.value));
}
dark.addEventListener("change", redrawCurves);

// -- the table of clips -------------------------------------------------------------------------------

const PAGE = 100;
const whole = (value) => (value === null ? "–" : value.toLocaleString("en"));
const fixed = (digits) => (value) => (value === null ? "–" : value.toFixed(digits));
const percent = (value) => (value === null ? "–" : `${Math.round(100 * value)} %`);
const COLUMNS = [
  { key: "id", title: "clip", text: true },
  { key: "split", title: "split", text: true },
  { key: "seconds", title: "length [s]", show: fixed(2) },
  { key: "tokens", title: "tokens", show: whole },
  { key: "audio", title: "audio rows", show: whole },
  { key: "vision", title: "vision rows", show: whole },
  { key: "valid", title: "face", show: percent },
  { key: "confidence", title: "confidence", show: fixed(2) },
  { key: "voiced", title: "voiced", show: percent },
  { key: "label", title: "label", show: fixed(1) },
  { key: "score", title: "outlier", show: fixed(1) },
  { key: "states", title: "not done", text: true },
];
const field = Object.fromEntries(data.fields.map((name, place) => [name, place]));
const value = (place, key) => data.clips[place][field[key]];
const used = COLUMNS.filter(
  (column) => column.key === "id" || data.clips.some((clip) => clip[field[column.key]] !== null && clip[field[column.key]] !== ""),
);
const table = document.getElementById("clip-table");
const order = { key: null, falling: false };
let matching = data.clips.map((_, place) => place);
let page = 0;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function makeHead() {
  for (const column of used) {
    const button = element("button", { type: "button", className: "sort", textContent: column.title });
    button.addEventListener("click", () => {
      // Numbers first fall, since the large ones are looked for; texts first rise.
      order.falling = order.key === column.key ? !order.falling : !column.text;
      order.key = column.key;
      arrange();
    });
    const head = element("th", { scope: "col", className: column.text ? "" : "n" }, button);
    head.dataset.key = column.key;
    table.tHead.rows[0].append(head);
  }
}

function compare(a, b) {
  const left = value(a, order.key);
  const right = value(b, order.key);
  if (left === right) return a - b;
  if (left === null || left === "") return 1; // what is unknown comes last in both directions
  if (right === null || right === "") return -1;
  const sign = typeof left === "number" ? left - right : left < right ? -1 : 1;
  return order.falling ? -sign : sign;
}

function fits(place, words, kind) {
  const states = value(place, "letters");
  if (kind === "f" && !states.includes("f")) return false;
  if (kind === "i" && !/[^d]/.test(states)) return false;
  if (kind === "o" && value(place, "score") === null) return false;
  const text = `${value(place, "id")} ${value(place, "split")} ${value(place, "text")} ${value(place, "states")}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

function arrange() {
  const words = document.getElementById("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const kind = document.getElementById("filter").value;
  matching = data.clips.map((_, place) => place).filter((place) => fits(place, words, kind));
  if (order.key) matching.sort(compare);
  page = 0;
  showPage();
}

function showPage() {
  const pages = Math.max(1, Math.ceil(matching.length / PAGE));
  const places = matching.slice(page * PAGE, (page + 1) * PAGE);
  closeAll(table);
  table.tBodies[0].replaceChildren(...places.map(makeRow));
  for (const head of table.tHead.rows[0].cells) {
    if (head.dataset.key === order.key) head.setAttribute("aria-sort", order.falling ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  document.getElementById("back").disabled = page === 0;
  document.getElementById("next").disabled = page >= pages - 1;
  document.getElementById("shown").textContent =
    `${whole(matching.length)} of ${whole(data.clips.length)} clips` + (pages > 1 ? `, page ${page + 1} of ${pages}` : "");
}

function makeRow(place) {
  const row = element("tr");
  for (const column of used) {
    if (column.key === "id") {
      const button = element("button", { type: "button", className: "open" }, element("bdi", { textContent: value(place, "id") }));
      button.dataset.clip = place;
      button.setAttribute("aria-expanded", "false");
      row.append(element("th", { scope: "row" }, button));
    } else {
      const shown = value(place, column.key);
      row.append(element("td", { className: column.text ? "" : "n", textContent: column.show ? column.show(shown) : shown }));
    }
  }
  return row;
}

// -- one clip -----------------------------------------------------------------------------------------

const openClips = new Map(); // button -> what was opened

function toggle(button) {
  if (openClips.has(button)) close(button);
  else open(button);
}

function open(button) {
  const place = Number(button.dataset.clip);
  const row = button.closest("tr");
  const cell = element("td", { colSpan: row.cells.length });
  const detail = element("tr", { className: "detail" }, cell);
  row.after(detail);
  button.setAttribute("aria-expanded", "true");
  if (value(place, "text")) cell.append(element("p", { className: "said" }, element("bdi", { textContent: value(place, "text") })));
  const labels = value(place, "labels");
  const facts = [
    value(place, "path"),
    labels ? `labels ${labels}` : "",
    value(place, "states") ? `not done: ${value(place, "states")}` : "",
  ];
  cell.append(element("p", { className: "facts" }, element("bdi", { textContent: facts.filter(Boolean).join(" · ") })));
  addStrip(cell, place);
  const curves = element("div", { className: "curves" });
  cell.append(curves);
  const opened = { detail, place, curves, drawn: null };
  openClips.set(button, opened);
  draw(opened);
}

function close(button) {
  const opened = openClips.get(button);
  openClips.delete(button);
  opened.drawn?.clear();
  opened.detail.remove();
  button.setAttribute("aria-expanded", "false");
}

function closeAll(within) {
  for (const button of [...openClips.keys()]) if (within.contains(button)) close(button);
}

function addStrip(cell, place) {
  const strip = document.getElementById(`strip-${place}`);
  if (!strip) {
    if (data.unstripped[place]) cell.append(element("p", { className: "under", textContent: data.unstripped[place] }));
    return;
  }
  const [times, image] = strip.textContent.split("|");
  cell.append(
    element("img", {
      className: "strip",
      src: `data:image/jpeg;base64,${image}`,
      alt: `Frames at ${times} s, with the box of the face track and the landmarks`,
    }),
    element("p", { className: "under", textContent: `Frames at ${times} s. Box: the face track; points: the landmarks of the vision rows.` }),
  );
}

async function draw(opened) {
  const series = document.getElementById(`series-${opened.place}`);
  if (!series) {
    opened.curves.textContent = data.unseried;
    return;
  }
  try {
    opened.drawn?.clear();
    opened.drawn = await drawCurves(opened.curves, await decoded(series.textContent), value(opened.place, "seconds"));
  } catch (error) {
    opened.curves.textContent = `The curves cannot be drawn: ${error.message}. A current browser is needed.`;
    console.error(error);
  }
}

function redrawCurves() {
  for (const opened of openClips.values()) draw(opened);
}

// -- events -------------------------------------------------------------------------------------------

document.addEventListener("click", (event) => {
  const button = event.target.closest(".open");
  if (button) toggle(button);
});
for (const id of ["search", "filter"]) {
  for (const kind of ["input", "change"]) document.getElementById(id).addEventListener(kind, arrange);
}
for (const [id, step] of [["back", -1], ["next", 1]]) {
  document.getElementById(id).addEventListener("click", () => {
    page += step;
    showPage();
  });
}
addEventListener("beforeprint", () => {
  for (const group of document.querySelectorAll("details")) group.open = true;
});
makeHead();
arrange();
root.dataset.ready = "";
