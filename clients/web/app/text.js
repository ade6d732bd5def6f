/** Texts of people as nodes: links can be followed, matches are marked, nothing is ever HTML. */

import { h } from "./dom.js";

/** Without controls of direction: with one, a link would look like another. */
const LINK = /\bhttps?:\/\/[^\s<>"'«»\p{Bidi_Control}]+/giu;
const EMOJI_ONLY = /^(?:\p{Extended_Pictographic}(?:\uFE0F|\u200D\p{Extended_Pictographic}|\p{Emoji_Modifier})*\s?){1,3}$/u;

/** The nodes of a message's text. */
export function linked(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(LINK)) {
    const url = withoutTail(match[0]);
    if (!URL.canParse(url)) continue;
    nodes.push(text.slice(end, match.index));
    nodes.push(h("a", { href: url, dir: "ltr", target: "_blank", rel: "noopener noreferrer nofollow", data: { control: `link ${match.index}` } }, url));
    end = match.index + url.length;
  }
  nodes.push(text.slice(end));
  return nodes;
}

/** Leave out the punctuation that belongs to the sentence: a bracket stays if it was opened. */
function withoutTail(url) {
  let kept = url;
  while (/[.,;:!?)\]}]$/u.test(kept)) {
    const opener = { ")": "(", "]": "[", "}": "{" }[kept.at(-1)];
    if (opener && kept.split(opener).length >= kept.split(kept.at(-1)).length) break;
    kept = kept.slice(0, -1);
  }
  return kept;
}

/** The nodes of a search result's snippet: what stands between « and » matched. */
export function marked(snippet) {
  return snippet.split(/«([^»]*)»/).map((part, i) => (i % 2 === 1 ? h("mark", {}, part) : part));
}

/** Whether a text is nothing but up to three emoji. */
export const isEmojiOnly = (text) => text.length <= 40 && EMOJI_ONLY.test(text);

/** One line of a text, for previews. */
export const oneLine = (text) => text.slice(0, 160).replace(/\s+/g, " ").trim();

/** How many characters the server counts. */
export const characters = (text) => [...text].length;
