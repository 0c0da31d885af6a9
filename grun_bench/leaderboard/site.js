"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const by = (id) => document.getElementById(id);
const details = JSON.parse(by("details").textContent);
const boards = all(".board");

// --- filters ---
const filters = ["search", "part", "task", "model", "adapter", "settings"].map(by);
function filter() {
  const [search, part, task, model, adapter, settings] = filters.map((field) => field.value);
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const board of boards) {
    const data = board.dataset;
    const title = `${data.task} ${data.model}`.toLowerCase();
    const wanted = (!part || data.part === part) && (!task || data.task === task) && (!model || data.model === model);
    let found = 0;
    for (const row of all("tr.row", board)) {
      const text = `${title} ${row.dataset.text}`;
      const fits = words.every((word) => text.includes(word)) && (!adapter || row.dataset.adapter === adapter) &&
        (!settings || row.dataset.settings === settings);
      const pinned = row.classList.contains("pinned");
      if (fits) found += 1;
      row.hidden = !fits && !pinned;
      if (row.hidden) close(row);
      point(board, row.dataset.row).forEach((mark) => mark.toggleAttribute("hidden", row.hidden));
    }
    board.hidden = !wanted || !found;
    if (!board.hidden) shown += found;
  }
  for (const heading of all(".part")) {
    heading.hidden = !boards.some((board) => !board.hidden && board.dataset.part === heading.dataset.part);
  }
  by("count").textContent = shown === 1 ? "1 row" : `${shown} rows`;
  by("empty").hidden = shown > 0;
}
filters.forEach((field) => field.addEventListener(field.tagName === "SELECT" ? "change" : "input", filter));
document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
by("reset").addEventListener("click", () => {
  filters.forEach((field) => { field.value = ""; });
  filter();
});

// --- sorting: the pinned rows stay on top, missing numbers at the end ---
function sort(button) {
  const head = button.closest("th");
  const place = [...head.parentNode.children].indexOf(head);
  const first = button.dataset.first === "down" ? "descending" : "ascending";
  const other = first === "descending" ? "ascending" : "descending";
  const order = head.getAttribute("aria-sort") === first ? other : first;
  for (const each of head.parentNode.children) each.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", order);
  const body = head.closest("table").tBodies[0];
  const sign = order === "ascending" ? 1 : -1;
  const text = button.dataset.first === "text";
  const value = (row) => {
    const cell = row.cells[place];
    if (text) return cell.textContent;
    return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
  };
  const rows = all("tr.row", body).filter((row) => !row.classList.contains("pinned"));
  rows.forEach(close);
  const keyed = rows.map((row) => [value(row), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (text ? a.localeCompare(b, "en") : a - b);
  });
  keyed.forEach(([, row]) => body.append(row));
}

// --- opening a row ---
function make(tag, text, parent) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}
function fill(cell, part) {
  if (typeof part === "string") {
    cell.textContent = part;
    return;
  }
  const link = make("a", part.t, cell);
  link.href = part.h;
  link.rel = "noopener noreferrer nofollow";
}
function open(row) {
  const board = row.closest(".board");
  const more = make("tr");
  more.className = "more";
  const cell = make("td", undefined, more);
  cell.colSpan = row.cells.length;
  const blocks = make("div", undefined, cell);
  blocks.className = "blocks";
  for (const block of details[board.dataset.board][row.dataset.row]) {
    const part = make("div", undefined, blocks);
    if (block.head.length || block.picture) part.className = "wide";
    make("h4", block.title, part);
    if (block.picture) {
      const image = make("img", undefined, part);
      image.src = block.picture;
      image.alt = block.title;
      continue;
    }
    const table = make("table", undefined, part);
    if (block.head.length) {
      const head = make("tr", undefined, make("thead", undefined, table));
      block.head.forEach((text) => make("th", text, head));
    }
    const body = make("tbody", undefined, table);
    for (const parts of block.rows) {
      const line = make("tr", undefined, body);
      parts.forEach((each) => fill(make("td", undefined, line), each));
    }
  }
  row.after(more);
  row.querySelector(".open").setAttribute("aria-expanded", "true");
}
function close(row) {
  const next = row.nextElementSibling;
  if (next && next.classList.contains("more")) next.remove();
  row.querySelector(".open").setAttribute("aria-expanded", "false");
}
const isOpen = (row) => row.querySelector(".open").getAttribute("aria-expanded") === "true";

// --- the picture ---
const point = (board, id) => all(`[data-row="${id}"], [data-name="${id}"]`, board).filter((e) => e.ownerSVGElement);
const rowOf = (mark) => mark.closest(".board").querySelector(`tr[data-row="${mark.dataset.row}"]`);
const tip = by("tip");
function light(row, on) {
  row.classList.toggle("on", on);
  point(row.closest(".board"), row.dataset.row).forEach((mark) => mark.classList.toggle("on", on));
}
function hint(mark, event) {
  const row = rowOf(mark);
  const heads = all("th", row.closest("table"));
  const lines = [2, 3, 4].filter((place) => row.cells[place].dataset.v !== undefined && heads[place]).map((place) =>
    `${heads[place].textContent}: ${row.cells[place].firstChild.textContent}`);
  tip.textContent = [mark.querySelector("title").textContent, ...lines].join("\n");
  tip.hidden = false;
  const box = mark.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  const x = Math.min(box.right + 10, window.innerWidth - size.width - 8);
  tip.style.left = `${Math.max(8, x)}px`;
  tip.style.top = `${Math.max(8, box.top - size.height - 8)}px`;
  light(row, true);
}
function unhint(mark) {
  tip.hidden = true;
  light(rowOf(mark), false);
}
function jump(mark) {
  const row = rowOf(mark);
  if (!isOpen(row)) open(row);
  row.scrollIntoView({ block: "center", behavior: "smooth" });
}
for (const mark of all("g.pt")) {
  mark.setAttribute("tabindex", "0");
  mark.setAttribute("role", "button");
  mark.addEventListener("mouseenter", () => hint(mark));
  mark.addEventListener("focus", () => hint(mark));
  mark.addEventListener("mouseleave", () => unhint(mark));
  mark.addEventListener("blur", () => unhint(mark));
  mark.addEventListener("click", () => jump(mark));
  mark.addEventListener("keydown", (event) => { if (event.key === "Enter") jump(mark); });
}

if (window.matchMedia("(max-width: 860px)").matches) all(".rules").forEach((rules) => { rules.open = false; });

for (const board of boards) {
  board.addEventListener("click", (event) => {
    const button = event.target.closest("th button");
    if (button) {
      sort(button);
      return;
    }
    const row = event.target.closest("tr.row");
    if (!row || String(window.getSelection()) || event.target.closest("a")) return;
    if (isOpen(row)) close(row); else open(row);
  });
  board.addEventListener("mouseover", (event) => {
    const row = event.target.closest("tr.row");
    if (row) light(row, true);
  });
  board.addEventListener("mouseout", (event) => {
    const row = event.target.closest("tr.row");
    if (row) light(row, false);
  });
}
filter();
