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
