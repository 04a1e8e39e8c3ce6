// Compare: two models' samples side by side, blind; one question at a time, one key an answer.

import { get, part, post, query } from "./api.js";
import { fill, h, say } from "./dom.js";
import { count, number, share } from "./format.js";
import { newId, Outbox } from "./outbox.js";
import { address, go } from "./place.js";

const AHEAD = 2;
const ASKED = { quality: "Which looks better?", motion: "Which moves better?", alignment: "Which fits the text better?", realism: "Which looks more real?" };

export async function show(main, place, session) {
  if (!place.name) return list(main, session);
  if (place.tab === "results") return results(main, place);
  const room = new Compare(main, place, session);
  await room.start();
  return () => room.stop();
}

const tabs = (name, tab) => h("nav", { class: "tabs", "aria-label": "Views of the comparison" }, h("a", { href: address({ room: "compare", name }), "aria-current": tab ? null : "page" }, "Vote"), h("a", { href: address({ room: "compare", name, tab: "results" }), "aria-current": tab ? "page" : null }, "Results"));

async function list(main, { person }) {
  const { comparisons } = await get("/compare");
  fill(main, h("h1", {}, "Comparisons"), comparisons.length ? h("ul", { class: "runs" }, comparisons.map((one) => h("li", {}, h("a", { class: "card", href: address({ room: "compare", name: one.name }) }, h("b", {}, one.name),
    h("span", { class: "muted small" }, `${count(one.pairs)} pairs · ${one.questions.join(", ")} · ${count(one.votes)} of ${count(one.wanted)} votes, ${count(one.mine)} yours`))))) : h("p", {}, "There is none yet."),
    person.role === "engineer" ? make() : null);
}

function make() {
  const fields = { name: "Name", a: "First model", a_folder: "Its folder of videos", b: "Second model", b_folder: "Its folder of videos" };
  const inputs = Object.fromEntries(Object.keys(fields).map((name) => [name, h("input", { id: `make-${name}`, required: true, autocomplete: "off" })]));
  return h("form", { class: "card make", on: { submit: async (event) => {
    event.preventDefault();
    const value = (name) => inputs[name].value.trim();
    try {
      await post("/compare", { name: value("name"), a: { model: value("a"), folder: value("a_folder") }, b: { model: value("b"), folder: value("b_folder") } });
      go({ room: "compare", name: value("name") });
    } catch (error) { say(error.message, "error"); }
  } } }, h("h2", {}, "A new one"), Object.entries(fields).map(([name, label]) => h("div", { class: "field" }, h("label", { for: `make-${name}` }, label), inputs[name])), h("button", {}, "Begin"));
}

class Compare {
  constructor(main, place, session) {
    Object.assign(this, { main, name: place.name, session, pairs: [], videos: new Map(), pair: null });
    this.path = `/compare/${part(place.name)}`;
  }

  async start() {
    this.view = await get(this.path);
    this.question = h("h2", { class: "question", "aria-live": "polite" });
    this.prompt = h("p", { class: "prompt" });
    this.sides = { left: h("div", { class: "pane" }), right: h("div", { class: "pane" }) };
    this.left = h("span", { class: "muted" });
    const button = (choice, key, text) => h("button", { on: { click: () => this.vote(choice) } }, h("kbd", { "aria-hidden": "true" }, key), text);
    fill(this.main, h("h1", {}, this.name), tabs(this.name, null), h("section", { class: "card", "aria-label": "Pair" }, h("div", { class: "line" }, this.question, h("span", { class: "space" }), this.left), this.prompt,
      h("div", { class: "panes" }, this.sides.left, this.sides.right),
      h("div", { class: "verdicts three" }, button("left", "←", "Left"), button("tie", "↓", "No difference"), button("right", "→", "Right"), h("button", { class: "plain", on: { click: () => this.undo() } }, h("kbd", { "aria-hidden": "true" }, "u"), "Undo"), h("button", { class: "plain", on: { click: () => this.again() } }, h("kbd", { "aria-hidden": "true" }, "Space"), "Again"))));
    this.outbox = new Outbox(`compare/${this.name}/${this.session.person.name}`, { sent: (answer) => this.take(answer.pairs, answer.left), refused: (error) => { say(error.message, "error"); this.more(); }, changed: (error) => error && say(`${error.message} ${this.outbox.length} waiting to be sent.`, "error") });
    this.outbox.send();
    this.keys = (event) => this.key(event);
    document.addEventListener("keydown", this.keys);
    if (this.session.person.role === "viewer") return this.empty("Viewers may look at the results; voting needs the role reviewer.");
    await this.more();
  }

  stop() {
    document.removeEventListener("keydown", this.keys);
    this.outbox?.stop();
  }

  async more() {
    const found = await post(`${this.path}/next`, { count: AHEAD });
    this.take(found.pairs, found.left);
  }

