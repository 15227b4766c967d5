// What the pages cannot do as plain HTML: choose a theme, copy, open a tensor in place, walk the heatmap by arrow keys.
"use strict";

const say = (words) => { document.getElementById("said").textContent = words; };

function offerThemes() {
  const button = document.getElementById("theme");
  const root = document.documentElement.dataset;
  const next = { auto: "light", light: "dark", dark: "auto" };
  const show = () => { button.textContent = `Theme: ${root.theme || "auto"}`; };
  button.addEventListener("click", () => {
    const theme = next[root.theme || "auto"];
    if (theme === "auto") { delete root.theme; } else { root.theme = theme; }
    try { theme === "auto" ? localStorage.removeItem("theme") : localStorage.setItem("theme", theme); } catch { /* for this page only */ }
    show();
  });
  button.hidden = false;
  show();
}

async function copy(button) {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    say("Copied");
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  } catch { // no clipboard without https: the text is marked instead
    getSelection().selectAllChildren(code);
    say("The text is marked: copy it with your keyboard");
  }
}

async function open(link) {
  const panel = document.getElementById("panel");
  await htmx.ajax("GET", link.getAttribute("href"), { target: "#panel", swap: "innerHTML" });
  panel.scrollIntoView({ block: "nearest" });
  panel.focus({ preventScroll: true });
}

// Who comes by a link from elsewhere comes without the cookie (SameSite=Strict), and is asked for a key in vain.
async function goOn(form) {
  const answer = await fetch("/sign-in/known", { headers: { Accept: "application/json" } });
  if (answer.ok && (await answer.json()).known) location.replace(form.elements.next.value);
}

// Of hundreds of cells only one is a stop of the Tab key; arrow keys move between them.
function gather(root) {
  for (const svg of root.querySelectorAll(".cells svg")) {
    svg.querySelectorAll("a.cell").forEach((cell, i) => cell.setAttribute("tabindex", i ? "-1" : "0"));
  }
}

function walk(event) {
  const cell = event.target.closest?.(".cells a.cell");
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!cell || !step) return;
  event.preventDefault();
  const middle = (one) => { const b = one.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; };
  const [x, y] = middle(cell);
  let best = null, least = Infinity;
  for (const one of cell.closest("svg").querySelectorAll("a.cell")) {
    const [dx, dy] = middle(one).map((at, i) => at - [x, y][i]);
    const along = dx * step[0] + dy * step[1], across = Math.abs(dx * step[1]) + Math.abs(dy * step[0]);
    if (along > 1 && along + 4 * across < least) { best = one; least = along + 4 * across; }
  }
  if (!best) return;
  cell.setAttribute("tabindex", "-1");
  best.setAttribute("tabindex", "0");
  best.focus();
}

function reveal(root) {
  root.querySelectorAll(".copier").forEach((button) => { button.hidden = false; });
  gather(root);
}

// A running job's page is renewed piece by piece: what the reader has opened or scrolled to stays so.
let kept = { open: [], top: 0 };

function keep() {
  const open = [...document.querySelectorAll("details[open][id]")].map((one) => one.id);
  kept = { open, top: document.getElementById("log")?.scrollTop || 0 };
}

function restore() {
  kept.open.forEach((id) => { const one = document.getElementById(id); if (one) one.open = true; });
  const log = document.getElementById("log");
  if (log) log.scrollTop = kept.top;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest(".copier");
  if (button) copy(button);
  const link = event.target.closest("a.cell");
  if (link && document.getElementById("panel") && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    open(link);
  }
});
document.addEventListener("keydown", walk);
document.addEventListener("htmx:beforeSwap", keep);
document.addEventListener("htmx:oobAfterSwap", restore);
document.addEventListener("htmx:afterSwap", (event) => reveal(event.target.parentElement || document));
document.addEventListener("DOMContentLoaded", () => {
  offerThemes();
  reveal(document);
  const form = document.getElementById("sign-in");
  if (form) goOn(form);
});
