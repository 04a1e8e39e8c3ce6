// Concepts: a map of clips as points with the concepts' pictures and words, and the same as a list.

import { get, part, thumb } from "./api.js";
import { colour, fill, h } from "./dom.js";
import { count, share } from "./format.js";
import { address, go } from "./place.js";

const PICTURES = 60; // concepts drawn as pictures on the map, the largest; the others are dots
const CLOSE = 0.09; // pictures nearer to each other than this share of the map become dots

export async function conceptsTab(body, place) {
  const { concepts, points } = await get(`/runs/${part(place.name)}/concepts`);
  const sized = concepts.filter((one) => one.measured > 0);
  const themed = [];
  if (!sized.length) return void fill(body, h("p", {}, "This run was not compared: it has no concepts."));
  fill(body, h("section", { class: "card" }, h("h2", {}, "Map"), h("p", { class: "small muted" }, "Near each other means alike; the size of a disc is the number of clips of a concept. Directions have no meaning of their own."), map(place.name, sized, points, themed),
      points.length ? h("p", { class: "line small" }, h("span", { class: "key keep" }, "a clip that is kept"), h("span", { class: "key drop" }, "one that is not"), h("span", { class: "muted" }, `${count(points.length)} clips are drawn; click one to see it.`)) : null),
    h("section", { class: "card" }, h("h2", {}, `${count(sized.length)} concepts`), h("ul", { class: "concepts" }, sized.slice(0, 200).map((one) => line(place.name, one, sized[0])))));
  const again = () => { for (const paint of themed) paint(); };
  document.addEventListener("theme", again);
  return () => document.removeEventListener("theme", again);
}

const FEW = 500; // points that are drawn larger
const CLICKED = 12; // px within which a click finds a point
const spot = (at) => at.map((value) => 0.5 + 0.42 * value); // of the map's width and, from below, its height

/** Some thousands of points on a canvas: drawn in a few milliseconds, so that no library of WebGL is needed. */
function dots(run, points, themed) {
  const canvas = h("canvas", { class: "dots", role: "img", "aria-label": `${points.length} clips as points` });
  const paint = () => {
    const { clientWidth: wide, clientHeight: high } = canvas;
    if (!wide) return;
    canvas.width = wide * devicePixelRatio;
    canvas.height = high * devicePixelRatio;
    const pen = canvas.getContext("2d");
    pen.scale(devicePixelRatio, devicePixelRatio);
    pen.globalAlpha = points.length > FEW ? 0.55 : 0.85;
    const size = points.length > FEW ? 3 : 6;
    for (const kept of [false, true]) {
      pen.fillStyle = colour(kept ? "keep" : "drop");
      for (const point of points) {
        if (point.kept !== kept) continue;
        const [x, y] = spot(point.at);
        pen.fillRect(x * wide - size / 2, (1 - y) * high - size / 2, size, size);
      }
    }
  };
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    const away = (point) => { const [x, y] = spot(point.at); return Math.hypot(box.left + x * box.width - event.clientX, box.top + (1 - y) * box.height - event.clientY); };
    const nearest = points.reduce((best, point) => (away(point) < away(best) ? point : best), points[0]);
    if (nearest && away(nearest) < CLICKED) go(address({ room: "look", name: run, clip: nearest.clip_id }));
  });
  new ResizeObserver(paint).observe(canvas);
  themed.push(paint);
  return canvas;
}

function map(run, concepts, points, themed) {
  const placed = concepts.filter((one) => one.at);
  const largest = Math.max(...placed.map((one) => one.measured), 1);
  const taken = [];
  return h("div", { class: "map" }, dots(run, points, themed), placed.map((one, at) => {
    const [x, y] = spot(one.at);
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
