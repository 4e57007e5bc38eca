// Puts a page away when the session that it was made for has ended elsewhere. Every page works without this.
"use strict";

{
  const FIRST_PAUSE_MS = 1_000;
  const LONGEST_PAUSE_MS = 300_000;
  // A login in another tab ends the session too, and gives this browser a new one. Its cookie gets this long to arrive.
  const COOKIE_MS = 300;

  const { username, expiresIn } = document.currentScript.dataset;
  const expiresAt = Date.now() + Number(expiresIn) * 1_000;
  let pauseMs = FIRST_PAUSE_MS;
  let socket = null;

  function listen() {
    const address = new URL("/devices/live", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(address);
    socket.onopen = () => { pauseMs = FIRST_PAUSE_MS; };
    socket.onmessage = (event) => {
      if (JSON.parse(event.data).type !== "session_ended") return;
      socket.onclose = null;
      setTimeout(look, COOKIE_MS);
    };
    socket.onclose = lookLater;
  }

  // The connection may be lost for many reasons, so the server is asked. It is given up when that leads nowhere for long;
  // the next click tells then.
  function lookLater() {
    if (pauseMs > LONGEST_PAUSE_MS) return;
    setTimeout(look, pauseMs);
    pauseMs *= 2;
  }

  async function look() {
    try {
      const answer = await fetch("/profile", { headers: { Accept: "application/json" }, cache: "no-store" });
      if (answer.status === 401) putAway();
      else if (!answer.ok) lookLater();
      else if ((await answer.json()).username === username) listen();
      else putAway();
    } catch {
      lookLater();
    }
  }

  function putAway() {
    const hadFocus = document.activeElement !== document.body;
    for (const element of document.querySelectorAll("header.site nav, header.site .who, aside")) element.remove();
    const main = document.querySelector("main");
    main.replaceChildren(banner());
    document.body.classList.add("put-away");
    document.title = "Signed out · Coatcheck demo";
    if (hadFocus) main.focus();
  }

  function banner() {
    const hasRunOut = Date.now() >= expiresAt;
    const text = make("div", "text");
    text.append(
      make("h1", "", hasRunOut ? "Your session has ended" : "You were signed out on another device"),
      make("p", "", hasRunOut
        ? "It was not used for too long. What this page showed has been put away."
        : "Or in another tab of this browser. What this page showed has been put away."),
    );
    const link = make("a", "button", "Log in again");
    link.href = "/login?next=" + encodeURIComponent(location.pathname);
    const alert = make("div", "signed-out");
    alert.setAttribute("role", "alert");
    alert.append(text, link);
    return alert;
  }

  function make(tag, className, text = "") {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    return element;
  }

  // A page that the back button brings to life again shows what was true when it was left.
  addEventListener("pagehide", (event) => {
    socket.onclose = null;
    socket.close();
    if (event.persisted) document.documentElement.hidden = true;
  });
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });

  listen();
}
