// What a person decided is kept here until the service has it: in order, each with the id it was made with.

import { Away, post, Refused } from "./api.js";

const WAITS_S = [1, 2, 4, 8, 15];

export const newId = () => crypto.randomUUID?.() ?? [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** Sends entries {path, body} one after the other; survives a lost connection, a restart and a closed page. */
export class Outbox {
  /** sent(answer, entry) and refused(error, entry) are told what became of each; changed() whenever the length does. */
  constructor(name, { sent, refused, changed }) {
    Object.assign(this, { name: `outbox:${name}`, sent, refused, changed, sending: false, tries: 0, timer: 0, stopped: false });
    this.entries = JSON.parse(localStorage.getItem(this.name) ?? "[]");
    this.online = () => { clearTimeout(this.timer); this.tries = 0; this.send(); };
    addEventListener("online", this.online);
  }

  get length() { return this.entries.length; }

  add(path, body) {
    this.entries.push({ path, body });
    this.keep();
    this.send();
  }

  keep() {
    localStorage.setItem(this.name, JSON.stringify(this.entries));
    this.changed?.();
  }

  async send() {
    if (this.sending || this.stopped) return;
    this.sending = true;
    clearTimeout(this.timer);
    while (this.entries.length && !this.stopped) {
      const [entry] = this.entries;
      try {
        const answer = await post(entry.path, entry.body);
        this.tries = 0;
        this.entries.shift();
        this.keep();
        this.sent(answer, entry);
      } catch (error) {
        const later = error instanceof Away || (error instanceof Refused && [401, 429, 502, 503, 504].includes(error.status));
        if (later) {
          const wait = WAITS_S[Math.min(this.tries++, WAITS_S.length - 1)];
          this.timer = setTimeout(() => this.send(), 1000 * wait);
          this.changed?.(error);
          break;
        }
        this.entries.shift();
        this.keep();
        this.refused(error, entry);
      }
    }
    this.sending = false;
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    removeEventListener("online", this.online);
  }
}
