// A clip on the screen by its frames: every position is the number of a frame, a second only where the player needs one.

import { get } from "./api.js";
import { h } from "./dom.js";

const STUCK_MS = 1200; // a seek that takes longer is asked again: browsers lose one now and then
const RATES = [0.25, 0.5, 1, 2, 4];

/** A cut clip that is loaded before it is needed; `broken(sentence)` is told where it does not come. `frame` is the one that is shown, or that is sought: pictures from before
 *  a seek still arrive after it, and do not count (`target`). */
export class Film {
  /** media: its address. frames: that of its frames' times. begin: the frame that is shown first. */
  constructor(media, frames, begin = 0, stop = null) {
    Object.assign(this, { frame: begin, begin, stop, target: null, sought: null, wanted: null, underWay: null, watchdog: 0, rate: 1, times: null, end: 0, listeners: new Set(), shown: false });
    this.video = h("video", { src: media, muted: true, playsinline: true, preload: "auto", tabindex: -1, "aria-label": "The clip" });
    this.ready = get(frames).then((found) => {
      this.times = found.times_s;
      this.end = found.end_s;
      this.stop ??= this.count;
      this.goTo(this.middle(Math.min(begin, this.count - 1)));
    });
    this.watch = (now, shown) => {
      const at = this.times ? this.at(shown.mediaTime) : 0;
      const still = this.video.paused && this.sought !== null;
      if (this.times && (still ? at === this.sought : this.target === null || this.target === at)) {
        this.target = null;
        this.frame = at;
        if (!this.video.paused && (this.frame >= this.stop - 1 || this.frame < this.begin)) this.turn();
      }
      for (const listener of this.listeners) listener(this.frame, now);
      this.video.requestVideoFrameCallback(this.watch);
    };
    this.video.requestVideoFrameCallback(this.watch);
    this.video.addEventListener("error", () => { if (this.video.hasAttribute("src")) this.broken?.("The film of this clip cannot be played."); });
    this.video.addEventListener("seeked", () => this.arrived());
    this.video.addEventListener("ended", () => { this.turn(); this.video.play().catch(() => {}); }); // who pauses meanwhile may
  }

  get count() { return this.times.length; }

  /** The frame that is shown at a time of the file. */
  at(seconds) {
    let low = 0, high = this.times.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.times[middle] <= seconds + 1e-4) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** The time in the middle of a frame: a seek there cannot land beside it. */
  middle(frame) { return (this.times[frame] + (this.times[frame + 1] ?? this.end)) / 2; }

  /** Back to the in point: the span that would be taken is played over and over. */
  turn() { this.goTo(this.middle(this.begin)); }

  /** One seek is under way at a time; of those asked meanwhile the last one follows. */
  goTo(seconds) {
    this.wanted = seconds;
    if (!this.underWay) this.leave();
  }

  leave() {
    this.underWay = this.wanted;
    this.wanted = null;
    this.video.currentTime = this.underWay;
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => this.again(), STUCK_MS);
  }

  arrived() {
    clearTimeout(this.watchdog);
    this.underWay = null;
    if (this.wanted !== null) return this.leave();
    if (!this.video.paused) { this.target = null; return; }
    const { target } = this; // a picture that was shown already is not told again: the seek's end is as good
    requestAnimationFrame(() => requestAnimationFrame(() => { if (this.target === target && this.underWay === null) this.settle(); }));
  }

  settle() {
    this.target = null;
    for (const listener of this.listeners) listener(this.frame, performance.now());
  }

  again() {
    const playing = !this.video.paused;
    this.wanted ??= this.underWay;
    this.video.load();
    this.leave();
    if (playing) this.play();
  }

  /** The same frames from another address: the clip itself in place of its small copy. */
  swap(media) {
    const playing = !this.video.paused;
    this.video.src = media;
    this.underWay = null;
    this.seek(this.frame);
    if (playing) this.play();
  }

  seek(frame) {
    if (!this.times) return;
    this.frame = this.target = this.sought = Math.max(0, Math.min(this.count - 1, frame));
    this.goTo(this.middle(this.frame));
    for (const listener of this.listeners) listener(this.frame, performance.now());
  }

  step(by) {
    this.video.pause();
    this.seek(this.frame + by);
  }

  async play() {
    this.sought = null;
    if (!this.underWay) this.target = null;
    try { await this.video.play(); } catch (error) { if (!["AbortError", "NotAllowedError", "NotSupportedError"].includes(error.name)) throw error; }
  }

  toggle() { if (this.video.paused) this.play(); else this.video.pause(); }

  faster(by) {
    this.rate = RATES[Math.max(0, Math.min(RATES.length - 1, RATES.indexOf(this.rate) + by))];
    this.video.playbackRate = this.rate;
    return this.rate;
  }

  drop() {
    this.listeners.clear();
    clearTimeout(this.watchdog);
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
    this.video.remove();
  }
}

/** Frames at which the picture changes as it does at a cut, from the track of change: far above what is usual here. */
export function cuts(tracks, times) {
  const track = tracks.tracks.find((one) => one.name === "content");
  if (!track) return [];
  const inside = tracks.time_s.map((t, at) => [t - tracks.start_s, track.values[at]]).filter(([t, value]) => value !== null && t > 0.05 && t < tracks.end_s - tracks.start_s - 0.05);
  const sorted = inside.map(([, value]) => value).sort((a, b) => a - b);
  const usual = sorted[sorted.length >> 1] ?? 0;
  const found = inside.filter(([, value], at) => value > Math.max(3 * usual, 10) && value >= (inside[at - 1]?.[1] ?? 0) && value >= (inside[at + 1]?.[1] ?? 0));
  return found.map(([t]) => times.findIndex((time) => time >= t - 1e-3)).filter((frame) => frame > 0);
}
