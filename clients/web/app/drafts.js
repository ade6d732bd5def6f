/** Texts that were begun and not sent. A reload keeps them; the end of the tab, or of the session, does not. */

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
    try {
      sessionStorage.setItem(KEY, JSON.stringify({ owner: this.#owner, texts: [...this.#texts] }));
    } catch {
      // switched off, or full: they are kept until the page is loaded anew
    }
  }
}

export function forgetDrafts() {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // switched off: there is nothing
  }
}

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY));
  } catch {
    return null;
  }
}
