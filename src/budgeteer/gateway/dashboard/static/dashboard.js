// Tells the server the browser's time zone, and refreshes the elements of a page that have the attribute data-live, in
// place. Without it, times are UTC and pages show their last load.
"use strict";
(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone, cookie = "budgeteer-zone=" + zone;
  const told = () => document.cookie.split("; ").includes(cookie);
  if (zone && !told()) {
    document.cookie = cookie + "; path=/; max-age=31536000; samesite=strict";
    const shown = document.documentElement.dataset.zone;  // the answer to a form is never the first page
    if (told() && shown && shown !== zone) return location.reload();
  }
  const EVERY = 2000, note = document.getElementById("fresh");
  const say = text => { if (note) note.textContent = text; };

  function renew(old, now) {
    if (old.innerHTML === now.innerHTML) return;
    const at = document.activeElement, within = old.contains(at);
    if (within && at.matches("input, select, textarea")) return;
    const chosen = getSelection();
    if (chosen && !chosen.isCollapsed && old.contains(chosen.anchorNode)) return;  // the user is selecting text
    const places = [...old.querySelectorAll(".scroll")].map(box => box.scrollLeft);
    const focus = within ? [...old.querySelectorAll("a, .scroll")].indexOf(at) : -1;
    old.replaceChildren(...now.childNodes);
    old.querySelectorAll(".scroll").forEach((box, n) => { box.scrollLeft = places[n] || 0; });
    if (focus >= 0) old.querySelectorAll("a, .scroll")[focus]?.focus({preventScroll: true});
  }

  async function refresh() {
    try {
      const answer = await fetch(location.href, {signal: AbortSignal.timeout(20000)});
      if (answer.redirected) return location.reload();  // the session has ended
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of document.querySelectorAll("[data-live]")) {
        const now = fresh.getElementById(old.id);
        if (now) renew(old, now);
      }
      say("As of " + new Date().toLocaleTimeString() + ". Times are in " + document.documentElement.dataset.zone + ".");
    } catch (error) {
      say("The gateway does not answer, so this page may be out of date.");
    }
  }

  // The answer to a form cannot be requested again, so only pages that were opened by an address refresh themselves.
  async function forever() {
    for (let took = 0; ;) {
      // A page that takes long to render is refreshed less often, to take a tenth of the gateway's time at most.
      await new Promise(done => setTimeout(done, Math.max(EVERY, 9 * took)));
      const begun = performance.now();
      if (!document.hidden) await refresh();
      took = performance.now() - begun;
    }
  }
  if (document.querySelector("[data-live]")) forever();

  for (const form of document.querySelectorAll("form[data-submit]"))
    for (const select of form.querySelectorAll("select")) select.addEventListener("change", () => {
      // a preset that is chosen takes the place of a free range; "free" waits for its two ends
      const ends = form.querySelectorAll("input[type=datetime-local]");
      if (select.name === "range" && !select.value) return ends[0].focus();
      if (select.name === "range") for (const end of ends) end.value = "";
      form.submit();
    });
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
    });
  }
})();
