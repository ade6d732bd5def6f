/** Texts that were begun and not sent. A reload keeps them; the end of the tab, or of the session, does not. */

import { ofTab } from "./storage.js";

const KEY = "duet-drafts";

export class Drafts {
  #owner;
  #texts;

  /** Those of the user with this id, as this tab has kept them. */
  constructor(owner) {
    this.#owner = owner;
    const kept = read();
    this.#texts = new Map(kept?.owner === owner ? kept.texts : []);
    if (kept?.owner !== owner) forgetDrafts();
  }

  of(peerId) {
    return this.#texts.get(peerId) ?? "";
  }

  keep(peerId, text) {
    if (text === "") this.#texts.delete(peerId);
    else this.#texts.set(peerId, text);
    ofTab.set(KEY, JSON.stringify({ owner: this.#owner, texts: [...this.#texts] }));
  }
}

export function forgetDrafts() {
  ofTab.delete(KEY);
}

function read() {
  try {
    return JSON.parse(ofTab.get(KEY));
  } catch {
    return null;
  }
}
