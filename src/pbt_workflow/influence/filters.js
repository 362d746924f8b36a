"use strict";
const selects = ["environment", "iteration", "side"].map(name => document.getElementById(name));
function filter() {
  let count = 0;
  for (const talk of document.querySelectorAll(".talk")) {
    const shown = selects.every(s => s.value === (s.id === "side" ? "any" : "") || talk.dataset[s.id] === s.value);
    talk.hidden = !shown;
    count += shown;
  }
  document.getElementById("count").textContent = count + " shown";
}
for (const select of selects) select.addEventListener("change", filter);
filter();
