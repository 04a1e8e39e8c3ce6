// The frame around the rooms: the bar, the theme, who is signed in, and which room the address names.

import { firstLook, get, Refused } from "./api.js";
import { fill, h, say } from "./dom.js";
import { address, go, read, ROOMS } from "./place.js";

const TITLES = { look: "Look", review: "Review", compare: "Compare" };
const bar = document.getElementById("bar");
const main = document.getElementById("main");
let person = null;
let runs = [];
let leave = null; // what the shown room wants done when it is left
let turn = 0;

function theme() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  return dark ? "dark" : "light";
}

function drawBar(place) {
  const links = ROOMS.map((room) =>
    h("a", { href: address({ room, name: room === "compare" ? undefined : place.room === "compare" ? undefined : place.name }), "aria-current": room === place.room ? "page" : null }, TITLES[room]));
  const chooser = place.room === "compare" || !runs.length ? null : h("label", { class: "chooser" }, h("span", {}, "Run"),
    h("select", { on: { change: (event) => go({ room: place.room, name: event.target.value }) } },
      place.name ? null : h("option", { value: "" }, "choose …"),
      runs.map((name) => h("option", { value: name, selected: name === place.name }, name))));
  const other = theme() === "dark" ? "light" : "dark";
  fill(bar,
    h("a", { class: "mark", href: "/", "aria-label": "Rushes, all runs" }, h("img", { src: "/assets/icon.svg", alt: "", width: 22, height: 22 }), h("span", {}, "Rushes")),
    h("nav", { "aria-label": "Rooms" }, links), chooser, h("span", { class: "space" }),
    person && h("span", { class: "who", title: `role: ${person.role}` }, person.name),
    h("button", { class: "plain icon", "aria-label": `Use ${other} colours`, title: `Use ${other} colours`, on: { click: () => turnTheme(other) } }, other === "dark" ? "☾" : "☀"));
}

function turnTheme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
  drawBar(read());
  document.dispatchEvent(new CustomEvent("theme"));
}

function signIn() {
  const token = h("input", { type: "password", id: "token", autocomplete: "current-password", required: true, autofocus: true });
  const form = h("form", { class: "card narrow", on: { submit: async (event) => {
    event.preventDefault();
    const answer = await fetch("/api/v1/session", { method: "POST", headers: { authorization: `Bearer ${token.value}` } });
    if (answer.ok) start();
    else say("That token is not known here; whoever runs the service makes one with `rushes token`.", "error");
  } } },
    h("h1", {}, "Sign in"), h("label", { for: "token" }, "Token"), token, h("button", {}, "Sign in"),
    h("p", { class: "muted" }, "Whoever runs the service makes a token with ", h("code", {}, "rushes token"), "."));
  fill(main, form);
  token.focus();
}

export async function draw() {
  const place = read();
  const mine = ++turn;
  drawBar(place);
  document.title = [place.clip, place.name, TITLES[place.room], "Rushes"].filter(Boolean).join(" · ");
  await leave?.();
  leave = null;
  try {
    const room = await import(`./${place.room}.js`).catch(() => { throw new Error("A part of this page did not come; the service may be busy or away."); });
    if (mine !== turn) return;
    main.className = place.room;
    leave = (await room.show(main, place, { person, runs })) ?? null;
  } catch (error) {
    if (mine !== turn || error.name === "AbortError") return;
    if (error instanceof Refused && error.status === 401) return;
    fill(main, h("div", { class: "card narrow" }, h("h1", {}, "That did not work"), h("p", { role: "alert" }, error.message), h("p", { class: "line" }, h("button", { on: { click: () => location.reload() } }, "Try again"), h("a", { href: "/" }, "All runs"))));
  }
}

async function start() {
  const place = read();
  if (place.room === "look" && place.name && !place.clip && !place.tab) firstLook(place.name, place.fields.get("focus")).catch(() => {}); // a large run takes a moment to be read
  try {
    const found = await Promise.all([get("/me"), get("/runs")]);
    person = found[0];
    runs = found[1].runs;
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return signIn();
    fill(main, h("div", { class: "card narrow" }, h("h1", {}, "The service does not answer"), h("p", { role: "alert" }, error.message), h("p", {}, h("button", { on: { click: () => location.reload() } }, "Try again"))));
    return;
  }
  await draw();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='/']");
  if (!link || link.target || link.hasAttribute("download") || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go(link.getAttribute("href"));
});
document.addEventListener("signin", signIn);
document.addEventListener("place", async (event) => {
  await draw();
  if (!event.detail.replace) {
    scrollTo(0, 0);
    if (document.activeElement === document.body || !document.activeElement) main.focus({ preventScroll: true });
  }
});
addEventListener("popstate", draw);
start();
