// Where the reader is: everything that a colleague needs to see the same stands in the address.

export const ROOMS = ["look", "review", "compare"];

/** The address as {room, name, clip, tab, moves: {key: value}, where: [], fields}. */
export function read(at = location) {
  const [room = "look", name, clip] = at.pathname.split("/").filter(Boolean).map(decodeURIComponent);
  const fields = new URLSearchParams(at.search);
  const moves = {};
  for (const one of fields.getAll("set")) {
    const cut = one.indexOf("=");
    const text = one.slice(cut + 1);
    if (cut > 0) moves[one.slice(0, cut)] = text === "null" ? null : Number(text);
  }
  return { room: ROOMS.includes(room) ? room : "look", name, clip, tab: fields.get("tab"), moves, where: fields.getAll("where"), fields };
}

/** `set` words of moved thresholds, as the service takes them. */
export const setsOf = (moves) => Object.entries(moves).map(([key, value]) => `${key}=${value === null ? "null" : value}`);

/** The address of a place; what is null is left out. */
export function address({ room, name, clip, tab, moves = {}, where = [], more = {} }) {
  const fields = new URLSearchParams();
  if (tab) fields.set("tab", tab);
  for (const one of setsOf(moves)) fields.append("set", one);
  for (const one of where) fields.append("where", one);
  for (const [key, value] of Object.entries(more)) if (value !== null && value !== undefined && value !== "") fields.set(key, value);
  const path = [room, name, clip].filter(Boolean).map(encodeURIComponent).join("/");
  const text = fields.toString();
  return `/${path}${text ? `?${text}` : ""}`;
}

/** Go there; replace: the same page, so that "back" does not walk through every step of a handle. */
export function go(to, replace = false) {
  const url = typeof to === "string" ? to : address(to);
  history[replace ? "replaceState" : "pushState"](null, "", url);
  document.dispatchEvent(new CustomEvent("place", { detail: { replace } }));
}

/** Note the place without drawing anything anew. */
export const note = (to) => history.replaceState(null, "", address(to));
