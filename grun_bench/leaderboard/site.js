"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const by = (id) => document.getElementById(id);
const narrow = window.matchMedia("(max-width: 860px)");

/** The text of a packed block: gzip in base64. */
async function unpacked(id) {
  const bytes = Uint8Array.from(atob(by(id).textContent), (char) => char.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}
/** Row id -> its blocks, unpacked once. */
let details;
async function blocksOf(row) {
  if (!details) details = unpacked("packed-rows").then(JSON.parse);
  return (await details)[row.dataset.row];
}

// --- what the page holds: boards, and of each its rows in their own order with their marks in the picture ---
let boards = [];
function take() {
  boards = all(".board").map((element) => {
    const marks = new Map();
    for (const mark of all("[data-row], [data-name]", element).filter((each) => each.ownerSVGElement)) {
      const id = mark.dataset.row || mark.dataset.name;
      marks.set(id, [...(marks.get(id) || []), mark]);
    }
    const { task, model, part } = element.dataset;
    return { element, marks, task, model, part, title: `${task} ${model}`.toLowerCase(), rows: all("tr.row", element) };
  });
}
const boardOf = (inside) => boards.find((board) => board.element === inside.closest(".board"));

// --- filters ---
const filters = ["search", "part", "task", "model", "adapter", "settings"].map(by);
function filter() {
  const [search, part, task, model, adapter, settings] = filters.map((field) => field.value);
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const board of boards) {
    const wanted = (!part || board.part === part) && (!task || board.task === task) && (!model || board.model === model);
    let found = 0;
    for (const row of wanted ? board.rows : []) {
      const text = `${board.title} ${row.dataset.text}`;
      const fits = words.every((word) => text.includes(word)) && (!adapter || row.dataset.adapter === adapter) &&
        (!settings || row.dataset.settings === settings);
      if (fits) found += 1;
      row.hidden = !fits && !row.classList.contains("pinned");
      if (row.hidden) close(row);
      (board.marks.get(row.dataset.row) || []).forEach((mark) => mark.toggleAttribute("hidden", row.hidden));
    }
    board.element.hidden = !found;
    shown += found;
  }
  const seen = (root) => all(".board", root).some((board) => !board.hidden);
  const chosen = filters.some((field) => field.value);
  for (const fold of all(".bare")) {
    fold.hidden = !seen(fold);
    if (chosen && !fold.hidden) fold.open = true;
  }
  for (const each of all(".part")) each.hidden = !seen(each);
  by("count").textContent = shown === 1 ? "1 row" : `${shown} rows`;
  by("empty").hidden = shown > 0;
}

/** What a cell is sorted by; null for none. */
function numberOf(cell) {
  const value = parseFloat(cell.dataset.v === undefined ? cell.textContent : cell.dataset.v);
  return Number.isNaN(value) ? null : value;
}

// --- sorting: the pinned rows stay on top, missing numbers at the end ---
const heads = (board) => all("th[aria-sort] button", board.element);
function sort(board, key, order) {
  const button = heads(board).find((each) => each.dataset.key === key);
  heads(board).forEach((each) => each.closest("th").setAttribute("aria-sort", each === button ? order : "none"));
  const rows = board.rows.filter((row) => !row.classList.contains("pinned"));
  const place = button ? button.closest("th").cellIndex : 0;
  const sign = order === "ascending" ? 1 : -1;
  const text = button && button.dataset.first === "text";
  const value = (row) => {
    const cell = row.cells[place];
    return text ? cell.textContent : numberOf(cell);
  };
  const keyed = rows.map((row) => [button ? value(row) : 0, row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (text ? a.localeCompare(b, "en") : a - b);
  });
  for (const [, row] of keyed) {
    const more = moreOf(row);
    row.parentNode.append(row);
    if (more) row.after(more);
  }
}
function sorted(board) {
  const head = heads(board).map((button) => button.closest("th")).find((th) => th.getAttribute("aria-sort") !== "none");
  return head ? `${board.element.dataset.board}.${head.firstChild.dataset.key}.${head.getAttribute("aria-sort")}` : "";
}
function click(button) {
  const head = button.closest("th");
  const first = button.dataset.first === "down" ? "descending" : "ascending";
  const other = first === "descending" ? "ascending" : "descending";
  sort(boardOf(button), button.dataset.key, head.getAttribute("aria-sort") === first ? other : first);
}

