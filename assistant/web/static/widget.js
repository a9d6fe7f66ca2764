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
    :host { all: initial; color-scheme: light dark; }
    * { box-sizing: border-box; }
    [hidden] { display: none !important; }
    button { font: 600 1rem/1 system-ui, sans-serif; cursor: pointer; border: 0; padding: 0;
      background: #0f766e; color: #fff; }
    button:focus-visible { outline: 3px solid #fff; outline-offset: -5px;
      box-shadow: 0 0 0 3px #0f766e; }
    .open { position: fixed; right: 1rem; bottom: 1rem; z-index: 2147483646; width: 3.5rem;
      height: 3.5rem; border-radius: 50%; box-shadow: 0 2px 10px rgb(0 0 0 / .35); }
    .open svg { width: 1.75rem; height: 1.75rem; display: block; margin: auto; }
    .panel { position: fixed; right: 1rem; bottom: 5.25rem; z-index: 2147483647;
      width: min(26rem, calc(100vw - 2rem)); height: min(42rem, calc(100vh - 7rem));
      display: flex; flex-direction: column; overflow: hidden; border-radius: .75rem;
      border: 1px solid #64748b; background: #fff; box-shadow: 0 8px 30px rgb(0 0 0 / .35); }
    .head { display: flex; align-items: center; justify-content: space-between; flex: none;
      padding-left: 1rem; background: #0f766e; color: #fff; font: 600 1rem/1.3 system-ui, sans-serif; }
    .head button { width: 2.75rem; height: 2.75rem; font-size: 1.5rem; flex: none; }
    iframe { flex: 1; width: 100%; border: 0; min-height: 0; }
    @media (prefers-color-scheme: dark) { .panel { background: #0a0f1e; } }
    @media (max-width: 30rem), (max-height: 30rem) {
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
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({
    viewBox: "0 0 24 24",
    fill: "none",
    stroke: "currentColor",
    "stroke-width": "2",
    "stroke-linejoin": "round",
    "aria-hidden": "true",
  }))
    icon.setAttribute(key, value);
  const bubble = document.createElementNS("http://www.w3.org/2000/svg", "path");
  bubble.setAttribute("d", "M4 4h16v12h-8l-5 4v-4H4z");
  icon.append(bubble);

  const host = made("div", { lang: chinese ? "zh-CN" : "en" });
  const root = host.attachShadow({ mode: "closed" });
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
  opener.append(icon);
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
  const closer = made("button", { type: "button", "aria-label": words.close });
  closer.textContent = "×";
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
