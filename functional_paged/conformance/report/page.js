"use strict";
// The filter. Its state is the address's fragment, so that a filtered page can be linked to.
const form = document.getElementById("filter");
const fields = ["clause", "backend", "status", "id"].map((name) => form.elements[name]);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const counted = (number) => `${number.toLocaleString("en")} case${number === 1 ? "" : "s"}`;

function showMatches() {
  const [clause, backend, status, id] = fields.map((field) => field.value.trim());
  const filtered = Boolean(clause || backend || status || id);
  for (const item of all(".case")) {
    const fits = item.querySelector("code").textContent.includes(id);
    for (const result of all(".result", item)) {
      const charged = !clause || result.dataset.row === clause;
      const wanted = !backend || result.firstChild.firstChild.data === `${backend} `;
      result.hidden = !(fits && charged && wanted && (!status || result.classList.contains(status)));
    }
    item.hidden = !item.querySelector(".result:not([hidden])");
  }
  for (const group of all(".group")) {
    const count = all(".case:not([hidden])", group).length;
    group.hidden = count === 0;
    group.open = filtered || group.querySelector("h3.fail") !== null;
    group.querySelector(".count").textContent = counted(count);
  }
  const shown = all(".case:not([hidden])").length;
  const text = counted(all(".case").length);
  document.querySelector("output").textContent = filtered ? `${shown} of ${text}` : text;
}

function readAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const field of fields) {
    field.value = wanted.get(field.name) ?? "";
    if (field.selectedIndex === -1) field.selectedIndex = 0; // no such option
  }
  showMatches();
  if (location.hash) document.querySelector(".case:not([hidden])")?.setAttribute("open", "");
}

function writeAddress() {
  const set = fields.filter((field) => field.value);
  const parts = set.map((field) => `${field.name}=${encodeURIComponent(field.value)}`);
  history.replaceState(null, "", `#${parts.join("&")}`);
  showMatches();
}

form.hidden = false;
form.addEventListener("input", writeAddress);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => history.replaceState(null, "", "#"));
form.addEventListener("reset", readAddress);
addEventListener("hashchange", readAddress);
document.addEventListener("click", ({ target }) => {
  // Also where the address is this one already, so that nothing else would happen.
  if (target.closest("a.n")) setTimeout(() => document.querySelector("#cases h2").focus());
  if (target.id !== "toggle") return;
  const open = target.textContent === "Open all";
  for (const item of all(".group[open] > .case:not([hidden])")) item.open = open;
  target.textContent = open ? "Close all" : "Open all";
});
readAddress();
// Arrow keys move a cursor over the cells of a drawing and show the titles that a pointer gets.
const tip = document.getElementById("tip");
const y = (rect) => rect.y.baseVal.value;
const STEPS = {
  ArrowRight: (rects, at) => rects[rects.indexOf(at) + 1],
  ArrowLeft: (rects, at) => rects[rects.indexOf(at) - 1],
  ArrowDown: (rects, at) => rects.find((rect) => y(rect) > y(at)),
  ArrowUp: (rects, at) => rects.findLast((rect) => y(rect) < y(at)),
};

function moveCursor(svg, step) {
  const rects = all("rect", svg);
  const at = svg.querySelector(".cursor") ?? svg.querySelector(".first") ?? rects[0];
  const next = step?.(rects, at) ?? at;
  at.classList.remove("cursor");
  next.classList.add("cursor");
  const box = next.getBoundingClientRect();
  tip.textContent = next.textContent;
  tip.hidden = false;
  tip.style.left = `${Math.max(4, Math.min(box.x, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${box.bottom + 6}px`;
}

addEventListener("focusin", ({ target: svg }) => svg.matches(".blocks:focus-visible") && moveCursor(svg));
addEventListener("focusout", () => {
  document.querySelector(".cursor")?.classList.remove("cursor");
  tip.hidden = true;
});
addEventListener("keydown", (event) => {
  if (!STEPS[event.key] || !event.target.matches(".blocks")) return;
  event.preventDefault();
  moveCursor(event.target, STEPS[event.key]);
});
