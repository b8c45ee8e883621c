"use strict";
// Drawings: a copy where one repeats, and names of cells under the pointer and under a cursor that
// the arrow keys move.

const PITCH = 1.5; // from one row to the next, as drawn
const tip = document.getElementById("tip");
const meanings = { grid: "untouched: left alone, as it should be" };
for (const item of document.querySelectorAll("[data-outcome]")) {
  meanings[item.dataset.outcome] = item.textContent.trim();
}

for (const svg of document.querySelectorAll("svg.blocks")) svg.tabIndex = 0;

/** Copy the drawings that a case shares with an earlier one. */
function drawAgain(item) {
  for (const again of item.querySelectorAll(".again")) {
    const drawn = document.querySelector(again.querySelector("a").hash);
    again.replaceWith(drawn.querySelector("figure").cloneNode(true));
  }
}

document.querySelectorAll(".case[open]").forEach(drawAgain);
document.addEventListener(
  "toggle",
  (event) => event.target.matches(".case") && drawAgain(event.target),
  { capture: true }, // it does not bubble
);

/** What a cell is, or null where there is none. Rows count from 0, below the offsets. */
function cellAt(svg, column, row) {
  const label = svg.querySelectorAll(":scope > text")[row];
  const place = /^block (\d+)(?: \+(\d+))?$/.exec(label?.textContent ?? "");
  if (!place) return null;
  const middle = new DOMPoint(column + 0.5, PITCH * (row + 1) + 0.5);
  // Outcomes lie over the grid.
  const paths = [...svg.querySelectorAll(":scope > path:not(.first)")].reverse();
  const path = paths.find((candidate) => candidate.isPointInFill(middle));
  if (!path) return null;
  const offset = Number(place[2] ?? 0) + column;
  return `block ${place[1]}, offset ${offset}, ${meanings[path.getAttribute("class")]}`;
}

function showTip(svg, column, row) {
  const text = cellAt(svg, column, row);
  tip.hidden = text === null;
  if (text === null) return false;
  tip.textContent = text;
  const corner = new DOMPoint(column, PITCH * (row + 1) + 1).matrixTransform(svg.getScreenCTM());
  tip.style.left = `${Math.max(4, Math.min(corner.x, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${corner.y + 6}px`;
  return true;
}

document.addEventListener("pointermove", (event) => {
  const svg = event.target.closest?.("svg.blocks");
  if (!svg) {
    if (!document.activeElement.matches("svg.blocks")) tip.hidden = true;
    return;
  }
  const pointer = new DOMPoint(event.clientX, event.clientY);
  const at = pointer.matrixTransform(svg.getScreenCTM().inverse());
  showTip(svg, Math.floor(at.x), Math.floor(at.y / PITCH) - 1);
});
addEventListener("scroll", () => (tip.hidden = true), { passive: true, capture: true });

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const cursors = new WeakMap();

function moveCursor(svg, columns, rows) {
  const [column, row] = cursors.get(svg) ?? firstCell(svg);
  let next = [column + columns, row + rows];
  // Over the words for what is left out.
  const labels = svg.querySelectorAll(":scope > text");
  while (rows && !cellAt(svg, ...next) && labels[next[1]]) next[1] += rows;
  if (!cellAt(svg, ...next)) next = [column, row];
  cursors.set(svg, next);
  let cursor = svg.querySelector(".cursor");
  if (!cursor) {
    cursor = document.createElementNS(svg.namespaceURI, "rect");
    cursor.setAttribute("class", "cursor");
    cursor.setAttribute("width", 1);
    cursor.setAttribute("height", 1);
    svg.append(cursor);
  }
  cursor.setAttribute("x", next[0]);
  cursor.setAttribute("y", PITCH * (next[1] + 1));
  showTip(svg, ...next);
}

function firstCell(svg) {
  const box = svg.querySelector(".first")?.getBBox();
  if (box) return [box.x, box.y / PITCH - 1];
  const rows = [...svg.querySelectorAll(":scope > text")];
  return [0, rows.findIndex((label) => !label.classList.contains("gap"))];
}

document.addEventListener("focusin", (event) => {
  if (event.target.matches("svg.blocks:focus-visible")) moveCursor(event.target, 0, 0);
});
document.addEventListener("focusout", (event) => {
  event.target.querySelector?.(".cursor")?.remove();
  tip.hidden = true;
});
document.addEventListener("keydown", (event) => {
  const step = STEPS[event.key];
  if (!step || !event.target.matches("svg.blocks")) return;
  event.preventDefault();
  moveCursor(event.target, ...step);
});
