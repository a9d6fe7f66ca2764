/* What the page does in the browser besides Gradio: language, states, copying, votes, tickets. */
(() => {
  for (const name of ["localStorage", "sessionStorage"]) {
    try {
      window[name].length;
    } catch {
      /* Nothing may be kept in another site's frame: keep it as long as the page lasts. */
      const kept = new Map();
      const value = {
        getItem: (key) => kept.get(key) ?? null,
        setItem: (key, words) => void kept.set(key, String(words)),
        removeItem: (key) => void kept.delete(key),
        clear: () => kept.clear(),
      };
      Object.defineProperty(window, name, { value });
    }
  }
  const root = document.documentElement;
  const query = new URLSearchParams(location.search);
  const asked = /^(zh|en)$/.exec(query.get("lang"));
  const chosen = (/(?:^|;\s*)lang=(zh|en)/.exec(document.cookie) || asked)?.[1];
  if (chosen) {
    /* Gradio's labels follow navigator.language: let it be what was chosen. */
    const tag = chosen === "zh" ? "zh-CN" : "en";
    Object.defineProperty(navigator, "language", { value: tag, configurable: true });
    Object.defineProperty(navigator, "languages", { value: [tag], configurable: true });
  }
  const language = (navigator.language || "en").toLowerCase().startsWith("zh") ? "zh-CN" : "en";
  if (query.has("embed")) root.dataset.embed = "";
  if (query.has("embed") && parent !== window)
    /* The widget around us cannot hear keys that are pressed in here. */
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") parent.postMessage("assistant:close", "*");
    });
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

  /* The conversation is written anew with each turn, and when the page is loaded: what was typed into
     its forms is put back. */
  const typed = new Map(JSON.parse(sessionStorage.getItem("typed") || "[]"));
  const keepTyped = () => {
    if (typed.size) sessionStorage.setItem("typed", JSON.stringify([...typed]));
    else sessionStorage.removeItem("typed");
  };
  const restoreTyped = () => {
    for (const [id, value] of typed) {
      const field = document.getElementById(id);
      if (!field || field.value || !value) continue;
      field.value = value;
      field.closest(".hand-in")?.setAttribute("open", "");
    }
  };
  const dropTyped = (fields) => {
    for (const field of fields) typed.delete(field.id);
    keepTyped();
  };
  document.addEventListener("input", (event) => {
    const field = event.target;
    const form = field.closest("form.ticket-form, form.why");
    if (!field.id || !form) return;
    typed.set(field.id, field.value);
    keepTyped();
    if (field.name === "reply_to") form.querySelector(".alone").hidden = true;
  });

  const say = (state) => {
    const answer = document.getElementById("answer");
    if (!answer || root.dataset.state === state) return;
    root.dataset.state = state;
    answer.setAttribute("aria-busy", String(state === "busy"));
  };
  const failed = () => document.querySelector("#answer .wrap .error, .toast-body.error");
  const busy = () => document.querySelector("#answer .wrap:not(.hide)");
  const showLast = () => {
    const last = [...document.querySelectorAll("#answer .answer")].pop();
    last?.scrollIntoView({ block: "start" });
    return last;
  };
  const announceLast = () => {
    const message = showLast()?.querySelector(".message").textContent;
    if (message) document.getElementById("announce").textContent = message;
  };
  let asking = false; /* the conversation of before is loaded as quietly as the page */
  let shown = false;
  const look = () => {
    keep();
    if (document.getElementById("ask")) document.getElementById("loading")?.remove();
    if (root.dataset.state === undefined) restoreQuestion();
    restoreTyped();
    if (!shown && document.querySelector("#answer .answer")) {
      shown = true;
      if (!asking) showLast();
    }
    if (failed()) {
      say("failed");
      keepQuestion();
      document.querySelectorAll(".toast-close").forEach((one) => one.click());
    } else if (busy()) {
      if (asking) say("busy");
    } else if (root.dataset.state === "busy") {
      say("done");
      asking = false;
      sessionStorage.removeItem("question");
      announceLast();
      if (!document.querySelector("#answer .answer")) {
        typed.clear();
        keepTyped();
      }
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
  const copy = (button) => {
    const draft = button.closest(".handoff").querySelector(".draft");
    select(draft); /* the clipboard is closed to pages on plain http from another machine */
    if (navigator.clipboard) {
      navigator.clipboard.writeText(draft.textContent).then(() => copied(button), () => {});
    } else if (document.execCommand("copy")) copied(button);
  };

  /* Votes and tickets go to the same routes that programs use. */
  const post = async (path, body) => {
    const answer = await fetch(`/api/v1/${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!answer.ok) {
      const { detail } = await answer.json().catch(() => ({}));
      throw Object.assign(new Error(detail), { status: answer.status });
    }
    return answer.status === 204 ? {} : answer.json();
  };
  const tell = (place, outcome) => {
    for (const one of place.querySelector(".told").children) one.hidden = one.className !== outcome;
  };
  const refused = (place, error) => {
    if (error.status === 404) return tell(place, "gone");
    if (error.status !== 413 && error.status !== 422) return tell(place, "undone");
    const [chinese, english = chinese] = error.message.split(" / "); /* as wording.half does */
    const words = place.closest(".turn").lang === "en" ? english : chinese;
    place.querySelector(".wrong").textContent = words;
    tell(place, "wrong");
  };
  const place = (node) => {
    const { turn, conversation } = node.closest(".turn").dataset;
    return { turn, conversation };
  };
  const vote = async (button) => {
    const group = button.closest(".vote");
    const value = Number(button.dataset.value);
    try {
      await post("feedback", { ...place(group), value });
    } catch (error) {
      return refused(group, error);
    }
    for (const one of group.querySelectorAll(".thumb"))
      one.setAttribute("aria-pressed", String(one === button));
    tell(group, "done");
    const why = group.parentElement.querySelector("form.why");
    why.hidden = value > 0;
    if (why.hidden) return;
    why.querySelector("input").focus();
    why.scrollIntoView({ block: "nearest" });
  };
  const explain = async (form) => {
    const values = new FormData(form);
    const reason = values.get("reason") || "other";
    try {
      await post("feedback", { ...place(form), value: -1, reason, note: values.get("note") });
    } catch (error) {
      return refused(form, error);
    }
    dropTyped(form.elements);
    const group = form.parentElement.querySelector(".vote");
    form.hidden = true;
    tell(group, "done");
    group.querySelector(".thumb[aria-pressed=true]").focus();
  };
  const open = async (form) => {
    const values = Object.fromEntries(new FormData(form));
    const { reply_to, ...filled } = values;
    const alone = form.querySelector(".alone");
    if (!reply_to.trim() && alone.hidden) {
      alone.hidden = false;
      return form.elements.reply_to.focus();
    }
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      const ticket = await post("tickets", { ...place(form), filled, reply_to });
      dropTyped(form.elements);
      const line = form.querySelector("template").content.cloneNode(true).firstElementChild;
      line.querySelector("strong").textContent = ticket.number;
      line.dataset.ticket = ticket.number;
      form.closest(".hand-in").replaceWith(line);
      line.tabIndex = -1;
      line.focus();
    } catch (error) {
      button.disabled = false;
      refused(form, error);
    }
  };

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("form.why, form.ticket-form")) return;
    event.preventDefault();
    if (form.matches(".why")) explain(form);
    else open(form);
  });
  document.addEventListener(
    "click",
    (event) => {
      const button = event.target.closest && event.target.closest("button");
      if (!button) return;
      if (button.matches(".copy")) copy(button);
      else if (button.matches(".act") && event.detail > 1) event.preventDefault(); /* one press */
      else if (button.matches(".thumb")) vote(button);
      else if (button.matches(".language")) {
        document.cookie = `lang=${button.dataset.lang};path=/;max-age=31536000;samesite=strict`;
        keepQuestion();
        if (asked) {
          query.set("lang", button.dataset.lang); /* in another site's frame no cookie is kept */
          location.search = query;
        } else location.reload();
      } else if (button.matches("#ask, #person, #clear, .example")) {
        const words = document.querySelector(`#clear-ticket [lang="${language}"]`);
        const withdraws = button.id === "clear" && document.querySelector("[data-ticket]");
        if (withdraws && !confirm(words.textContent)) event.stopImmediatePropagation();
        else asking = true;
      }
    },
    true,
  );
  document.addEventListener(
    "keydown",
    (event) => {
      if (event.key === "Enter" && event.target.closest("#question")) asking = true;
    },
    true,
  );
})();
