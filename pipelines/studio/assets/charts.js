// Every signal's histogram with its thresholds as handles. Grey: clips that pass every other rule and fail this one.

import { colour, fill, h } from "./dom.js";
import { count, number, sign, words } from "./format.js";

const HEIGHT = 116;
const STEPS = 200; // positions of a handle over the drawn range

export class Charts {
  constructor(board, { moved, focused }) {
    this.cards = new Map();
    const columns = Object.keys(board.charts).sort((a, b) => measured(board, b) - measured(board, a));
    for (const column of columns) this.cards.set(column, new Card(column, board, moved, focused));
    this.node = h("div", { class: "grid" }, [...this.cards.values()].map((card) => card.node));
    this.sizes = new ResizeObserver(() => { for (const card of this.cards.values()) card.resize(); });
    this.sizes.observe(this.node);
    this.seen = new IntersectionObserver((entries) => { for (const { target, isIntersecting } of entries) this.cards.get(target.dataset.column).show(isIntersecting); }, { rootMargin: "200px" });
    for (const card of this.cards.values()) this.seen.observe(card.node);
  }

  draw(board, focus) {
    for (const card of this.cards.values()) card.draw(board);
    this.focus(focus);
  }

  focus(key) {
    for (const card of this.cards.values()) card.node.classList.toggle("focused", card.rules.some((rule) => rule.key === key));
  }

  reveal(key) {
    for (const card of this.cards.values()) {
      if (card.rules.some((rule) => rule.key === key)) card.node.scrollIntoView({ block: "nearest", behavior: "smooth" });
    }
  }

  refused(sentence) {
    for (const card of this.cards.values()) if (card.node.classList.contains("focused")) card.complain(sentence);
  }

  themed() { for (const card of this.cards.values()) card.remake(); }

  stop() {
    this.sizes.disconnect();
    this.seen.disconnect();
    for (const card of this.cards.values()) card.plot?.destroy();
  }
}

/** What is not read yet counts as measured: cards keep their places. */
const measured = (board, column) => Number(board.charts[column]?.all.some((n) => n > 0) ?? true);

/** One signal: its plot, a handle and a field for each threshold. */
class Card {
  constructor(column, board, moved, focused) {
    Object.assign(this, { column, moved, focused, dragged: null, near: false });
    this.rules = board.rules.filter((rule) => rule.column === column);
    this.chart = board.charts[column];
    const [rule] = this.rules;
    this.plane = h("div", { class: "plane" });
    this.controls = this.rules.map((one) => new Control(this, one));
    this.plane.append(...this.controls.map((control) => control.handle));
    this.complaint = h("p", { class: "small error", role: "alert" });
    this.node = h("article", { class: "card chart", dataset: { column }, on: { focusin: () => focused(this.focusKey()), pointerdown: () => focused(this.focusKey()) } },
      h("header", {}, h("h3", {}, words(column)), h("span", { class: "muted small" }, rule.unit)),
      h("p", { class: "small muted meaning", title: rule.meaning }, rule.meaning),
      this.plane, h("div", { class: "controls" }, this.controls.map((control) => control.node)), this.complaint);
  }

  focusKey() {
    const active = this.controls.find((control) => control.node.contains(document.activeElement) || control.handle === document.activeElement);
    return (active ?? this.controls.find((control) => control.rule.value !== null) ?? this.controls[0]).rule.key;
  }

  get range() { if (!this.chart) return [0, 1]; const { edges } = this.chart; return [edges[0], edges[edges.length - 1]]; }

  draw(board) {
    this.chart = board.charts[this.column];
    this.node.classList.toggle("unread", !this.chart);
    this.rules = board.rules.filter((rule) => rule.column === this.column);
    this.complaint.textContent = "";
    for (const control of this.controls) {
      control.take(this.rules.find((rule) => rule.key === control.rule.key));
      control.put();
    }
    this.paint();
  }

  /** Bars from the last answer, split by where the handles are: a handle that moves is followed at once. */
  data() {
    const { edges, inside, alone } = this.chart;
    const middles = inside.map((_, at) => (edges[at] + edges[at + 1]) / 2);
    const both = inside.map((n, at) => n + alone[at]);
    const inner = this.dragged ? both.map((n, at) => (this.passes(middles[at]) ? n : 0)) : inside;
    return [middles, both, inner];
  }

  passes(value) {
    return this.controls.every(({ rule, value: at }) => at === null || (rule.compare.startsWith(">") ? value >= at : value <= at));
  }

  /** Only what is on the screen, or nearly, is drawn. */
  show(near) {
    this.near = near;
    if (near) this.paint();
  }

  paint() {
    if (!this.near || !this.chart) return;
    const data = this.data();
    if (this.plot) this.plot.setData(data);
    else this.make(data);
    for (const control of this.controls) control.put();
  }

  make(data) {
    const width = this.plane.clientWidth || 280;
    const bars = uPlot.paths.bars({ size: [1, 100], gap: 0.5 });
    const font = "11px system-ui, sans-serif";
    const series = (fill) => ({ stroke: fill, fill, width: 0, paths: bars, points: { show: false } });
    const [low, high] = this.range;
    this.plot = new uPlot({
      width, height: HEIGHT, legend: { show: false }, cursor: { show: false }, padding: [6, 16, 0, 6],
      scales: { x: { time: false, range: [low, high] }, y: { range: (u, min, max) => [0, max || 1] } },
      axes: [{ stroke: colour("muted"), font, size: 22, gap: 2, grid: { show: false }, ticks: { show: false }, space: 56, values: (u, all) => all.map((v) => number(v)) }, { show: false }],
      series: [{}, series(colour("drop-soft")), series(colour("keep"))],
      hooks: { draw: [() => { for (const control of this.controls) control.put(); }] },
    }, data, this.plane);
  }