// --- opening a row ---
function make(tag, text, parent) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}
/** The text of a cell: numbers come in thousandths, with half of an interval or its two ends behind them. */
function textOf(part) {
  if (typeof part === "string") return part;
  if (typeof part === "number") return (part / 1000).toFixed(3);
  if (!Array.isArray(part)) return part.t || part.h.split("/").pop().replace(/\.json$/, "");
  const [value, ...ends] = part.map(textOf);
  return ends.length > 1 ? `${value} [${ends.join(", ")}]` : ends.length ? `${value} ± ${ends[0]}` : value;
}
const isNumber = (part) => typeof part === "number" || Array.isArray(part) || (typeof part === "string" && /^[-\d.,]+$/.test(part));
function fill(cell, part, base = "") {
  if (isNumber(part)) cell.className = "r";
  if (typeof part === "string" || isNumber(part) || (part.g && !by(part.g))) {
    cell.textContent = textOf(part);
    return;
  }
  const link = make("a", textOf({ ...part, h: base + part.h }), cell);
  if (part.g) {
    link.href = `#${part.g}`;
    link.className = "gloss";
    if (by(`${part.g}-tip`)) link.setAttribute("aria-describedby", `${part.g}-tip`);
  } else {
    link.href = base + part.h;
    link.rel = "noopener noreferrer nofollow";
  }
}
function table(block, parent) {
  const shown = make("table", undefined, parent);
  if (block.texts) shown.className = "texts";
  if (block.head.length) {
    const head = make("tr", undefined, make("thead", undefined, shown));
    block.head.forEach((part, place) => {
      const cell = make("th", undefined, head);
      fill(cell, part);
      if (block.rows.some((row) => isNumber(row[place]))) cell.className = "r";
    });
  }
  const body = make("tbody", undefined, shown);
  for (const parts of block.rows) {
    const line = make("tr", undefined, body);
    parts.forEach((part, place) => {
      const cell = make("td", undefined, line);
      fill(cell, part, block.base);
      if (parts.length < block.head.length) {
        cell.colSpan = block.head.length;
        cell.className = "theme";
      }
      if (block.texts) cell.dataset.label = textOf(block.head[place]);
    });
  }
}
function show(block, blocks) {
  const part = make(block.fold ? "details" : "div", undefined, blocks);
  if (block.fold || block.texts || block.head.length > 3) part.className = "wide";
  make(block.fold ? "summary" : "h4", block.title, part);
  if (block.picture) {
    const image = make("img", undefined, part);
    image.src = block.picture;
    image.alt = block.title;
  } else {
    table(block, make("div", undefined, part));
  }
}
async function open(row) {
  const more = make("tr");
  more.className = "more";
  const cell = make("td", undefined, more);
  cell.colSpan = row.cells.length;
  const blocks = make("div", undefined, cell);
  blocks.className = "blocks";
  row.after(more);
  row.querySelector(".open").setAttribute("aria-expanded", "true");
  (await blocksOf(row)).forEach((block) => show(block, blocks));
}
function moreOf(row) {
  const next = row.nextElementSibling;
  return next && next.classList.contains("more") ? next : null;
}
function close(row) {
  const more = moreOf(row);
  if (!more) return;
  more.remove();
  row.querySelector(".open").setAttribute("aria-expanded", "false");
}

// --- the address: filters, sorted columns, opened rows and the entry of the glossary that is looked at ---
let entry = "";
function keep() {
  const said = new URLSearchParams();
  filters.forEach((field) => { if (field.value) said.set(field.id, field.value); });
  const orders = boards.map(sorted).filter(Boolean);
  if (orders.length) said.set("sort", orders.join(","));
  const opened = all("tr.more").map((more) => more.previousElementSibling.dataset.row);
  if (opened.length) said.set("open", opened.join(","));
  if (entry) said.set("about", entry);
  const text = said.toString().replaceAll("%2C", ",");
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}
async function restore() {
  const said = new URLSearchParams(location.hash.slice(1));
  filters.forEach((field) => { field.value = said.get(field.id) || ""; });
  filter();
  const list = (name) => (said.get(name) || "").split(",").filter(Boolean);
  const orders = new Map(list("sort").map((each) => {
    const [, id, key, order] = each.match(/^(\w+)\.(.+)\.(\w+)$/) || [];
    return [id, [key, order]];
  }));
  for (const board of boards) {
    const [key, order] = orders.get(board.element.dataset.board) || [];
    if (key || sorted(board)) sort(board, key, order === "descending" ? order : "ascending");
  }
  const opened = new Set(list("open"));
  const rows = boards.flatMap((board) => board.rows);
  rows.filter((row) => moreOf(row) && !opened.has(row.dataset.row)).forEach(close);
  const wanted = rows.filter((row) => opened.has(row.dataset.row) && !row.hidden);
  for (const row of wanted) {
    const fold = row.closest(".bare");
    if (fold) fold.open = true;
  }
  await Promise.all(wanted.filter((row) => !moreOf(row)).map(open));
  if (wanted.length) wanted[0].scrollIntoView({ block: "center" });
  entry = said.get("about") || "";
  if (entry) look(entry);
}
function look(id) {
  const found = by(id);
  if (!found) return;
  const fold = found.closest("details");
  if (fold) fold.open = true;
  found.scrollIntoView({ block: "start" });
  found.focus({ preventScroll: true });
}

