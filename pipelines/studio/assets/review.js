import { fill, h } from "./dom.js";

export async function show(main) {
  fill(main, h("h1", {}, "Review"), h("p", {}, "No queue yet."));
}
