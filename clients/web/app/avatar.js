/** Pictures of people: one of the built-in ones, one from an allowed origin, or their initial. */

import { h } from "./dom.js";

export const BUILT_IN = [
  "dawn", "tide", "dune", "fern", "plum", "ember", "lagoon", "night", "orchid", "slate", "sol", "duet",
];
const HUES = 8;
const BUILT_IN_PATH = new RegExp(`^/avatars/(${BUILT_IN.join("|")})\\.svg$`);

let imageOrigins = [];

/** Say from which other origins pictures may be shown. */
export function allowImages(origins) {
  imageOrigins = origins;
}

export const builtInUrl = (name) => new URL(`/avatars/${name}.svg`, location.origin).href;

/** The address a picture may be loaded from, or null: then nobody is asked for it. */
export function shownUrl(avatarUrl) {
  if (!avatarUrl || !URL.canParse(avatarUrl)) return null;
  const url = new URL(avatarUrl);
  const builtIn = BUILT_IN_PATH.exec(url.pathname);
  if (builtIn) return `/avatars/${builtIn[1]}.svg`; // whichever name this server goes by
  return url.origin === location.origin || imageOrigins.includes(url.origin) ? url.href : null;
}

/** The picture of somebody: `{name, key, avatarUrl, online}`; `key` picks the colour. */
export function avatar({ name, key, avatarUrl, online = false }, size = "") {
  const url = shownUrl(avatarUrl);
  const letter = h("span", { class: "avatar-letter" }, [...(name.trim() || "?")][0].toUpperCase());
  const face = h("span", { class: `avatar-face hue-${hueOf(key)}` }, letter);
  if (url) {
    const image = h("img", { src: url, alt: "", decoding: "async", referrerpolicy: "no-referrer" });
    image.addEventListener("load", () => face.classList.add("has-picture"));
    image.addEventListener("error", () => image.remove());
    face.append(image);
  }
  return h(
    "span",
    { class: `avatar ${size}`, aria: { hidden: "true" } },
    face,
    online && h("span", { class: "presence" }),
  );
}

function hueOf(key) {
  let hash = 7;
  for (const character of key ?? "") hash = (hash * 31 + character.codePointAt(0)) % 9973;
  return hash % HUES;
}
