// Review: one clip at a time, the next ones loaded; every decision is a key and waits in the outbox until it is kept.

import { get, part, post } from "./api.js";
import { Captions } from "./captions.js";
import { fill, h, say } from "./dom.js";
import { count, number, share } from "./format.js";
import { cuts, Film } from "./film.js";
import { newId, Outbox } from "./outbox.js";
import { address } from "./place.js";
import { chooseRun } from "./runs.js";

const AHEAD = 4; // clips held: the one that is shown and three that are loaded
const KEYS = [
  ["a", "accept"], ["r", "reject"], ["1–9", "reason, on or off"], ["Shift 1–9", "reject for this reason"],
  ["i", "in: this frame is the first"], ["o", "out: this frame is the last"], ["x", "in and out as suggested"],
  ["Space", "play or pause"], [", .", "a frame back, on"], ["j l", "half, double speed"], ["c", "next cut"], ["[ ]", "to in, to out"],
  ["u", "undo, up to ten"], ["s", "skip for later"], ["f", "the clip itself, in full size"], ["e", "to the caption"], ["Esc", "back to the film"], ["Ctrl Enter", "accept from within the caption"], ["b", "a break"], ["?", "these keys"],
];

const TOOLS = [[",", "back", "a frame back"], [" ", "play", "play or pause"], [".", "on", "a frame on"], ["i", "in", "in: this frame is the first"], ["o", "out", "out: this frame is the last"], ["c", "cut", "next cut"], ["s", "later", "skip for later"], ["b", "break", "a break"]];

export async function show(main, place, session) {
  if (!place.name) return chooseRun(main, session, "review");
  if (place.clip) {
    const room = new Review(main, place, session);
    await room.start();
    return () => room.stop();
  }
  const { queues } = await get(`/runs/${part(place.name)}/review`);
  const progress = await Promise.all(queues.map((queue) => get(`/runs/${part(place.name)}/review/${part(queue.name)}/progress`)));
  fill(main, h("h1", {}, `Queues of ${place.name}`),
    queues.length ? h("ul", { class: "runs" }, queues.map((queue, at) => h("li", {}, h("a", { class: "card", href: address({ room: "review", name: place.name, clip: queue.name }) }, h("b", {}, queue.name),
      h("span", { class: "muted small" }, `${count(progress[at].open)} of ${count(progress[at].total)} open · ${count(progress[at].accepted)} accepted · ${queue.reviewers} per clip`)))))
      : h("p", {}, "Nothing waits to be reviewed in this run; ", h("code", {}, `rushes finetune`), " makes a queue."));
}

class Review {
  constructor(main, place, session) {
    Object.assign(this, { main, session, run: place.name, queue: place.clip, films: new Map(), items: [], done: new Set(), reasons: new Set(), item: null, film: null, began: 0, progress: null, resting: false });
    this.path = `/runs/${part(this.run)}/review/${part(this.queue)}`;
  }

  async start() {
    this.rules = await get(this.path);
    this.build();
    this.outbox = new Outbox(`${this.run}/${this.queue}/${this.session.person.name}`, {
      sent: (answer, entry) => this.sent(answer, entry), refused: (error, entry) => this.refused(error, entry), changed: (error) => this.waiting(error),
    });
    this.outbox.send();
    this.keys = (event) => this.key(event);
    document.addEventListener("keydown", this.keys);
    if (this.session.person.role === "viewer") { this.empty("Viewers may look; deciding needs the role reviewer."); this.drawProgress(await get(`${this.path}/progress`)); return; }
    await this.lease();
    this.beat = setInterval(() => this.lease().catch(() => {}), Math.max(5, this.rules.lease_s / 2) * 1000);
    this.away = () => this.release();
    addEventListener("pagehide", this.away);
  }

  stop() {
    document.removeEventListener("keydown", this.keys);
    removeEventListener("pagehide", this.away);
    clearInterval(this.beat);
    this.outbox.stop();
    for (const film of this.films.values()) film.drop();
    this.release();
  }

  release() {
    if (this.session.person.role !== "viewer") post(`${this.path}/release`, {}, { options: { keepalive: true } }).catch(() => {});
  }

  // ---- the page -----------------------------------------------------------------------------------------------------

