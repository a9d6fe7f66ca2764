/* A round button on any page that opens the support assistant in a frame.

   <script src="https://help.example.com/widget.js" data-lang="zh" data-label="…" defer></script>

   Nothing is left behind: no global, no cookie; the frame is fetched when it is first opened. */
(() => {
  const script = document.currentScript;
  const home = new URL(script.src).origin;
  const spoken = script.dataset.lang || document.documentElement.lang || navigator.language || "en";
  const chinese = spoken.toLowerCase().startsWith("zh");
  const words = {
    label: script.dataset.label || (chinese ? "客服助手" : "Support assistant"),
    close: chinese ? "关闭" : "Close",
  };

  const style = new CSSStyleSheet(); /* the page's policy may forbid style elements */
  style.replaceSync(`
    :host { all: initial !important; color-scheme: light dark !important; }
    * { box-sizing: border-box; }
    [hidden] { display: none !important; }
    button { font: 600 1em/1 system-ui, sans-serif; cursor: pointer; border: 0; padding: 0;
      background: #0f766e; color: #fff; }
    button:focus-visible { outline: .2em solid #fff; outline-offset: -.35em;
      box-shadow: 0 0 0 .2em #0f766e; }
    .open { position: fixed; right: 1em; bottom: 1em; z-index: 2147483646; width: 3.5em;
      height: 3.5em; border-radius: 50%; box-shadow: 0 2px 10px rgb(0 0 0 / .35); }
    .open svg { width: 1.75em; height: 1.75em; display: block; margin: auto; }
    .panel { position: fixed; right: 1em; bottom: 5.25em; z-index: 2147483647;
      width: min(26em, calc(100vw - 2em)); height: min(42em, calc(100vh - 7em));
      display: flex; flex-direction: column; overflow: hidden; border-radius: .75em;
      border: 1px solid #64748b; background: #fff; box-shadow: 0 8px 30px rgb(0 0 0 / .35); }
    .head { display: flex; align-items: center; justify-content: space-between; flex: none;
      padding-left: 1em; background: #0f766e; color: #fff;
      font: 600 1em/1.3 system-ui, sans-serif; }
    .close { width: 2.75em; height: 2.75em; flex: none; }
    .close svg { width: 1.25em; height: 1.25em; display: block; margin: auto; }
    iframe { flex: 1; width: 100%; border: 0; min-height: 0; }
    @media (prefers-color-scheme: dark) { .panel { background: #0a0f1e; } }
    @media (max-width: 30em), (max-height: 30em) {
      .panel { inset: 0; width: auto; height: auto; border: 0; border-radius: 0; }
    }
    @media (forced-colors: active) { button, .panel { border: 1px solid; } }
    @media print { .open, .panel { display: none; } }
  `);

  const made = (name, attributes = {}) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const icon = (lines) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const drawn = { viewBox: "0 0 24 24", fill: "none", stroke: "currentColor", "stroke-width": 2 };
    for (const [key, value] of Object.entries(drawn)) svg.setAttribute(key, value);
    svg.setAttribute("aria-hidden", "true");
    path.setAttribute("d", lines);
    svg.append(path);
    return svg;
  };

  const host = made("div", { lang: chinese ? "zh-CN" : "en" });
  const root = host.attachShadow({ mode: "open" });
  root.adoptedStyleSheets = [style];
  const opener = made("button", {
    type: "button",
    class: "open",
    "aria-label": words.label,
    "aria-expanded": "false",
    "aria-controls": "panel",
    "aria-haspopup": "dialog",
    title: words.label,
  });
  opener.append(icon("M4 4h16v12h-8l-5 4v-4H4z"));
  const panel = made("div", {
    id: "panel",
    class: "panel",
    role: "dialog",
    "aria-label": words.label,
    hidden: "",
  });
  const head = made("div", { class: "head" });
  const title = made("span", { "aria-hidden": "true" });
  title.textContent = words.label;
  const closer = made("button", { type: "button", class: "close", "aria-label": words.close });
  closer.append(icon("M5 5l14 14M19 5L5 19"));
  head.append(title, closer);
  panel.append(head);
  root.append(opener, panel);

  let frame = null;
  const show = () => {
    if (!frame) {
      frame = made("iframe", {
        title: words.label,
        allow: "clipboard-write",
        referrerpolicy: "origin",
        src: `${home}/?embed=1&lang=${chinese ? "zh" : "en"}`,
      });
      panel.append(frame);
    }
    panel.hidden = false;
    opener.setAttribute("aria-expanded", "true");
    frame.focus();
  };
  const hide = () => {
    if (panel.hidden) return;
    panel.hidden = true;
    opener.setAttribute("aria-expanded", "false");
    opener.focus();
  };
  opener.addEventListener("click", () => (panel.hidden ? show() : hide()));
  closer.addEventListener("click", hide);
  root.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  /* Keys pressed in the frame are the frame's: it tells of Escape. */
  addEventListener("message", (event) => {
    const ours = frame && event.source === frame.contentWindow && event.origin === home;
    if (ours && event.data === "assistant:close") hide();
  });

  const place = () => document.body.append(host);
  if (document.body) place();
  else document.addEventListener("DOMContentLoaded", place);
})();
