/** What the browser keeps for the page. Where that is switched off or full, nothing is kept and nothing fails. */

class Kept {
  #open;

  /** `open` gives the storage; to ask for one that is switched off throws. */
  constructor(open) {
    this.#open = open;
  }

  get(key) {
    try {
      return this.#open().getItem(key);
    } catch {
      return null;
    }
  }

  set(key, value) {
    try {
      this.#open().setItem(key, value);
    } catch {
      // it holds until the page is loaded anew
    }
  }

  delete(key) {
    try {
      this.#open().removeItem(key);
    } catch {
      // there is nothing
    }
  }
}

export const ofTab = new Kept(() => sessionStorage);
export const ofBrowser = new Kept(() => localStorage);
