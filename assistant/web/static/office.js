// Small helps for the pages behind the sign-in; every page also works without them.
"use strict";

// A button with data-copy="id" copies the text of that element.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  const source = button && document.getElementById(button.dataset.copy);
  if (!source) return;
  const words = "value" in source ? source.value : source.textContent;
  try {
    await navigator.clipboard.writeText(words);
  } catch {
    getSelection().selectAllChildren(source); // no https, no clipboard: ready for Ctrl+C
    return;
  }
  button.dataset.done = "";
  setTimeout(() => delete button.dataset.done, 2000);
});

// What is half written outlives a change of the language.
const written = () =>
  document.querySelectorAll("main form[method=post] :is(textarea, input[id]:not([type=password]))");
const place = (field) => `${field.form.getAttribute("action")} ${field.id}`;
document.querySelector("header a[hreflang]")?.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  const kept = [...written()].map((field) => [place(field), [field.value, field.checked]]);
  sessionStorage.setItem("half-written", JSON.stringify(kept));
});
const before = new Map(JSON.parse(sessionStorage.getItem("half-written")));
sessionStorage.removeItem("half-written");
for (const field of written())
  if (before.has(place(field))) [field.value, field.checked] = before.get(place(field));

// A form is sent once, however often its button is pressed.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent !== undefined) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "";
});
window.addEventListener("pageshow", () => {
  for (const form of document.forms) delete form.dataset.sent;
});
