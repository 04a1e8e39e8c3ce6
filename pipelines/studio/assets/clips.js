// Clips by filter, as pictures; the filter is a list of conditions in the address.

import { get, part, query } from "./api.js";
import { fill, h, say } from "./dom.js";
import { picture } from "./edge.js";
import { count } from "./format.js";
import { go } from "./place.js";

const PAGE = 60;
const READY = { kept: ["kept=true"], dropped: ["kept=false"], copies: ["duplicate_of!=null"], all: [] };

export async function clipsTab(body, place) {
  const path = `/runs/${part(place.name)}`;
  const where = place.where;
  const sort = place.fields.get("sort") ?? "clip_id";
  const descending = place.fields.get("descending") === "true";
  const offset = Number(place.fields.get("offset") ?? 0);
  const to = (changed) => go({ room: "look", name: place.name, tab: "clips", where, ...changed, more: { sort, descending: descending || null, ...changed.more } });
  const [page, columns] = await Promise.all([
    get(`${path}/clips${query({ where, sort, descending, limit: PAGE, offset })}`),
    get(`${path}/columns`),
  ]);
  const entry = h("input", { id: "condition", placeholder: "vmaf_motion>=3", list: "columns", autocomplete: "off", spellcheck: "false" });
  const form = h("form", { class: "filter", on: { submit: (event) => { event.preventDefault(); if (entry.value.trim()) to({ where: [...where, entry.value.trim()] }); } } },
    h("label", { for: "condition" }, "Clips with"), entry, h("datalist", { id: "columns" }, columns.map((column) => h("option", { value: `${column.name}=` }))),
    h("button", {}, "Add"),
    Object.entries(READY).map(([name, some]) => h("button", { type: "button", class: "plain", "aria-pressed": String(some.join() === where.join()), on: { click: () => to({ where: some }) } }, name)));
  const chips = where.map((one) => h("li", {}, one, h("button", { class: "plain", "aria-label": `without ${one}`, on: { click: () => to({ where: where.filter((other) => other !== one) }) } }, "×")));
  const order = h("label", { class: "chooser" }, h("span", {}, "Sorted by"), h("select", { on: { change: (event) => to({ more: { sort: event.target.value } }) } },
    columns.filter((column) => !column.type.startsWith("list")).map((column) => h("option", { value: column.name, selected: column.name === sort }, column.name))));
  const turn = h("button", { class: "plain", "aria-pressed": String(descending), on: { click: () => to({ more: { descending: descending ? null : true } }) } }, descending ? "largest first" : "smallest first");
  const pages = h("div", { class: "pages" },
    h("button", { disabled: offset === 0, on: { click: () => to({ more: { offset: Math.max(0, offset - PAGE) || null } }) } }, "Before"),
    h("span", {}, page.total ? `${count(offset + 1)}–${count(Math.min(offset + PAGE, page.total))} of ${count(page.total)}` : "no clips"),
    h("button", { disabled: offset + PAGE >= page.total, on: { click: () => to({ more: { offset: offset + PAGE } }) } }, "Next"));
  fill(body, h("div", { class: "card" }, form, chips.length ? h("ul", { class: "chips" }, chips) : null, h("div", { class: "line" }, order, turn, h("span", { class: "space" }), pages)),
    h("ul", { class: "thumbs wide" }, page.rows.map((row) => picture(place.name, row))));
}
