// Concepts: a map of their centres with pictures and words, and the same as a list.

import { get, part, thumb } from "./api.js";
import { fill, h } from "./dom.js";
import { count, share } from "./format.js";
import { address } from "./place.js";

const PICTURES = 60; // concepts drawn as pictures on the map, the largest; the others are dots
const CLOSE = 0.09; // pictures nearer to each other than this share of the map become dots

export async function conceptsTab(body, place) {
  const { concepts } = await get(`/runs/${part(place.name)}/concepts`);
  const sized = concepts.filter((one) => one.measured > 0);
  if (!sized.length) return void fill(body, h("p", {}, "This run was not compared: it has no concepts."));
  fill(body, h("section", { class: "card" }, h("h2", {}, "Map"), h("p", { class: "small muted" }, "Near each other means alike; the size of a dot is the number of clips. Directions have no meaning of their own."), map(place.name, sized)),
    h("section", { class: "card" }, h("h2", {}, `${count(sized.length)} concepts`), h("ul", { class: "concepts" }, sized.slice(0, 200).map((one) => line(place.name, one, sized[0])))));
}

function map(run, concepts) {
  const placed = concepts.filter((one) => one.at);
  const largest = Math.max(...placed.map((one) => one.measured), 1);
  const taken = [];
  return h("div", { class: "map" }, placed.map((one, at) => {
    const [x, y] = one.at.map((value) => 0.5 + 0.42 * value);
    const free = at < PICTURES && one.example && taken.every(([a, b]) => Math.hypot(a - x, (b - y) * 0.6) > CLOSE);
    if (free) taken.push([x, y]);
    const name = one.seen || one.words || `concept ${one.cluster_id}`;
    const size = 8 + 20 * Math.sqrt(one.measured / largest);
    return h("a", { class: free ? "pin picture" : "pin", href: concept(run, one), title: `${name}: ${count(one.measured)} clips`, "aria-label": `${name}, ${count(one.measured)} clips`,
      style: { left: `${100 * x}%`, top: `${100 * (1 - y)}%`, "--size": `${size}px` } },
      free ? [h("img", { src: thumb(run, one.example), alt: "", loading: "lazy" }), h("span", {}, name)] : null);
  }));
}

function line(run, one, most) {
  const image = one.example ? h("img", { src: thumb(run, one.example), alt: "", loading: "lazy", width: 96, height: 54, on: { error: (event) => event.target.classList.add("none") } }) : h("i", { class: "none" });
  return h("li", {}, h("a", { href: concept(run, one) }, image, h("div", {}, h("b", {}, one.seen || one.words || `concept ${one.cluster_id}`),
    h("div", { class: "line small muted" }, `${count(one.measured)} clips, ${count(one.clips)} pass, ${count(one.sampled)} kept (${share(one.sampled, one.measured)})`),
    h("div", { class: "meter" }, h("i", { class: "all", style: { width: `${(100 * one.measured) / Math.max(most.measured, 1)}%` } }), h("i", { class: "kept", style: { width: `${(100 * one.sampled) / Math.max(most.measured, 1)}%` } })))));
}

const concept = (run, one) => address({ room: "look", name: run, tab: "clips", where: [`cluster_id=${one.cluster_id}`] });