  build() {
    this.screen = h("div", { class: "screen" });
    this.head = h("div", { class: "head line" });
    this.time = h("div", { class: "time", role: "slider", tabindex: 0, "aria-label": "Frame", on: { pointerdown: (event) => this.scrub(event) } }, this.span = h("i", { class: "span" }), this.needle = h("i", { class: "needle" }));
    this.where = h("div", { class: "where line" });
    this.buttons = h("div", { class: "verdicts" });
    this.tools = h("div", { class: "tools", role: "group", "aria-label": "The film" }, TOOLS.map(([key, text, name]) => h("button", { class: "plain small", "aria-label": name ?? text, on: { click: (event) => { if (event.detail) event.currentTarget.blur(); this.press(key); } } }, h("kbd", { "aria-hidden": "true" }, key === " " ? "Space" : key), text)));
    this.state = h("section", { class: "card", "aria-label": "Progress" });
    this.captions = new Captions(this.rules, this.path, () => this.accept());
    this.help = h("dialog", { "aria-labelledby": "keys-title" }, h("h2", { id: "keys-title" }, "Keys"), h("dl", {}, KEYS.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])), h("button", { on: { click: () => this.help.close() } }, "Close"));
    const reasons = this.rules.reasons.map((reason, at) => h("button", { class: "reason", "aria-pressed": "false", dataset: { reason }, on: { click: () => this.reason(at) } }, h("kbd", { "aria-hidden": "true" }, at + 1), reason));
    this.reasonButtons = reasons;
    fill(this.buttons,
      h("button", { class: "primary", on: { click: () => this.accept() } }, h("kbd", { "aria-hidden": "true" }, "a"), "Accept"),
      h("button", { on: { click: () => this.reject() } }, h("kbd", { "aria-hidden": "true" }, "r"), "Reject"), h("div", { class: "reasons", role: "group", "aria-label": "Reasons" }, reasons),
      h("button", { class: "plain", on: { click: () => this.undo() } }, h("kbd", { "aria-hidden": "true" }, "u"), "Undo"), h("button", { class: "plain", on: { click: () => this.help.showModal() } }, h("kbd", { "aria-hidden": "true" }, "?"), "Keys"));
    fill(this.main, h("h1", { class: "unseen" }, `Review of ${this.run}, ${this.queue}`), this.help,
      h("div", { class: "review-page" }, h("section", { class: "card stage", "aria-label": "Clip" }, this.head, this.screen, this.time, this.where, this.tools, this.buttons), h("div", { class: "beside" }, this.captions.node, this.state)));
    if (this.rules.republished) say("The run was published anew since this queue was made; clips that are gone are passed over.");
  }

  empty(sentence) {
    this.item = this.film = null;
    fill(this.head, h("b", {}, sentence));
    fill(this.screen);
    fill(this.where);
    this.captions.show(null);
  }

  // ---- what is held -------------------------------------------------------------------------------------------------

  async lease(skip = []) {
    if (this.resting) return;
    const held = await post(`${this.path}/lease`, { count: AHEAD, skip });
    if (skip.includes(this.item?.clip_id)) this.item = null; // the last few are held all the while: the next of them comes
    this.take(held.items, held.progress);
  }

  /** What is held from here on; decisions that wait to be sent are left out of it. */
  take(items, progress) {
    this.items = items.filter((item) => !this.done.has(item.clip_id));
    if (progress) this.drawProgress(progress);
    for (const item of this.items) this.load(item);
    for (const [id, film] of this.films) if (film !== this.film && !this.items.some((item) => item.clip_id === id)) { film.drop(); this.films.delete(id); }
    if (!this.item || (this.item && !this.items.some((item) => item.clip_id === this.item.clip_id) && !this.outbox.length)) this.next();
  }

  load(item) {
    if (this.films.has(item.clip_id)) return;
    const film = new Film(item.proxy, `/runs/${part(this.run)}/clips/${part(item.clip_id)}/frames`, item.in_frame, item.out_frame);
    film.broken = (sentence) => { film.failed ??= `${sentence} Press s to pass it over, or r to reject it.`; if (this.item?.clip_id === item.clip_id) say(film.failed, "error"); };
    film.ready.catch((error) => film.broken(error.message));
    film.video.classList.add("waiting");
    this.screen.append(film.video);
    this.films.set(item.clip_id, film);
  }

  /** Show the next clip, which is loaded and starts at once. */
  next() {
    const item = this.items.find((one) => !this.done.has(one.clip_id));
    if (!item) return this.empty(this.outbox.length ? "Waiting for the service …" : "Nothing is left to decide.");
    const old = this.film;
    this.item = item;
    this.film = this.films.get(item.clip_id);
    if (!this.film) { this.load(item); this.film = this.films.get(item.clip_id); }
    this.film.video.classList.remove("waiting");
    if (old && old !== this.film) { old.video.classList.add("waiting"); old.video.pause(); }
    this.marks = { in: item.in_frame, out: item.out_frame };
    this.reasons = new Set(item.mine?.reasons ?? []);
    this.began = performance.now();
    this.film.listeners.clear();
    this.film.listeners.add((frame) => this.drawTime(frame));
    const first = (frame, now) => { performance.measure("next-clip", { start: this.decided ?? this.began, end: performance.now() }); this.film?.listeners.delete(first); };
    this.film.listeners.add(first);
    this.setSpan();
    this.film.play();
    if (this.film.failed) say(this.film.failed, "error");
    this.drawHead();
    this.drawReasons();
    this.captions.show(item);
  }

  // ---- decisions ----------------------------------------------------------------------------------------------------

  accept() {
    if (!this.item) return;
    const wrong = this.film.failed ?? this.wrongSpan();
    if (wrong) return void say(wrong, "error");
    this.decide({ verdict: "accept", in_frame: this.marks.in, out_frame: this.marks.out });
  }

  reject(reasons = [...this.reasons]) {
    if (this.item) this.decide({ verdict: "reject", reasons });
  }

  decide(what) {
    const { item } = this;
    const long = this.captions.wrong();
    if (long) return void say(long, "error");
    this.decided = performance.now();
    say("");
    const caption = this.captions.changed();
    const body = { id: newId(), clip_id: item.clip_id, ...what, ...(caption && { caption }), took_ms: Math.round(this.decided - this.began), next: AHEAD };
    this.done.add(item.clip_id);
    this.next();
    this.outbox.add(`${this.path}/decisions`, body);
  }

  undo() {
    this.outbox.add(`${this.path}/undo`, { id: newId(), next: AHEAD });
  }

  sent(answer, entry) {
    if (!this.outbox) return;
    if (entry.path.endsWith("/undo")) {
      const clip = answer.items[0]?.clip_id;
      this.done.delete(clip);
      if (this.item && this.item.clip_id !== clip) this.film?.video.classList.add("waiting");
      this.item = null;
      const film = this.films.get(clip);
      if (film && film !== this.film) { film.drop(); this.films.delete(clip); }
      this.take(answer.items, answer.progress);
      return;
    }
    this.take(answer.items, answer.progress);
    if (!this.outbox.length) for (const id of [...this.done]) if (!this.items.some((item) => item.clip_id === id)) this.done.delete(id);
  }

  refused(error, entry) {
    say(error.message, "error");
    if (error.status === 422 && entry.body.clip_id) this.done.delete(entry.body.clip_id);
    this.lease().catch((again) => say(again.message, "error"));
  }

  waiting(error) {
    const n = this.outbox?.length ?? 0;
    const back = this.main.classList.contains("offline") && !error && !n;
    if (error) this.main.classList.add("offline");
    if (back) {
      this.main.classList.remove("offline");
      say("The service is back; everything is sent.");
    }
    if (error) say(`${error.message} ${n} ${n === 1 ? "decision waits" : "decisions wait"} to be sent.`, "error");
    if (this.progress) this.drawProgress(this.progress);
  }

  // ---- in and out ---------------------------------------------------------------------------------------------------

  setSpan() {
    if (!this.film) return;
    Object.assign(this.film, { begin: this.marks.in, stop: this.marks.out });
    this.drawTime(this.film.frame);
  }

  secondsOf(frame) {
    const { times, end } = this.film;
    return times ? times[frame] ?? end : frame / this.item.fps;
  }

  wrongSpan() {
    const { min_s: least, max_s: most } = this.rules.span;
    if (this.marks.out <= this.marks.in) return `The out point (frame ${this.marks.out - 1}) lies before the in point (frame ${this.marks.in}).`;
    const seconds = this.secondsOf(this.marks.out) - this.secondsOf(this.marks.in);
    const slack = 2 / this.item.fps;
    if (seconds < least - slack || seconds > most + slack) return `The span is ${seconds.toFixed(2)} s; it must be ${number(least)} to ${number(most)} s.`;
    return "";
  }

  mark(which) {
    if (which === "in") this.marks.in = this.film.frame;
    else this.marks.out = this.film.frame + 1;
    this.setSpan();
  }

  async toCut() {
    const { film, item } = this;
    try {
      film.cuts ??= cuts(await get(`/runs/${part(this.run)}/clips/${part(item.clip_id)}/tracks?points=1200`), film.times);
    } catch (error) { return say(error.message, "error"); }
    const next = film.cuts.find((frame) => frame > film.frame) ?? film.cuts[0];
    if (next === undefined) say("No cut was found in this clip.");
    else film.seek(next);
  }

  scrub(event) {
    if (!this.film?.times) return;
    const box = this.time.getBoundingClientRect();
    this.film.seek(Math.floor(((event.clientX - box.left) / box.width) * this.film.count));
  }

  // ---- drawing ------------------------------------------------------------------------------------------------------

  drawHead() {
    const { item } = this;
    fill(this.head, h("a", { href: address({ room: "look", name: this.run, clip: item.clip_id }) }, h("code", {}, item.clip_id)), item.concept ? h("span", {}, item.concept) : null,
      item.suitability === null || item.suitability === undefined ? null : h("span", { class: "muted" }, `suitability ${number(item.suitability)}`),
      item.tie_break ? h("span", { class: "tag" }, "tie-break") : null, item.mine ? h("span", { class: "tag" }, `you: ${item.mine.verdict}`) : null,
      h("span", { class: "space" }), h("span", { class: "muted" }, `${item.width}×${item.height} · ${number(item.fps, 5)} fps`));
  }

  drawTime(frame) {
    if (!this.film || !this.item) return;
    const total = this.film.times ? this.film.count : this.item.frames;
    const at = (of) => `${(100 * of) / Math.max(total, 1)}%`;
    this.span.style.setProperty("left", at(this.marks.in));
    this.span.style.setProperty("width", at(Math.max(0, this.marks.out - this.marks.in)));
    this.needle.style.setProperty("left", at(frame + 0.5));
    const now = { "aria-valuemin": 0, "aria-valuemax": total - 1, "aria-valuenow": frame, "aria-valuetext": `frame ${frame} of ${total}` };
    for (const [name, value] of Object.entries(now)) this.time.setAttribute(name, value);
    this.time.classList.toggle("exact", Boolean(this.film.times) && this.film.target === null); // the picture is this frame
    const wrong = this.film.times ? this.wrongSpan() : "";
    const seconds = this.secondsOf(this.marks.out) - this.secondsOf(this.marks.in);
    fill(this.where, h("b", { class: "frame" }, `frame ${frame}`), h("span", { class: "muted" }, `of ${total}`), h("span", {}, `in ${this.marks.in}`), h("span", {}, `out ${this.marks.out - 1}`), h("span", { class: wrong ? "less" : "" }, `${seconds.toFixed(2)} s`),
      this.film.rate === 1 ? null : h("span", {}, `${this.film.rate}×`), wrong ? h("span", { class: "less small" }, wrong) : null);
  }

  drawReasons() {
    for (const button of this.reasonButtons) button.setAttribute("aria-pressed", String(this.reasons.has(button.dataset.reason)));
  }

  drawProgress(progress) {
    this.progress = progress;
    const mine = progress.people.find((one) => one.person === this.session.person.name);
    const bar = ["accepted", "rejected", "disputed"].map((name) => h("i", { class: name, style: { width: share(progress[name], progress.total).replace(" ", "") } }));
    fill(this.state, h("h2", {}, "Progress"), h("div", { class: "bar", role: "img", "aria-label": `${progress.accepted} accepted, ${progress.rejected} rejected, ${progress.open} open` }, bar),
      h("p", { class: "line" }, h("span", {}, h("b", {}, count(progress.open)), " open"), h("span", { class: "more" }, `${count(progress.accepted)} accepted`), h("span", { class: "less" }, `${count(progress.rejected)} rejected`), progress.disputed ? h("span", {}, `${count(progress.disputed)} disputed`) : null),
      mine ? h("p", { class: "small muted" }, `You: ${count(mine.decisions)} ${mine.decisions === 1 ? "decision" : "decisions"}${mine.per_hour ? `, ${count(mine.per_hour)} an hour` : ""}`) : null,
      this.outbox?.length ? h("p", { class: "small less" }, `${this.outbox.length} waiting to be sent`) : null,
      this.rules.reviewers > 1 ? h("button", { class: "plain small", on: { click: () => this.agreement() } }, "Agreement") : null);
    if (mine && this.rules.break_after_s && mine.at_work_s > this.rules.break_after_s) {
      this.state.append(h("p", { class: "warning" }, `You have been at it for ${Math.round(mine.at_work_s / 60)} minutes: take a break with `, h("kbd", {}, "b"), "."));
    }
  }

  async agreement() {
    const { agreement } = await get(`${this.path}/agreement`);
    this.state.append(h("table", {}, h("thead", {}, h("tr", {}, ["reason", "pairs", "agree", "kappa"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, agreement.map((row) => h("tr", {}, h("th", { scope: "row" }, row.reason), h("td", {}, count(row.pairs)), h("td", {}, share(row.agreed)), h("td", {}, number(row.kappa, 2)))))));
  }

  // ---- keys ---------------------------------------------------------------------------------------------------------

  reason(at) {
    const reason = this.rules.reasons[at];
    if (!reason || !this.item) return;
    if (!this.reasons.delete(reason)) this.reasons.add(reason);
    this.drawReasons();
  }

  rest() {
    this.resting = !this.resting;
    if (this.resting) { this.release(); this.film?.video.pause(); this.empty("A break. Press b to go on."); for (const film of this.films.values()) film.drop(); this.films.clear(); this.items = []; } else this.lease();
  }

  key(event) {
    const typing = event.target.matches("input, textarea, select");
    if (event.key === "Escape" && typing) { event.target.blur(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || this.help.open) return;
    if (typing) return;
    const digit = /^Digit([1-9])$/.exec(event.code);
    if (digit && event.shiftKey) { if (this.rules.reasons[digit[1] - 1]) this.reject([...new Set([...this.reasons, this.rules.reasons[digit[1] - 1]])]); }
    else if (digit) this.reason(digit[1] - 1);
    else if (event.key === " " && event.target.matches("button, a")) return;
    else {
      if (!this.press(event.key.length === 1 ? event.key.toLowerCase() : event.key)) return;
    }
    event.preventDefault();
  }

  /** What a key does, by hand or by a button; whether there is such a key. */
  press(key) {
    const act = { a: () => this.accept(), r: () => this.reject(), u: () => this.undo(), "?": () => this.help.showModal(), b: () => this.rest(), e: () => this.captions.focus(),
      s: () => this.item && this.lease([this.item.clip_id]), ...(this.film && this.moves()) }[key];
    if (!act) return false;
    const { film } = this;
    if (!film || film.times) act();
    else film.ready.then(act, () => { if (key === "a" || key in this.moves()) say(film.failed, "error"); else act(); }); // what needs no film goes without
    return true;
  }

  moves() {
    const { film } = this;
    return { i: () => this.mark("in"), o: () => this.mark("out"), x: () => { this.marks = { in: this.item.in_frame, out: this.item.out_frame }; this.setSpan(); }, " ": () => film.toggle(),
      ",": () => film.step(-1), ".": () => film.step(1), ArrowLeft: () => film.step(-1), ArrowRight: () => film.step(1), j: () => { film.faster(-1); this.drawTime(film.frame); }, l: () => { film.faster(1); this.drawTime(film.frame); },
      f: () => { film.swap(this.item.media); say("The clip itself is shown, not a small copy of it."); }, c: () => this.toCut(), "[": () => film.seek(this.marks.in), "]": () => film.seek(this.marks.out - 1) };
  }
}
