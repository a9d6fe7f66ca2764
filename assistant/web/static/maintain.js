// Follow a run in the background; without script the page asks again by itself.
"use strict";

const run = document.getElementById("run");

// Put the parts of a page that differ in their place; a status keeps its element, so that it is
// read out when its words change.
function show(words) {
  const fresh = new DOMParser().parseFromString(words, "text/html");
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const shown = document.getElementById(part.id);
    if (!shown || shown.outerHTML === part.outerHTML) continue;
    const [told, tells] = [shown.querySelector("[role=status]"), part.querySelector("[role=status]")];
    if (told && tells) told.textContent = tells.textContent;
    else shown.replaceWith(part);
  }
  const state = fresh.getElementById("run");
  if (state) run.toggleAttribute("data-running", state.hasAttribute("data-running"));
}

async function ask() {
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.redirected) location.reload(); // signed out
    else if (answer.ok) show(await answer.text());
  } catch {
    // the server is not there just now: ask again
  }
  if (run.hasAttribute("data-running")) setTimeout(ask, 2000);
}

if (run && run.hasAttribute("data-running")) {
  const events = new EventSource(run.dataset.events);
  events.addEventListener("run", (event) => show(event.data));
  events.addEventListener("end", () => {
    events.close();
    ask();
  });
  events.onerror = () => {
    if (events.readyState === EventSource.CLOSED) setTimeout(ask, 2000);
  };
}
