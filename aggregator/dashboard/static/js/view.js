// The view is the URL: what is shown can be linked. No DOM here but the query string.

import { check, DEFAULT_RANGE, followsNow } from "./range.js";
import { parse, print } from "./selector.js";

// {range, matchers, search, zoom (number of a path, 0 = whole), picked (id of a function, 0 = none), live,
// layout: "icicle" | "flame"}
export function readView(queryString) {
  const params = new URLSearchParams(queryString);
  const problems = [];
  const attempt = (make, otherwise) => {
    try {
      return make();
    } catch (error) {
      problems.push(error.message);
      return otherwise;
    }
  };
  const range = attempt(() => {
    const asked = {
      from: params.get("from") ?? DEFAULT_RANGE.from,
      until: params.get("until") ?? DEFAULT_RANGE.until,
    };
    check(asked);
    return asked;
  }, DEFAULT_RANGE);
  return {
    range,
    matchers: attempt(() => parse(params.get("query") ?? ""), []),
    search: params.get("search") ?? "",
    zoom: parseInt(params.get("zoom") ?? "0", 16) || 0,
    picked: parseInt(params.get("function") ?? "0", 16) || 0,
    live: followsNow(range) && params.get("live") !== "0",
    layout: params.get("layout") === "flame" ? "flame" : "icicle",
    problems,
  };
}

export function writeView(view) {
  const params = new URLSearchParams();
  if (view.range.from !== DEFAULT_RANGE.from) params.set("from", view.range.from);
  if (!followsNow(view.range)) params.set("until", view.range.until);
  if (view.matchers.length) params.set("query", print(view.matchers));
  if (view.search) params.set("search", view.search);
  if (view.zoom) params.set("zoom", view.zoom.toString(16));
  if (view.picked) params.set("function", view.picked.toString(16));
  if (followsNow(view.range) && !view.live) params.set("live", "0");
  if (view.layout === "flame") params.set("layout", "flame");
  const text = params.toString();
  return text ? "?" + text : "";
}
