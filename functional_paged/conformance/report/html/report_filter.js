"use strict";
// The filter. Its state is the address's fragment, so that a filtered page can be linked to.

const form = document.getElementById("filter");
const groups = [...document.querySelectorAll(".group")];
const openAtFirst = new Map(groups.map((group) => [group, group.open]));
const fields = ["clause", "backend", "status", "id"];

function showMatches() {
  const wanted = {};
  for (const name of fields) wanted[name] = form.elements[name].value.trim();
  const filtered = fields.some((name) => wanted[name]);
  let shown = 0;
  let all = 0;
  for (const group of groups) {
    let inGroup = 0;
    for (const item of group.querySelectorAll(".case")) {
      all += 1;
      inGroup += showCase(item, wanted);
    }
    group.hidden = inGroup === 0;
    group.open = filtered || openAtFirst.get(group);
    group.querySelector(".count").textContent = counted(inGroup);
    shown += inGroup;
  }
  const output = document.querySelector("#cases output");
  output.textContent = filtered ? `${shown} of ${counted(all)}` : counted(all);
}

function showCase(item, wanted) {
  const fits =
    (!wanted.clause || item.dataset.clauses.split(" ").includes(wanted.clause)) &&
    item.querySelector("code").textContent.includes(wanted.id);
  let any = false;
  for (const result of item.querySelectorAll(".result")) {
    const matches =
      fits &&
      (!wanted.backend || result.dataset.backend === wanted.backend) &&
      (!wanted.status || result.classList.contains(wanted.status));
    result.hidden = !matches;
    any ||= matches;
  }
  item.hidden = !any;
  return any ? 1 : 0;
}

function counted(number) {
  return `${number.toLocaleString("en")} case${number === 1 ? "" : "s"}`;
}

function readAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const name of fields) {
    const field = form.elements[name];
    field.value = wanted.get(name) ?? "";
    if (field.selectedIndex === -1) field.selectedIndex = 0; // no such option
  }
  showMatches();
  if (location.hash) document.querySelector(".case:not([hidden])")?.setAttribute("open", "");
}

function writeAddress() {
  const parts = fields
    .filter((name) => form.elements[name].value)
    .map((name) => `${name}=${encodeURIComponent(form.elements[name].value)}`);
  history.replaceState(null, "", `#${parts.join("&")}`);
  showMatches();
}

form.hidden = false;
form.addEventListener("input", writeAddress);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(writeAddress)); // once the fields are empty
addEventListener("hashchange", readAddress);
document.addEventListener("click", (event) => {
  if (!event.target.closest("a.n")) return;
  // Also where the address is this one already, so that nothing else would happen.
  setTimeout(() => document.querySelector("#cases h2").focus());
});
readAddress();

const toggle = document.getElementById("toggle");
toggle.addEventListener("click", () => {
  const open = toggle.textContent === "Open all";
  for (const group of groups) {
    if (!group.open || group.hidden) continue;
    for (const item of group.querySelectorAll(".case:not([hidden])")) item.open = open;
  }
  toggle.textContent = open ? "Close all" : "Open all";
});