  remake() {
    this.plot?.destroy();
    this.plot = null;
    this.paint();
  }

  resize() {
    const width = this.plane.clientWidth;
    if (!this.plot || !width || Math.abs(width - this.plot.width) < 1) return;
    this.plot.setSize({ width, height: HEIGHT });
    for (const control of this.controls) control.put();
  }

  complain(sentence) { this.complaint.textContent = sentence; }
}

/** A threshold: a handle over the plot, a number beside it, and a switch. */
class Control {
  constructor(card, rule) {
    Object.assign(this, { card, rule, value: rule.value });
    const name = `${words(card.column)} ${rule.compare.startsWith(">") ? "at least" : "at most"}`;
    this.handle = h("div", { class: `handle ${rule.compare.startsWith(">") ? "min" : "max"}`, role: "slider", tabindex: 0, "aria-label": name, "aria-orientation": "horizontal",
      on: { pointerdown: (event) => this.grab(event), keydown: (event) => this.key(event) } }, h("i"));
    const id = `field-${rule.key.replaceAll(".", "-")}`;
    this.field = h("input", { id, type: "number", step: "any", inputmode: "decimal", on: { change: () => this.set(this.field.value === "" ? null : Number(this.field.value)) } });
    this.back = h("button", { class: "plain small", "aria-label": `${name}: as published`, title: "as published", on: { click: () => this.set(undefined) } }, "↺");
    this.cost = h("span", { class: "muted small cost" });
    this.node = h("div", { class: "control" }, h("label", { for: id, title: rule.text }, sign(rule.compare)), this.field, this.back, this.cost);
  }

  take(rule) {
    this.rule = rule;
    if (!this.card.dragged) this.value = rule.value;
    this.field.placeholder = "off";
    if (document.activeElement !== this.field) this.field.value = rule.value === null ? "" : String(Number(rule.value.toPrecision(6)));
    const moved = rule.value !== rule.published;
    this.back.hidden = !moved;
    this.back.title = `as published: ${rule.published === null ? "off" : number(rule.published, 4)}`;
    this.cost.textContent = rule.value === null ? "off" : rule.alone === null ? "…" : `${count(rule.alone)} fail this alone`;
  }

  /** Where the handle stands: off is the end at which everything passes. */
  get at() {
    const [low, high] = this.card.range;
    return this.value === null ? (this.rule.compare.startsWith(">") ? low : high) : Math.min(high, Math.max(low, this.value));
  }

  put() {
    const [low, high] = this.card.range;
    this.handle.classList.toggle("off", this.value === null);
    this.handle.classList.toggle("moved", this.rule.published !== this.value);
    this.handle.setAttribute("aria-valuemin", low);
    this.handle.setAttribute("aria-valuemax", high);
    this.handle.setAttribute("aria-valuenow", this.at);
    this.handle.setAttribute("aria-valuetext", this.value === null ? "off" : `${number(this.value, 4)} ${this.rule.unit}`);
    const { plot } = this.card;
    if (!plot || plot.scales.x.min === undefined || plot.scales.x.min === null) return;
    const left = plot.valToPos(this.at, "x") + plot.bbox.left / devicePixelRatio;
    this.handle.style.setProperty("left", `${left}px`);
  }

  get step() {
    const [low, high] = this.card.range;
    const raw = (high - low) / STEPS;
    const unit = 10 ** Math.floor(Math.log10(raw));
    const nice = [1, 2, 5, 10].find((n) => n * unit >= raw) * unit;
    return this.rule.whole ? Math.max(1, Math.round(nice)) : nice;
  }

  rounded(value) {
    const [low, high] = this.card.range;
    const { ge, gt, le, lt } = this.rule.limits;
    const least = Math.max(low, ge ?? gt ?? low), most = Math.min(high, le ?? lt ?? high);
    const on = Math.round(Math.min(most, Math.max(least, value)) / this.step) * this.step;
    return Number(Math.min(most, Math.max(least, on)).toPrecision(6));
  }

  set(value) {
    if (Number.isNaN(value)) return;
    this.value = value === undefined ? this.rule.published : value;
    this.put();
    this.card.moved(this.rule.key, value);
  }

  grab(event) {
    event.preventDefault();
    this.handle.focus();
    this.handle.setPointerCapture(event.pointerId);
    this.card.dragged = this;
    const { plot } = this.card;
    const begin = this.card.plane.getBoundingClientRect().left + plot.bbox.left / devicePixelRatio;
    const move = (at) => {
      const value = this.rounded(plot.posToVal(at.clientX - begin, "x"));
      if (value === this.value) return;
      this.value = value;
      this.field.value = String(value);
      this.card.paint();
      this.card.moved(this.rule.key, value);
    };
    const end = () => {
      this.card.dragged = null;
      this.handle.removeEventListener("pointermove", move);
      this.card.moved(this.rule.key, this.value);
    };
    this.handle.addEventListener("pointermove", move);
    this.handle.addEventListener("lostpointercapture", end, { once: true });
  }

  key(event) {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    const [low, high] = this.card.range;
    if (by) this.set(this.rounded(this.at + by * this.step * (event.shiftKey ? 10 : 1)));
    else if (event.key === "Home") this.set(this.rounded(low));
    else if (event.key === "End") this.set(this.rounded(high));
    else if (event.key === "Delete") this.set(null);
    else if (event.key === "Backspace") this.set(undefined);
    else return;
    event.preventDefault();
  }
}
