// Two signals together: counts on a grid that the service makes, however many clips there are.

import { get, part, query } from "./api.js";
import { colour, fill, h } from "./dom.js";
import { count, number, words } from "./format.js";
import { address, go, setsOf } from "./place.js";

const SIZE = 100;

export async function scatterTab(body, place) {
  const path = `/runs/${part(place.name)}`;
  const board = await get(`${path}/board${query({ set: setsOf(place.moves) })}`);
  const columns = Object.keys(board.charts).filter((column) => board.charts[column].all.some((n) => n));
  const x = columns.includes(place.fields.get("x")) ? place.fields.get("x") : columns.includes("vmaf_motion") ? "vmaf_motion" : columns[0];
  const y = columns.includes(place.fields.get("y")) ? place.fields.get("y") : columns.includes("mv_mean") ? "mv_mean" : columns[1] ?? columns[0];
  const found = await get(`${path}/scatter${query({ x, y, set: setsOf(place.moves) })}`);
  const chooser = (name, label, now) => h("label", { class: "chooser" }, h("span", {}, label), h("select", { on: { change: (event) => go({ ...place, tab: "signals", more: { x, y, [name]: event.target.value } }) } },
    columns.map((column) => h("option", { value: column, selected: column === now }, words(column)))));
  const canvas = h("canvas", { width: SIZE * 6, height: SIZE * 6, role: "img", "aria-label": `Clips by ${words(x)} and ${words(y)}` });
  const told = h("p", { class: "small", "aria-live": "polite" }, "Point at the picture to count; click to see the clips.");
  const cell = (event) => {
    const box = canvas.getBoundingClientRect();
    return [Math.min(SIZE - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * SIZE))), Math.min(SIZE - 1, Math.max(0, Math.floor((1 - (event.clientY - box.top) / box.height) * SIZE)))];
  };
  const span = (edges, at, by = 2) => [edges[Math.max(0, at - by)], edges[Math.min(SIZE, at + by + 1)]];
  const sum = (grid, i, j) => { let n = 0; for (let b = j - 2; b <= j + 2; b++) for (let a = i - 2; a <= i + 2; a++) n += grid[b]?.[a] ?? 0; return n; };
  canvas.addEventListener("pointermove", (event) => {
    const [i, j] = cell(event), [x0, x1] = span(found.x.edges, i), [y0, y1] = span(found.y.edges, j);
    told.textContent = `${words(x)} ${number(x0)}–${number(x1)}, ${words(y)} ${number(y0)}–${number(y1)}: ${count(sum(found.all, i, j))} clips, ${count(sum(found.inside, i, j))} pass`;
  });
  canvas.addEventListener("click", (event) => {
    const [i, j] = cell(event), [x0, x1] = span(found.x.edges, i), [y0, y1] = span(found.y.edges, j);
    go(address({ room: "look", name: place.name, tab: "clips", where: [`${x}>=${x0}`, `${x}<=${x1}`, `${y}>=${y0}`, `${y}<=${y1}`] }));
  });
  const draw = () => paint(canvas, found);
  draw();
  document.addEventListener("theme", draw);
  const scale = (edges) => [edges[0], edges[SIZE]].map((end) => number(Math.abs(end) < (edges[SIZE] - edges[0]) / 1000 ? 0 : end));
  fill(body, h("section", { class: "card two" }, h("div", { class: "line" }, chooser("x", "Across", x), chooser("y", "Up", y)),
    h("div", { class: "axes" }, h("div", { class: "up small muted" }, scale(found.y.edges).reverse().map((text) => h("span", {}, text))), canvas, h("div", { class: "across small muted" }, scale(found.x.edges).map((text) => h("span", {}, text)))),
    h("p", { class: "line small" }, h("span", { class: "key keep" }, "passes every rule"), h("span", { class: "key drop" }, "fails one or more"), h("span", { class: "key line-key" }, "threshold")), told));
  return () => document.removeEventListener("theme", draw);
}

function paint(canvas, found) {
  const pen = canvas.getContext("2d");
  const side = canvas.width / SIZE;
  const most = Math.log1p(Math.max(...found.all.map((row) => Math.max(...row)), 1));
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const [keep, drop] = [colour("keep"), colour("drop")];
  found.all.forEach((row, j) => row.forEach((n, i) => {
    if (!n) return;
    const inside = found.inside[j][i];
    const strength = 0.2 + (0.8 * Math.log1p(n)) / most;
    pen.globalAlpha = strength;
    pen.fillStyle = drop;
    pen.fillRect(i * side, canvas.height - (j + 1) * side, side, side);
    pen.globalAlpha = inside / n;
    pen.fillStyle = keep;
    pen.fillRect(i * side, canvas.height - (j + 1) * side, side, side);
  }));
  pen.globalAlpha = 1;
  pen.strokeStyle = colour("ink");
  pen.lineWidth = 2;
  pen.setLineDash([8, 6]);
  for (const line of found.thresholds) {
    const axis = line.column === found.x.column ? found.x : found.y;
    const [low, high] = [axis.edges[0], axis.edges[SIZE]];
    const at = ((line.value - low) / (high - low)) * canvas.width;
    if (at < 0 || at > canvas.width) continue;
    pen.beginPath();
    if (axis === found.x) { pen.moveTo(at, 0); pen.lineTo(at, canvas.height); } else { pen.moveTo(0, canvas.height - at); pen.lineTo(canvas.width, canvas.height - at); }
    pen.stroke();
  }
}