// --- tips: what a heading or a point says, on hover and on focus; Escape takes them away ---
const tip = by("tip");
function hint(about, text) {
  tip.textContent = text;
  tip.hidden = false;
  const box = about.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  const above = box.top - size.height - 8;
  tip.style.left = `${Math.max(8, Math.min(box.left, window.innerWidth - size.width - 8))}px`;
  tip.style.top = `${above >= 8 ? above : box.bottom + 8}px`;
}
const unhint = () => { tip.hidden = true; };
function described(event) {
  const about = event.target.closest && event.target.closest("[aria-describedby]");
  const told = about && by(about.getAttribute("aria-describedby"));
  if (told) hint(about, told.textContent);
  return about;
}

// --- the picture ---
const rowOf = (mark) => boardOf(mark).rows.find((row) => row.dataset.row === mark.dataset.row);
function light(row, on) {
  row.classList.toggle("on", on);
  (boardOf(row).marks.get(row.dataset.row) || []).forEach((mark) => mark.classList.toggle("on", on));
}
function point(mark) {
  const row = rowOf(mark);
  const titles = heads(boardOf(mark));
  const lines = [2, 3, 4].filter((place) => titles[place] && numberOf(row.cells[place]) !== null).map((place) =>
    `${titles[place].textContent}: ${row.cells[place].firstChild.textContent}`);
  hint(mark, [mark.querySelector("title").textContent, ...lines].join("\n"));
  light(row, true);
}
async function jump(mark) {
  const row = rowOf(mark);
  if (!moreOf(row)) await open(row);
  keep();
  row.scrollIntoView({ block: "center" });
}
const markOf = (event) => event.target.closest && event.target.closest("g.pt");

// --- what happens where: one listener of a kind for all boards ---
document.addEventListener("click", async (event) => {
  const link = event.target.closest("a.gloss");
  if (link) {
    event.preventDefault();
    entry = link.getAttribute("href").slice(1);
    look(entry);
    keep();
    return;
  }
  const button = event.target.closest("th button");
  const mark = markOf(event);
  const row = event.target.closest("tr.row");
  if (button) click(button);
  else if (mark) await jump(mark);
  else if (!row || String(window.getSelection()) || event.target.closest("a")) return;
  else if (moreOf(row)) close(row);
  else await open(row);
  keep();
});
for (const kind of ["mouseover", "focusin"]) {
  document.addEventListener(kind, (event) => {
    if (described(event)) return;
    const mark = markOf(event);
    const row = event.target.closest && event.target.closest("tr.row");
    if (mark) point(mark);
    else if (row && kind === "mouseover") light(row, true);
  });
}
for (const kind of ["mouseout", "focusout"]) {
  document.addEventListener(kind, (event) => {
    const mark = markOf(event);
    const row = mark ? rowOf(mark) : event.target.closest && event.target.closest("tr.row");
    unhint();
    if (row) light(row, false);
  });
}
document.addEventListener("keydown", (event) => {
  const mark = markOf(event);
  if (event.key === "Escape") unhint();
  if (mark && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    jump(mark);
  }
});
filters.forEach((field) => field.addEventListener(field.tagName === "SELECT" ? "change" : "input", () => {
  filter();
  keep();
}));
document.querySelector(".filters form").addEventListener("submit", (event) => event.preventDefault());
by("reset").addEventListener("click", () => {
  filters.forEach((field) => { field.value = ""; });
  filter();
  keep();
});
window.addEventListener("hashchange", restore);

// --- the beginning ---
async function begin() {
  if (by("packed-boards")) {
    by("boards").innerHTML = await unpacked("packed-boards");
    by("boards").className = "many";
  }
  take();
  all(".reading").slice(narrow.matches ? 0 : 1).forEach((reading) => { reading.open = false; });
  for (const mark of all("g.pt")) {
    mark.setAttribute("tabindex", "0");
    mark.setAttribute("role", "button");
  }
  await restore();
  if (narrow.matches && !filters.some((field) => field.value)) document.querySelector(".filters").open = false;
  narrow.addEventListener("change", () => { document.querySelector(".filters").open = !narrow.matches; });
  document.documentElement.dataset.ready = "1";
}
begin();
