// The caption's fields beside the film. What is typed is text; the long caption is composed by the service.

import { post } from "./api.js";
import { fill, h } from "./dom.js";
import { count, words } from "./format.js";

const WAIT_MS = 350;
const MOST = 1200; // characters of a field that the service keeps

export class Captions {
  constructor(rules, path, done) {
    Object.assign(this, { path, item: null, timer: 0 });
    this.inputs = new Map(rules.fields.map((name) => [name, this.input(name, rules.choices[name])]));
    this.long = h("blockquote", { "aria-live": "off" });
    this.by = h("p", { class: "small muted" });
    this.node = h("section", { class: "card captions", "aria-labelledby": "caption-title" }, h("h2", { id: "caption-title" }, "Caption"),
      [...this.inputs].map(([name, input]) => h("div", { class: "field" }, h("label", { for: input.id }, words(name)), input)), this.long, this.by);
    this.node.addEventListener("input", () => this.compose());
    this.node.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.target.blur(); done(); } });
  }

  input(name, choices) {
    const id = `caption-${name}`;
    if (choices) return h("select", { id }, h("option", { value: "" }, "–"), choices.map((choice) => h("option", { value: choice }, choice)));
    return h("textarea", { id, rows: name === "subject" || name === "action" ? 2 : 1, spellcheck: "true" });
  }

  show(item) {
    this.item = item;
    for (const [name, input] of this.inputs) { input.value = item?.caption.fields[name] ?? ""; input.disabled = !item; }
    fill(this.long, item?.caption.text ?? "");
    const who = new Set(Object.values(item?.caption.written_by ?? {}).flat().map(([name]) => name));
    this.by.textContent = who.size ? `written by ${[...who].join(", ")}` : "";
  }

  values() { return Object.fromEntries([...this.inputs].map(([name, input]) => [name, input.value])); }

  /** The fields where one differs from what was given, else null. */
  changed() {
    if (!this.item) return null;
    const values = this.values();
    return Object.entries(values).some(([name, text]) => text !== (this.item.caption.fields[name] ?? "")) ? values : null;
  }

  /** A sentence on a field that is too long, or nothing. */
  wrong() {
    const [name, text] = Object.entries(this.values()).find(([, value]) => value.length > MOST) ?? [];
    return name ? `The caption's ${words(name)} has ${count(text.length)} characters; it may have ${count(MOST)}.` : "";
  }

  compose() {
    clearTimeout(this.timer);
    const { item } = this;
    this.timer = setTimeout(async () => {
      const answer = await post(`${this.path}/compose`, this.values()).catch((error) => ({ text: error.message }));
      if (this.item === item) this.long.textContent = answer.text;
    }, WAIT_MS);
  }

  focus() { [...this.inputs.values()][0]?.focus(); }
}
