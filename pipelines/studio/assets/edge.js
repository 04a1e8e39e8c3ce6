// Pictures of the clips next to the threshold that is moved, and of those that enter and leave.

import { get, part, query, thumb } from "./api.js";
import { fill, h } from "./dom.js";
import { clock, count, file, number, sign, words } from "./format.js";
import { address } from "./place.js";

const SHOWN = 6;

export class Edge {
  constructor(run) {
    this.run = run;
    this.node = h("aside", { class: "edge", "aria-label": "Clips at the threshold" });
    this.control = null;
  }

  async ask(sets, key, rule, board) {
    this.control?.abort();
    this.control = new AbortController();
    try {
      const found = await get(`/runs/${part(this.run)}/edge${query({ set: sets, key, count: SHOWN })}`, this.control.signal);
      this.draw(found, rule, board);
    } catch (error) {
      if (error.name !== "AbortError") fill(this.node, h("p", { class: "muted" }, error.message));
    }
  }

  draw(found, rule, board) {
    const lists = [];
    if (board.enter) lists.push(this.list(`Enter (${count(board.enter)})`, found.enter, "more"));
    if (board.leave) lists.push(this.list(`Leave (${count(board.leave)})`, found.leave, "less"));
    if (found.inside) {
      lists.push(this.list("Just inside", found.inside, "more"), this.list("Just outside, failing this alone", found.outside, "less"));
    }
    const title = rule ? `${words(rule.column)} ${sign(rule.compare)} ${rule.value === null ? "off" : number(rule.value, 4)}` : "";
    fill(this.node, h("h2", {}, title), lists);
  }

  list(title, rows, kind) {
    return h("section", {}, h("h3", { class: kind }, title),
      rows.length ? h("ul", { class: "thumbs" }, rows.map((row) => picture(this.run, row))) : h("p", { class: "small muted" }, "none"));
  }

  stop() { this.control?.abort(); }
}

/** A clip as a picture that leads to its page. */
export function picture(run, row) {
  const image = h("img", { src: thumb(run, row.clip_id), alt: "", loading: "lazy", width: 160, height: 90, on: { error: () => image.replaceWith(h("span", { class: "nopicture small muted" }, "no picture")) } });
  const value = row.value === undefined || row.value === null ? clock(row.start_s) : number(row.value, 4);
  return h("li", {}, h("a", { href: address({ room: "look", name: run, clip: row.clip_id }), title: row.caption ?? row.clip_id }, image,
    h("span", { class: "line small" }, h("span", { class: "name" }, file(row.uri)), h("b", {}, value))));
}
