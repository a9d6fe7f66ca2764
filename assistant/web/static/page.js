/* What the page does in the browser besides Gradio: language, busy and failed states, copying. */
(() => {
  const root = document.documentElement;
  const language = (navigator.language || "en").toLowerCase().startsWith("zh") ? "zh-CN" : "en";
  const title = document.title;
  const keep = () => {
    if (root.lang !== language) root.lang = language;
    if (document.title !== title) document.title = title;
  };
  new MutationObserver(keep).observe(root, { attributeFilter: ["lang"] });
  keep();

  /* Gradio loads the page anew after a lost connection: the question must not be lost with it. */
  const keepQuestion = () => {
    const field = document.querySelector("#question textarea");
    if (field && field.value) sessionStorage.setItem("question", field.value);
  };
  const restoreQuestion = () => {
    const field = document.querySelector("#question textarea");
    const kept = sessionStorage.getItem("question");
    if (!field || kept === null) return;
    sessionStorage.removeItem("question");
    field.value = kept;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };

  const say = (state) => {
    const answer = document.getElementById("answer");
    if (!answer || root.dataset.state === state) return;
    root.dataset.state = state;
    answer.setAttribute("aria-busy", String(state === "busy"));
  };
  const failed = () => document.querySelector("#answer .wrap .error, .toast-body.error");
  const busy = () => document.querySelector("#answer .wrap:not(.hide)");
  const look = () => {
    keep();
    if (document.getElementById("ask")) document.getElementById("loading")?.remove();
    const answer = document.getElementById("answer");
    if (answer && !answer.hasAttribute("aria-live")) answer.setAttribute("aria-live", "polite");
    if (root.dataset.state === undefined) restoreQuestion();
    if (failed()) {
      say("failed");
      keepQuestion();
      document.querySelectorAll(".toast-close").forEach((one) => one.click());
    } else if (busy()) {
      say("busy");
    } else if (root.dataset.state === "busy") {
      say("done");
      sessionStorage.removeItem("question");
      if (answer.getBoundingClientRect().top > innerHeight * 0.5 || answer.getBoundingClientRect().top < 0)
        answer.scrollIntoView({ block: "start" });
    }
  };
  new MutationObserver(look).observe(root, {
    attributeFilter: ["class"],
    childList: true,
    subtree: true,
  });

  const copied = (button) => {
    button.dataset.done = "";
    setTimeout(() => delete button.dataset.done, 3000);
  };
  const select = (node) => {
    const range = document.createRange();
    range.selectNodeContents(node);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("button.copy");
    if (!button) return;
    const draft = document.getElementById("draft");
    select(draft); /* the clipboard is closed to pages on plain http from another machine */
    if (navigator.clipboard) {
      navigator.clipboard.writeText(draft.textContent).then(() => copied(button), () => {});
    } else if (document.execCommand("copy")) copied(button);
  });
})();
