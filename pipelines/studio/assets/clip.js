// One clip: the film, its tracks under the film strip, every rule with its value and threshold, copies and neighbours.

import { get, media, part, proxy, query, still } from "./api.js";
import { breaking, colour, fill, h } from "./dom.js";
import { picture } from "./edge.js";
import { clock, file, number, words } from "./format.js";
import { address } from "./place.js";

const TRACK_HEIGHT = 92;
const FIRST = ["vmaf", "vector_length", "content", "blend_strength", "luma_mean"];

export async function clipPage(main, place) {
  const path = `/runs/${part(place.name)}/clips/${part(place.clip)}`;
  const story = await get(path);
  const { clip } = story;
  const film = h("section", { class: "card film", "aria-label": "Film" });
  const along = h("section", { class: "card along", "aria-labelledby": "along-title" }, h("h2", { id: "along-title" }, "Along the clip"), h("p", { class: "muted" }, "Reading …"));
  const copies = h("section", { class: "card", hidden: true });
  const near = h("section", { class: "card", hidden: true });
  fill(main, h("nav", { class: "crumbs", "aria-label": "Way back" }, h("a", { href: address({ room: "look", name: place.name }) }, place.name), " / ", h("a", { href: address({ room: "look", name: place.name, tab: "clips" }) }, "clips"), " / ", h("code", {}, clip.clip_id)),
    h("h1", {}, `${file(clip.uri)}, ${clock(clip.start_s)}–${clock(clip.end_s)}`),
    h("p", { class: "verdict" }, h("span", { class: clip.kept ? "tag more" : "tag less" }, clip.kept ? "kept" : "dropped"), clip.kept ? ` in ${(clip.sets ?? []).join(", ") || "no set"}` : ` by ${clip.rejected_by}: ${because(story)}`),
    h("div", { class: "clip-page" }, h("div", {}, film, along), h("div", {}, rules(story), facts(story))), copies, near);
  const video = clip.media ? h("video", { src: proxy(place.name, clip.clip_id), controls: true, loop: true, muted: true, playsinline: true, preload: "auto", "aria-label": "The clip" }) : null;
  fill(film, video ?? h("img", { src: still(place.name, clip.clip_id, 0), alt: "First still of the clip", on: { error: (event) => event.target.replaceWith(h("p", { class: "muted" }, "No picture of this clip is at hand.")) } }),
    video ? h("p", { class: "small muted" }, h("a", { href: media(place.name, clip.clip_id), target: "_blank" }, "the file as it was cut")) : h("p", { class: "small muted" }, "Only kept clips are cut; this is a still of the source."), clip.caption ? h("blockquote", {}, clip.caption) : null);
  const drawn = [];
  const [found] = await Promise.allSettled([get(`${path}/tracks`)]);
  if (found.status === "fulfilled") drawTracks(along, place.name, clip, found.value, video, drawn);
  else fill(along, h("h2", { id: "along-title" }, "Along the clip"), h("p", { class: "muted" }, found.reason.message));
  get(`${path}/near${query({ k: 12 })}`).then((answer) => list(near, "Near it", place.name, answer.near.map((row) => ({ ...row, value: row.cosine })))).catch(() => {});
  const group = clip.copy_group ?? null;
  if (group) get(`/runs/${part(place.name)}/clips${query({ where: `copy_group=${group}`, limit: 24 })}`).then((answer) => list(copies, "Copies, side by side", place.name, answer.rows.filter((row) => row.clip_id !== clip.clip_id))).catch(() => {});
  const themed = () => { for (const plot of drawn.splice(0)) plot.destroy(); if (found.status === "fulfilled") drawTracks(along, place.name, clip, found.value, video, drawn); };
  document.addEventListener("theme", themed);
  return () => { document.removeEventListener("theme", themed); for (const plot of drawn) plot.destroy(); video?.pause(); };
}

const because = (story) => {
  const failed = story.rules.find((rule) => rule.verdict === "fail" || rule.verdict === "not measured");
  return failed ? `${failed.value} (needs ${failed.needs})` : "";
};

function rules(story) {
  const marks = { pass: "✓", fail: "✗", "not measured": "?", "not reached": "·" };
  return h("section", { class: "card", "aria-labelledby": "rules-title" }, h("h2", { id: "rules-title" }, "Rules"), h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "All rules" }, h("table", { class: "rules" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "unseen" }, "verdict")), ["rule", "value", "needs"].map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, story.rules.map((rule) => h("tr", { class: rule.verdict.replace(" ", "-") },
      h("td", { title: rule.verdict }, h("span", { "aria-hidden": "true" }, marks[rule.verdict]), h("span", { class: "unseen" }, rule.verdict)), h("td", {}, breaking(rule.rule)), h("td", {}, rule.value), h("td", { class: "muted" }, breaking(rule.needs))))))));
}

