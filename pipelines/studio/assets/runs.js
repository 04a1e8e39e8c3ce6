// The list of runs, and two runs beside each other.

import { get, part } from "./api.js";
import { fill, h } from "./dom.js";
import { count, hours, share, words } from "./format.js";
import { address, go } from "./place.js";

export async function chooseRun(main, { runs }, room = "look") {
  const list = h("ul", { class: "runs" });
  fill(main, h("h1", {}, "Runs"), runs.length ? list : h("p", {}, "No run is published in this folder; ", h("code", {}, "rushes curate … --output"), " makes one."));
  list.append(...runs.map((name) => {
    const facts = h("span", { class: "muted small" });
    get(`/runs/${part(name)}`).then((run) => {
      facts.textContent = `${count(run.tables.clips)} clips of ${count(run.tables.sources)} sources · ${run.recipe?.name ?? "no recipe"} · ${(run.created ?? "").slice(0, 16).replace("T", " ")}`;
    }).catch((error) => { facts.textContent = error.message; });
    return h("li", {}, h("a", { class: "card", href: address({ room, name }) }, h("b", {}, name), facts));
  }));
}

export async function twoRuns(body, place, { runs }) {
  const other = place.fields.get("with") ?? runs.find((name) => name !== place.name) ?? place.name;
  const found = await Promise.all([place.name, other].map((name) => get(`/runs/${part(name)}/funnel`)));
  const chooser = h("label", { class: "chooser" }, h("span", {}, "Beside"), h("select", { on: { change: (event) => go({ ...place, tab: "runs", more: { with: event.target.value } }) } },
    runs.map((name) => h("option", { value: name, selected: name === other }, name))));
  const keys = [...new Set(found.flatMap((funnel) => funnel.clips.map((row) => row.rule)))];
  const rows = keys.map((key) => {
    const pair = found.map((funnel) => funnel.clips.find((row) => row.rule === key));
    return h("tr", {}, h("th", { scope: "row" }, words(key)), pair.map((row) => row
      ? [h("td", { class: "small muted" }, row.needs), h("td", { class: "less num" }, row.rejected ? `−${count(row.rejected)}` : ""),
        h("td", { class: "bar" }, h("i", { style: { width: `${100 * (row.share ?? 0)}%` } }), h("b", {}, count(row.remaining)))]
      : [h("td", { class: "muted" }, "–"), h("td"), h("td")]));
  });
  const sets = [...new Set(found.flatMap((funnel) => Object.keys(funnel.sets)))].map((name) =>
    h("tr", {}, h("th", { scope: "row" }, name), found.map(({ sets: { [name]: set } }) => set
      ? [h("td", { class: "num" }, count(set.clips)), h("td", {}, hours(set.seconds)), h("td", { class: "small muted" }, `${share(set.orientation.landscape ?? 0)} landscape`)]
      : [h("td", { class: "muted" }, "–"), h("td"), h("td")])));
  const heads = () => [place.name, other].map((name) => h("th", { colspan: 3, scope: "colgroup" }, name));
  fill(body, chooser,
    h("div", { class: "card scroll", tabindex: 0, role: "region", "aria-label": "Funnels side by side" },
      h("table", {}, h("caption", {}, "Funnel: what each rule asks, rejects and leaves"), h("thead", {}, h("tr", {}, h("td"), heads())), h("tbody", {}, rows)),
      h("table", {}, h("caption", {}, "Sets"), h("thead", {}, h("tr", {}, h("td"), heads())), h("tbody", {}, sets))));
}
