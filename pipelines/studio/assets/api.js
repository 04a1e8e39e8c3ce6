// The service's answers. An error is a sentence; who is not let in is asked for a token.

const API = "/api/v1";

export class Refused extends Error {
  constructor(status, sentence, code) {
    super(sentence);
    this.status = status;
    this.code = code;
  }
}

/** No answer came at all: the connection, not the service, said no. */
export class Away extends Error {}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(API + path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Away("The service does not answer; what you do is kept and sent when it does.");
  }
  if (answer.status === 204) return null;
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  if (answer.status === 401) document.dispatchEvent(new CustomEvent("signin"));
  throw new Refused(answer.status, body.detail ?? `The service answered ${answer.status}.`, body.code);
}

export const get = (path, signal) => ask(path, { signal });

export const post = (path, body, more = {}) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json", ...more.headers }, body: JSON.stringify(body), ...more.options });

export const part = encodeURIComponent;

/** A query string of names with one or many values. */
export function query(fields) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== null && one !== undefined) found.append(name, one);
  }
  const text = found.toString();
  return text ? `?${text}` : "";
}

/** What is there of a run's columns, which the service begins to read. */
export const firstLook = (run, focus) => get(`/runs/${part(run)}/board${query({ soon: true, focus })}`);

export const thumb = (run, clip) => `${API}/runs/${part(run)}/clips/${part(clip)}/thumb`;
export const still = (run, clip, at) => `${API}/runs/${part(run)}/clips/${part(clip)}/stills/${at}`;
/** A clip to look at: a small copy where it is large. */
export const proxy = (run, clip) => `${API}/runs/${part(run)}/clips/${part(clip)}/proxy`;
export const media = (run, clip) => `${API}/runs/${part(run)}/clips/${part(clip)}/media`;
