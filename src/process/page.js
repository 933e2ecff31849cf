"use strict";
// Reads the page again every ten seconds and replaces its content. Everything also works without this script.
(() => {
  const pause = document.getElementById("pause");
  const failed = document.getElementById("failed");
  let paused = false;
  let busy = false;
  async function refresh() {
    if (paused || busy || document.hidden) return;
    busy = true;
    try {
      const response = await fetch("/", { cache: "no-store", redirect: "error", signal: AbortSignal.timeout(8000) });
      if (!response.ok) throw new Error("status " + response.status);
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const fresh = page.querySelector("main");
      const shown = document.querySelector("main");
      if (!fresh) throw new Error("no content");
      for (const details of shown.querySelectorAll("details[open][id]")) {
        const same = fresh.querySelector("#" + CSS.escape(details.id));
        if (same) same.open = true;
      }
      const focused = shown.contains(document.activeElement) ? document.activeElement.id : "";
      const places = new Map();
      for (const box of shown.querySelectorAll(".scroll[id]")) places.set(box.id, box.scrollLeft);
      shown.replaceWith(document.adoptNode(fresh));
      for (const [id, left] of places) {
        const box = document.getElementById(id);
        if (box) box.scrollLeft = left;
      }
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
      document.title = page.title;
      failed.hidden = true;
    } catch {
      failed.hidden = false;
    } finally {
      busy = false;
    }
  }
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume" : "Pause";
    refresh();
  });
  document.addEventListener("visibilitychange", refresh);
  setInterval(refresh, 10000);
})();