function facts(story) {
  const rest = story.facts.filter((fact) => fact.name !== "caption");
  return h("section", { class: "card", "aria-labelledby": "facts-title" }, h("h2", { id: "facts-title" }, "Facts"), h("dl", {}, rest.map((fact) => [h("dt", {}, fact.name), h("dd", {}, fact.text)])));
}

function list(node, title, run, rows) {
  if (!rows.length) return;
  node.hidden = false;
  fill(node, h("h2", {}, title), h("ul", { class: "thumbs wide" }, rows.map((row) => picture(run, row))));
}

/** The film strip and a plot for each track; the cursor goes along all of them and the film follows a click. */
function drawTracks(node, run, clip, found, video, drawn) {
  const low = found.time_s[0], high = found.time_s[found.time_s.length - 1];
  const at = (seconds) => `${(100 * (seconds - low)) / (high - low)}%`;
  const strip = h("div", { class: "strip" }, found.stills.map((seconds, place) => h("img", { src: still(run, clip.clip_id, place), alt: "", loading: "lazy", style: { left: at(seconds) } })));
  const spans = h("div", { class: "spans", "aria-hidden": "true" }, found.clips.map((one) => h("i", { class: one.clip_id === clip.clip_id ? "this" : "", title: one.clip_id, style: { left: at(Math.max(one.start_s, low)), width: `calc(${at(Math.min(one.end_s, high))} - ${at(Math.max(one.start_s, low))})` } })));
  const shown = found.tracks.filter((track) => FIRST.includes(track.name) && track.values.some((value) => value !== null));
  const planes = shown.map(() => h("div", { class: "track" }));
  fill(node, h("h2", { id: "along-title" }, "Along the clip"), strip, spans, found.lanes.map((lane) => seen(lane, at)), shown.map((track, place) => [h("h3", { class: "small" }, track.label), planes[place]]),
    h("p", { class: "small muted" }, `Two seconds of the source before and after; the clip is ${number(clip.duration_s)} s. ${video ? "Click to go there." : ""}`));
  const font = "11px system-ui, sans-serif";
  shown.forEach((track, place) => {
    const plot = new uPlot({
      width: planes[place].clientWidth || 500, height: TRACK_HEIGHT, legend: { show: false }, padding: [4, 0, 0, 0], cursor: { sync: { key: "along" }, y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: { x: { time: false, range: [low, high] }, y: { range: (u, min, max) => [Math.min(0, min ?? 0), max > min ? max * 1.05 : 1] } },
      axes: [{ stroke: colour("muted"), font, size: 20, gap: 2, grid: { show: false }, ticks: { show: false }, values: (u, all) => all.map(clock) }, { show: false }],
      series: [{}, { stroke: colour("keep"), width: 1.25, points: { show: false }, spanGaps: true }],
      hooks: { drawClear: [(u) => shade(u, clip)] },
    }, [found.time_s, track.values.map((value) => value)], planes[place]);
    plot.over.addEventListener("click", () => { if (video) video.currentTime = Math.min(Math.max(plot.posToVal(plot.cursor.left, "x") - clip.start_s, 0), clip.duration_s); });
    drawn.push(plot);
  });
  if (video) follow(video, clip, drawn);
}

/** What was seen on stills, as a line of marks under the film strip; the more there is, the stronger the mark. */
function seen(lane, at) {
  const marks = lane.marks ?? [];
  const told = lane.marks === null ? "not looked for" : marks.length ? marks.map((one) => `${clock(one.start_s)}–${clock(one.end_s)}`).join(", ") : "none";
  return [h("h3", { class: "small line" }, lane.label, h("span", { class: "muted" }, told)),
    h("div", { class: "lane", "aria-hidden": "true" }, marks.map((one) => h("i", { title: number(one.value), style: { left: at(one.start_s), width: `calc(${at(one.end_s)} - ${at(one.start_s)})`, opacity: String(0.4 + 0.6 * Math.min(1, one.value)) } })))];
}

function shade(plot, clip) {
  const pen = plot.ctx, { top, height } = plot.bbox;
  const left = plot.valToPos(clip.start_s, "x", true), right = plot.valToPos(clip.end_s, "x", true);
  pen.fillStyle = colour("shade");
  pen.fillRect(left, top, right - left, height);
}

function follow(video, clip, drawn) {
  const step = () => {
    if (!video.isConnected) return;
    if (drawn[0]) { const left = drawn[0].valToPos(clip.start_s + video.currentTime, "x"); drawn[0].setCursor({ left, top: 10 }); }
    video.requestVideoFrameCallback?.(step);
  };
  video.requestVideoFrameCallback?.(step);
}
