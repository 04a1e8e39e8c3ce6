// Look: what went into a run, what was kept and why, and what other thresholds would keep.

import { get, part, post, query, Refused } from "./api.js";
import { Charts } from "./charts.js";
import { clipPage } from "./clip.js";
import { clipsTab } from "./clips.js";
import { conceptsTab } from "./concepts.js";
import { fill, h, say } from "./dom.js";
import { Edge } from "./edge.js";
import { change, count, hours, share, words } from "./format.js";
import { address, note, read, setsOf } from "./place.js";
import { scatterTab } from "./scatter.js";
import { chooseRun, twoRuns } from "./runs.js";

const READ_MS = 250, READ_MOST_MS = 1500; // between two looks at a run that is being read: each waits longer
const EDGE_MS = 120; // a handle rests so long before pictures are asked for
const TABS = { thresholds: "Thresholds", clips: "Clips", concepts: "Concepts", signals: "Two signals", runs: "Two runs" };

export async function show(main, place, session) {
  if (!place.name) return chooseRun(main, session);
  if (place.clip) return clipPage(main, place);
  const tab = place.tab in TABS ? place.tab : "thresholds";
  const links = Object.entries(TABS).map(([name, title]) =>
    h("a", { href: address({ ...place, tab: name === "thresholds" ? null : name, where: name === "clips" ? place.where : [] }), "aria-current": name === tab ? "page" : null }, title));
  const body = h("div", { class: `tab ${tab}` }, h("p", { class: "muted loading" }, "Reading the run …"));
  fill(main, h("h1", { class: "unseen" }, `Run ${place.name}`), h("nav", { class: "tabs", "aria-label": "Views of the run" }, links), body);
  if (tab === "clips") return clipsTab(body, place);
  if (tab === "concepts") return conceptsTab(body, place);
  if (tab === "signals") return scatterTab(body, place);
  if (tab === "runs") return twoRuns(body, place, session);
  const board = new Board(body, place, session);
  await board.start();
  return () => board.stop();
}

/** The thresholds of a run and all that follows when one is moved. One question is under way at a time, the newest next. */
class Board {
  constructor(body, place, session) {
    Object.assign(this, { body, place, session, moves: { ...place.moves } });
    this.path = `/runs/${part(place.name)}`;
    this.focus = place.fields.get("focus");
    this.asking = false;
    this.stale = false;
    this.answer = null;
  }

  async start() {
    this.answer = null;
    this.stopped = false;
    const [run, board] = await Promise.all([get(this.path), this.ask(true)]);
    this.snapshot = run.snapshot;
    this.answer = board;
    if (!board.rules.some((rule) => rule.key === this.focus)) this.focus = strongest(board);
    this.summary = h("section", { class: "card summary", "aria-labelledby": "kept-title" });
    this.funnel = h("section", { class: "card funnel", "aria-labelledby": "funnel-title" });
    this.charts = new Charts(board, { moved: (key, value) => this.move(key, value), focused: (key) => this.choose(key) });
    this.edge = new Edge(this.place.name);
    fill(this.body,
      h("div", { class: "side" }, this.summary, this.funnel),
      h("section", { class: "charts", "aria-label": "Signals and their thresholds" }, this.charts.node),
      this.edge.node);
    this.draw(board);
    if (board.reading) this.readOn();
    else this.look();
    if (this.place.fields.has("focus")) this.charts.reveal(this.focus);
    this.themed = () => this.charts.themed();
    document.addEventListener("theme", this.themed);
  }

  stop() {
    this.stopped = true;
    document.removeEventListener("theme", this.themed);
    clearTimeout(this.pause);
    this.charts?.stop();
    this.edge?.stop();
  }

  /** The answer to where the thresholds are; after the first, what no threshold moves is not sent again. */
  async ask(soon = false) {
    const brief = this.answer && !this.answer.reading ? true : null;
    const answer = await get(`${this.path}/board${query({ set: setsOf(this.moves), brief, ...(soon ? { soon, focus: this.focus } : {}) })}`);
    for (const [column, chart] of Object.entries(answer.charts)) answer.charts[column] = chart && { ...this.answer?.charts[column], ...chart };
    return answer;
  }