  take(pairs, left) {
    const waiting = new Set((this.outbox?.entries ?? []).map((entry) => `${entry.body.pair}/${entry.body.question}`));
    this.pairs = pairs.filter((pair) => !waiting.has(`${pair.pair}/${pair.question}`));
    this.left.textContent = `${count(left)} left`;
    const near = new Set([this.pair, ...this.pairs].filter(Boolean).flatMap((pair) => [pair.left, pair.right]));
    for (const src of near) this.video(src);
    for (const [src, video] of this.videos) if (!near.has(src)) { video.removeAttribute("src"); this.videos.delete(src); }
    const same = this.pair && this.pairs.some((pair) => pair.pair === this.pair.pair && pair.question === this.pair.question);
    if (!same) this.next();
  }

  video(src) {
    if (!this.videos.has(src)) {
      this.videos.set(src, h("video", { src, muted: true, loop: true, playsinline: true, preload: "auto", on: { error: (event) => event.target.hasAttribute("src") && this.unseen(event.target, src) } }));
    }
    return this.videos.get(src);
  }

  /** A video that does not come: why, in its place. */
  async unseen(video, src) {
    const answer = await fetch(src, { headers: { range: "bytes=0-0" } }).catch(() => null);
    const body = answer?.ok ? {} : await answer?.json().catch(() => ({}));
    const told = h("p", { class: "pane-word", role: "alert" }, body?.detail ?? "This video cannot be played here.");
    this.videos.set(src, told);
    if (video.isConnected) video.replaceWith(told);
  }

  next() {
    this.pair = this.pairs[0] ?? null;
    if (!this.pair) return this.empty(this.outbox.length ? "Waiting for the service …" : "Nothing is left for you. Thank you.");
    this.question.textContent = ASKED[this.pair.question] ?? `Which is better in ${this.pair.question}?`;
    this.prompt.textContent = this.pair.prompt ?? "";
    for (const side of ["left", "right"]) {
      const video = this.video(this.pair[side]);
      video.setAttribute("aria-label", `${side} sample`);
      if (video.parentNode !== this.sides[side]) fill(this.sides[side], video);
    }
    this.again();
  }

  empty(sentence) {
    this.pair = null;
    this.question.textContent = sentence;
    this.prompt.textContent = "";
    for (const pane of Object.values(this.sides)) fill(pane);
  }

  /** Both from the beginning, together. */
  again() {
    if (!this.pair) return;
    for (const side of ["left", "right"]) { const video = this.video(this.pair[side]); if (video.play) { video.currentTime = 0; video.play().catch(() => {}); } }
  }

  vote(choice) {
    if (!this.pair) return;
    const { pair, question } = this.pair;
    this.pairs.shift();
    this.outbox.entries.push({ path: `${this.path}/votes`, body: { id: newId(), pair, question, choice, next: AHEAD } });
    this.outbox.keep();
    this.next();
    this.outbox.send();
  }

  undo() { this.outbox.add(`${this.path}/undo`, { id: newId(), next: AHEAD }); this.pair = null; }

  key(event) {
    if (event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && event.target.matches("button, a")) return;
    const act = { ArrowLeft: () => this.vote("left"), ArrowRight: () => this.vote("right"), ArrowDown: () => this.vote("tie"), 1: () => this.vote("left"), 2: () => this.vote("right"), 3: () => this.vote("tie"), u: () => this.undo(), " ": () => this.again() }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

async function results(main, place) {
  const found = await get(`/compare/${part(place.name)}/results`);
  const at = (value) => `${(value + 100) / 2}%`;
  const rows = found.questions.map((row) => h("tr", {}, h("th", { scope: "row" }, row.question), h("td", { class: "num" }, count(row.pairs)), h("td", { class: "num" }, count(row.wins)), h("td", { class: "num" }, count(row.losses)), h("td", { class: "num" }, count(row.ties)),
    h("td", {}, row.net_win_rate === null ? "–" : `${row.net_win_rate > 0 ? "+" : ""}${number(row.net_win_rate)} (${number(row.low)} to ${number(row.high)})`),
    h("td", { class: "interval" }, row.net_win_rate === null ? null : [h("i", { class: "zero" }), h("i", { class: "range", style: { left: at(row.low), width: `${(row.high - row.low) / 2}%` } }), h("i", { class: "point", style: { left: at(row.net_win_rate) } })]), h("td", {}, share(row.unanimous))));
  fill(main, h("h1", {}, place.name), tabs(place.name, "results"), h("section", { class: "card scroll", tabindex: 0, "aria-label": "Results" }, h("p", {}, h("b", {}, found.a), " against ", h("b", {}, found.b), ": wins in per cent minus losses in per cent, with its 95 % interval; the majority of a pair's raters decides it."),
    h("table", {}, h("thead", {}, h("tr", {}, ["question", "pairs", "wins", "losses", "ties", "net win rate", "−100 … 100", "unanimous"].map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, rows))));
}
