import { fill, h } from "./dom.js";

export async function show(main) {
  fill(main, h("h1", {}, "Compare"), h("p", {}, "No comparison yet."));
}