  /** Histograms of a large run as they are read; then where the thresholds were moved to meanwhile. */
  async readOn() {
    try {
      for (let wait = READ_MS; this.answer.reading && !this.stopped; wait = Math.min(1.5 * wait, READ_MOST_MS)) {
        await new Promise((done) => setTimeout(done, wait));
        this.draw(await this.ask(true));
      }
      if (!this.stopped) this.refresh();
    } catch (error) {
      say(error.message, "error");
    }
  }

  /** A threshold was moved: value null is off, undefined is as published. */
  move(key, value) {
    const published = this.answer.rules.find((rule) => rule.key === key).published;
    if (value === undefined || value === published) delete this.moves[key];
    else this.moves[key] = value;
    this.focus = key;
    this.note();
    this.refresh();
  }

  choose(key) {
    if (this.focus === key) return;
    this.focus = key;
    this.note();
    this.charts.focus(key);
    this.look();
  }

  note() {
    note({ ...read(), room: "look", name: this.place.name, moves: this.moves, more: { focus: this.focus } });
  }

  async refresh() {
    this.stale = true;
    if (this.asking || this.answer.reading) return;
    this.asking = true;
    while (this.stale) {
      this.stale = false;
      try {
        const answer = await this.ask();
        this.draw(answer);
        requestAnimationFrame(() => setTimeout(() => performance.mark("board-drawn"))); // after the picture of it
      } catch (error) {
        say(error.message, "error");
        if (error instanceof Refused && error.status === 422) this.charts.refused(error.message);
      }
    }
    this.asking = false;
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.look(), EDGE_MS);
  }

  look() {
    if (this.answer.reading) return;
    this.edge.ask(setsOf(this.moves), this.focus, this.answer.rules.find((rule) => rule.key === this.focus), this.answer);
  }

  draw(board) {
    this.answer = board;
    this.charts.draw(board, this.focus);
    this.drawSummary(board);
    this.drawFunnel(board);
  }

  drawSummary(board) {
    const { kept } = board;
    const moved = Object.keys(this.moves).length;
    const sets = Object.entries(board.sets).map(([name, set]) => {
      const wide = set.landscape ?? 0;
      return h("li", {},
        h("div", { class: "line" }, h("span", {}, name), h("b", {}, count(set.clips)), h("span", { class: "muted" }, hours(set.seconds))),
        h("div", { class: "shares", role: "img", "aria-label": `${share(set.landscape)} landscape, ${share(set.people)} with people` },
          h("i", { class: "wide", style: { width: `${100 * wide}%` } })),
        h("div", { class: "small muted" }, `${set.clips ? `${share(set.landscape)} landscape · ` : "empty"}${!set.clips ? "" : set.people === null ? "people not measured" : `${share(set.people)} people`}`,
          set.clips === set.before.clips ? "" : ` · ${change(set.clips, set.before.clips)}`));
    });
    fill(this.summary,
      h("h2", { id: "kept-title" }, "Kept"),
      h("p", { class: "big" }, count(kept.clips), h("span", { class: "muted" }, ` of ${count(board.clips)}`)),
      h("p", { class: "line" }, h("span", {}, kept.seconds === null ? "…" : hours(kept.seconds)), h("span", { class: "muted" }, share(kept.clips, board.clips)),
        h("span", { class: kept.clips < kept.before.clips ? "less" : kept.clips > kept.before.clips ? "more" : "muted" }, change(kept.clips, kept.before.clips))),
      moved ? h("p", { class: "small" }, `${count(board.enter)} enter, ${count(board.leave)} leave`) : null,
      board.reading && h("p", { class: "small muted", role: "status" }, h("progress", { value: board.reading.share, "aria-label": "columns read" }), h("br"), board.reading.sentence),
      board.said.map((sentence) => h("p", { class: "small muted" }, sentence)),
      moved ? h("p", { class: "small" }, h("button", { class: "small", on: { click: (event) => this.decide(event.target) } }, "Decide anew")) : null,
      board.reading ? null : [h("h3", {}, "May enter the sets"), h("ul", { class: "sets" }, sets)],
      h("div", { class: "actions" },
        h("a", { class: "button", href: `/api/v1${this.path}/recipe${query({ set: setsOf(this.moves) })}`, download: `${this.place.name}.yaml` }, "Save as recipe"),
        h("button", { disabled: !moved || board.reading || !may(this.session.person, "engineer"), title: may(this.session.person, "engineer") ? "" : "needs the role engineer", on: { click: () => this.publish() } }, "Publish"),
        h("button", { class: "plain", disabled: !moved, on: { click: () => this.reset() } }, "As published")));
  }

  /** Copies, the draw and the sets' quotas as publishing would decide them; some seconds on a large run. */
  async decide(button) {
    button.disabled = true;
    button.textContent = "Deciding …";
    try {
      const found = await get(`${this.path}/judged${query({ set: setsOf(this.moves) })}`);
      const sets = Object.entries(found.sets).map(([name, n]) => `${name} ${count(n)}`).join(", ");
      button.replaceWith(h("span", { role: "status" }, `Published, ${count(found.kept)} would be kept; in ${sets}.`));
    } catch (error) {
      button.replaceWith(h("span", { class: "error", role: "alert" }, error.message));
    }
  }

  drawFunnel(board) {
    let remaining = board.clips;
    const rows = board.rules.filter((rule) => rule.value !== null).map((rule) => {
      remaining -= rule.rejected;
      return h("li", {}, h("button", { class: "row", "aria-pressed": String(rule.key === this.focus), title: rule.text, on: { click: () => { this.choose(rule.key); this.charts.reveal(rule.key); this.drawFunnel(this.answer); } } },
        h("i", { style: { width: `${(100 * remaining) / Math.max(board.clips, 1)}%` } }),
        h("span", {}, words(rule.key.split(".").pop())), h("span", { class: "less" }, rule.rejected ? `−${count(rule.rejected)}` : ""), h("b", {}, count(remaining))));
    });
    for (const [key, n] of Object.entries(board.late)) {
      remaining -= n;
      rows.push(h("li", {}, h("div", { class: "row late" }, h("i", { style: { width: `${(100 * remaining) / Math.max(board.clips, 1)}%` } }),
        h("span", {}, words(key)), h("span", { class: "less" }, `−${count(n)}`), h("b", {}, count(remaining)))));
    }
    fill(this.funnel, h("h2", { id: "funnel-title" }, "Funnel"),
      h("div", { class: "row first" }, h("span", {}, "clips"), h("span"), h("b", {}, count(board.clips))), h("ol", {}, rows));
  }

  reset() {
    this.moves = {};
    this.note();
    this.refresh();
  }

  async publish() {
    say("Publishing …");
    try {
      const done = await post(`${this.path}/judgements`, { set: this.moves, parent: this.snapshot });
      this.moves = {};
      this.note();
      say(`Published as snapshot ${done.snapshot}.`);
      this.stop();
      await this.start();
    } catch (error) {
      say(error.message, "error");
      if (error.status === 409) {
        const found = await get(this.path);
        this.summary.append(h("div", { class: "warning", role: "alert" }, h("p", {}, error.message),
          h("button", { on: { click: () => { this.stop(); this.start(); } } }, `Look at ${found.snapshot}`)));
      }
    }
  }
}

const may = (person, role) => person.roles.indexOf(person.role) >= person.roles.indexOf(role);

function strongest(board) {
  const most = [...board.rules].filter((rule) => rule.value !== null).sort((a, b) => (b.alone ?? b.rejected) - (a.alone ?? a.rejected))[0];
  return (most ?? board.rules[0])?.key;
}
