// Elements are made here and nowhere else: text is always text, never markup.

const SVG = new Set(["svg", "path", "line", "rect", "circle", "g", "text"]);

/** An element. props: class, on (listeners by name), style (custom properties too), dataset, or attributes. */
export function h(tag, props = {}, ...children) {
  const node = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else if (name === "dataset") Object.assign(node.dataset, value);
    else if (name === "value" || name === "checked" || name === "muted" || name === "disabled") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A name that may be broken after its underscores and dots, not within a number. */
export const breaking = (name) => name.split(/(?<=_|\.(?=\D))/).flatMap((part) => [part, h("wbr")]);

/** Replace what an element holds. */
export function fill(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

let quiet = 0;
/** Tell the person something, also to who listens; errors stay longer. */
export function say(sentence, kind = "") {
  const said = document.getElementById("said");
  said.textContent = sentence;
  said.className = sentence ? `shown ${kind}` : "";
  clearTimeout(quiet);
  if (sentence) quiet = setTimeout(() => say(""), kind === "error" ? 12000 : 5000);
}

/** A colour of the theme, as the canvas needs it. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
