// Loads the page again every few seconds while somebody can see it and nobody
// is busy in it: with a text selected, a record open or the keyboard in use.
// Without scripts the page is all there, it only stays as it was loaded.
"use strict";
(() => {
  const place = document.getElementById("refresh");
  if (!place) return;
  const seconds = Number(place.dataset.seconds);
  const key = "cordon-refresh-paused";
  const paused = () => sessionStorage.getItem(key) === "yes";

  const button = document.createElement("button");
  button.type = "button";
  const show = () => {
    button.textContent = paused() ? "Refresh by itself" : "Pause refreshing";
  };
  button.addEventListener("click", () => {
    sessionStorage.setItem(key, paused() ? "no" : "yes");
    button.blur();
    show();
  });
  show();
  place.append(`It refreshes every ${seconds} seconds. `, button);

  const busy = () =>
    document.hidden ||
    !getSelection().isCollapsed ||
    document.querySelector("details[open]") !== null ||
    (document.activeElement !== document.body && document.activeElement !== null && document.activeElement.id !== "main");

  setInterval(() => {
    if (paused() || busy()) return;
    // Tells the server that no person asked, so that an idle session ends.
    document.cookie = "__Host-cordon-refresh=1; Path=/; Secure; SameSite=Strict; Max-Age=5";
    location.reload();
  }, seconds * 1000);
})();
