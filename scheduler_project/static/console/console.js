// Ticks for what is live, the badge that says how old the page is, keys, and buttons that copy.
// Nothing here is needed to use the console: without it the page shows what it showed when it was loaded.
(function () {
  "use strict";
  const BUSY_SECONDS = 3, IDLE_SECONDS = 8, STALE_SECONDS = 11.5, GIVEN_UP_SECONDS = 10;
  // Looked at every half second: shown before twelve are over.
  const badge = document.getElementById("badge");
  const now = () => performance.now() / 1000;
  let asked = now(), answered = now(), waiting = 0;

  const live = () => Array.from(document.querySelectorAll("[data-live]"));
  function selecting() {
    const selection = document.getSelection();
    const open = document.querySelector("main details[open], dialog[open]");
    return Boolean(open) || (selection && !selection.isCollapsed && document.getElementById("main").contains(selection.anchorNode));
  }
  function say(state, text) {
    badge.className = "badge" + (state ? " " + state : "");
    if (badge.textContent !== text) badge.textContent = text;
  }
  function show(paused) {
    const age = now() - answered;
    // What is being read stands still on purpose; it is out of date only when nobody answers.
    if (paused) say("paused", badge.dataset.pausedText);
    else if (age >= STALE_SECONDS) say("stale", badge.dataset.staleText);
    else say("", badge.dataset.liveText + ", " + Math.floor(age) + " " + badge.dataset.seconds);
    document.documentElement.classList.toggle("is-stale", !paused && age >= STALE_SECONDS);
  }
  function tick() {
    const parts = live();
    badge.hidden = !parts.length;
    if (!parts.length || document.hidden) return;
    const paused = selecting();
    const every = parts.some((part) => part.dataset.live === "busy") ? BUSY_SECONDS : IDLE_SECONDS;
    // An answer to an element that is gone by then may never be heard of; htmx itself gives up before this.
    if (now() - asked > GIVEN_UP_SECONDS) waiting = 0;
    if (!paused && waiting <= 0 && now() - asked >= every) {
      asked = now();
      parts.forEach((part) => window.htmx.trigger(part, "signalbox:tick"));
    }
    show(paused);
  }
  if (badge && window.htmx) {
    badge.setAttribute("aria-live", "off");
    document.body.addEventListener("htmx:beforeRequest", () => { waiting += 1; });
    // An answer that was on its way when the reader began to select: it is asked for again afterwards.
    document.body.addEventListener("htmx:beforeSwap", (event) => { if (event.target.dataset.live && selecting()) event.detail.shouldSwap = false; });
    document.body.addEventListener("htmx:afterRequest", (event) => {
      waiting -= 1;
      if (event.detail.successful) answered = now();
      show(false);
    });
    // Time that passed while nobody looked is not silence of the server: ask at once and count from here.
    document.addEventListener("visibilitychange", () => { if (!document.hidden) { asked = -1e9; answered = now(); waiting = 0; tick(); } });
    setInterval(tick, 500);
    tick();
  }

  const rows = () => Array.from(document.querySelectorAll("a.row"));
  function step(by) {
    const all = rows();
    if (!all.length) return;
    const at = all.indexOf(document.activeElement);
    all[Math.max(0, Math.min(all.length - 1, at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by))].focus();
  }
  let going = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
    if (event.key === "Escape") {
      document.querySelectorAll("details.menu[open]").forEach((menu) => { menu.open = false; });
      if (typing) event.target.blur();
      return;
    }
    if (typing) return;
    if (going && now() - going < 1.5) {
      going = 0;
      const section = document.querySelector('[data-go="' + CSS.escape(event.key) + '"]');
      if (section) section.click();
      return;
    }
    if (event.key === "g") going = now();
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "/") {
      const search = document.getElementById("q");
      if (search) { event.preventDefault(); search.focus(); search.select(); }
    } else {
      const target = document.querySelector('[data-key="' + CSS.escape(event.key) + '"]');
      if (target) { event.preventDefault(); target.click(); }
    }
  });
  document.addEventListener("click", (event) => {
    document.querySelectorAll("details.menu[open]").forEach((menu) => { if (!menu.contains(event.target)) menu.open = false; });
    const button = event.target.closest("[data-copy]");
    if (button && navigator.clipboard) navigator.clipboard.writeText(button.dataset.copy).then(() => { button.classList.add("copied"); });
  });
  // Where the clipboard is not offered (plain HTTP from another host) the text is there to be selected.
  function reveal(root) { if (navigator.clipboard) root.querySelectorAll("[data-copy]").forEach((button) => { button.hidden = false; }); }
  reveal(document);
  document.body.addEventListener("htmx:load", (event) => reveal(event.detail.elt));
})();
