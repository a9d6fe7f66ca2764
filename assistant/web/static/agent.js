// Small helps for the agents' pages; every page also works without them.
"use strict";

for (const one of document.querySelectorAll(".by-script")) one.hidden = false;

// "/" leads to the search field, as on many sites.
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const field = document.querySelector("[data-slash]");
  if (field) field.select();
  else location.assign("/agent");
});

// Of the sections only those of the chosen document can be chosen.
for (const sections of document.querySelectorAll("[data-follows]")) {
  const chosen = document.getElementById(sections.dataset.follows);
  const follow = () => {
    for (const group of sections.querySelectorAll("optgroup"))
      group.hidden = group.disabled = chosen.value !== "" && group.dataset.of !== chosen.value;
    if (sections.selectedOptions[0]?.parentElement.disabled) sections.value = "";
  };
  chosen.addEventListener("change", follow);
  follow();
}

// Who writes an answer of their own means it to be the answer.
for (const field of document.querySelectorAll("[data-chooses]"))
  field.addEventListener("input", () => {
    document.getElementById(field.dataset.chooses).checked = true;
  });

// Where the clipboard is closed to pages, the words to copy are shown, for office.js selects them.
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button || navigator.clipboard) return;
  document.getElementById(button.dataset.copy).closest("details").open = true;
});

// The queue is fetched again every few seconds while it is looked at.
const queue = () => document.getElementById("queue");
const told = document.getElementById("refreshed");
const numbers = (list) =>
  new Set([...list.querySelectorAll("[data-number]")].map((one) => one.dataset.number));
const tell = (state) => {
  if (told.dataset.state === state) return;
  told.dataset.state = state;
  told.textContent = told.dataset[state];
  told.className = state === "stale" || state === "out" ? "warning" : "quiet";
};

async function refresh() {
  if (document.hidden || told.dataset.state === "out") return;
  let answer, page;
  try {
    answer = await fetch(location.href, { signal: AbortSignal.timeout(8000) });
    page = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    return tell("stale");
  }
  if (answer.status === 401) return tell("out");
  const fresh = page.getElementById("queue");
  if (!answer.ok || !fresh) return tell("stale");
  const before = numbers(queue());
  const arrived = [...numbers(fresh)].some((number) => !before.has(number));
  tell(arrived ? "arrived" : "fine");
  if (queue().innerHTML === fresh.innerHTML || queue().querySelector(":active")) return;
  const focused = queue().contains(document.activeElement) && document.activeElement.id;
  document.title = page.title;
  queue().replaceWith(fresh);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

if (queue()) {
  setInterval(refresh, 1000 * queue().dataset.refresh);
  document.addEventListener("visibilitychange", refresh);
}
