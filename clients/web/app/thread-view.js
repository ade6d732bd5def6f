/** One conversation on the screen: a window of rows over as many messages as there are. */

import { h, icon, onceAFrame, reconcile } from "./dom.js";
import { ThreadRows } from "./thread-rows.js";

const MAX_ROWS = 160;
const STEP = 50;
const FIRST_ROWS = 70;
const NEAR_PX = 700;
const STUCK_PX = 60;
export class ThreadView {
  #model;
  #on;
  #rows;
  #conversation = null;
  #from = 0;
  #to = 0;
  #isStuck = true;
  #height = 0;
  #unreadFrom = null;
  #target = null;
  #shownKeys = new Set();
  #settling = false;
  #isReloading = false;

  /** `on` has `openMenu(row, message)`, `retry(entry)`, `discard(entry)`, and `drawn()`. */
  constructor(model, on) {
    this.#model = model;
    this.#on = on;
    this.#rows = new ThreadRows(model, on);
    this.update = onceAFrame(() => this.#render());
    this.#list = h("ol", { class: "rows" });
    this.element = h(
      "div",
      { class: "thread-scroll", tabindex: 0, role: "region", aria: { label: "Messages" }, onkeydown: (event) => this.#pressed(event) },
      this.#list,
    );
    this.#jump = h(
      "button",
      { type: "button", class: "jump", hidden: true, onclick: () => this.showEnd() },
      icon("down"),
      (this.#jumpCount = h("span", { class: "badge", hidden: true })),
      h("span", { class: "visually-hidden" }, "Go to the latest message"),
    );
    this.element.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#resized()).observe(this.element);
    model.addEventListener("thread", ({ detail }) => {
      if (detail === this.#conversation) this.update();
      else detail.thread.keepNear(detail.thread.hi, detail.thread.hi);
    });
    model.addEventListener("own", this.update);
    document.addEventListener("visibilitychange", () => this.#markRead());
    addEventListener("focus", () => this.#markRead());
  }

  #list;
  #jump;
  #jumpCount;

  get jumpButton() {
    return this.#jump;
  }

  /** Show a conversation at its end, or around the message at `seq`. */
  async open(conversation, seq = null) {
    this.#conversation = conversation;
    this.#clear();
    this.#showUnread();
    this.#isStuck = seq === null;
    this.#from = this.#to = 0;
    this.element.setAttribute("aria-label", `Messages with ${conversation.name}`);
    this.element.classList.toggle("is-loading", !conversation.thread.isLoaded);
    const { thread } = conversation;
    if (seq === null) {
      await this.#model.loadEnd(conversation);
      if (this.#conversation === conversation) this.#placeAtEnd();
    } else {
      if (!thread.isLoaded || seq < thread.lo || seq > thread.hi) await this.#model.loadAround(conversation, seq);
      if (this.#conversation === conversation) this.#placeAround(seq);
    }
  }

  close() {
    this.#conversation = null;
    this.#clear();
  }

  /** The server has another past than we thought: load it where one reads. What both have keeps its rows. */
  async reload() {
    const conversation = this.#conversation;
    if (!conversation) return;
    const { thread } = conversation;
    const seq = this.#isStuck ? null : this.#anchor()?.seq;
    this.#showUnread();
    this.#isReloading = true;
    try {
      if (!seq) await this.#model.loadEnd(conversation);
      else if (!thread.isLoaded) await this.#model.loadAround(conversation, seq);
    } finally {
      this.#isReloading = false;
      this.update();
    }
    if (this.#conversation !== conversation) return;
    if (!seq || seq > thread.hi) return this.#placeAtEnd();
    this.#from = Math.max(thread.lo, this.#from);
    this.#to = Math.min(thread.hi, this.#to);
    this.#render();
  }

  async showEnd() {
    const conversation = this.#conversation;
    if (!conversation.thread.atEnd) await this.#model.loadEnd(conversation, { anew: true });
    this.#isStuck = true;
    this.#placeAtEnd();
  }

  /** The last own message that can still be edited. */
  lastOwn() {
    return this.#conversation?.thread.messages.findLast(
      (message) => message.from === this.#model.ownId && !message.deleted,
    );
  }

  #showUnread() {
    const { unread, read } = this.#conversation;
    this.#unreadFrom = unread > 0 ? read : null;
  }

  #placeAtEnd() {
    const { thread } = this.#conversation;
    this.#to = thread.hi;
    this.#from = Math.max(thread.lo, thread.hi - FIRST_ROWS + 1);
    this.#isStuck = true;
    this.#render();
  }

  #placeAround(seq) {
    const { thread } = this.#conversation;
    this.#from = Math.max(thread.lo, seq - STEP);
    this.#to = Math.min(thread.hi, seq + STEP);
    this.#target = seq;
    this.#isStuck = false;
    this.#render();
    const row = this.#list.querySelector(`[data-seq="${seq}"]`);
    row?.scrollIntoView({ block: "center" });
    row?.focus({ preventScroll: true });
    row?.classList.add("is-target");
    this.#target = null;
    this.#scrolled();
  }

  #pressed(event) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const row = document.activeElement?.closest?.(".row");
    if (step && row) {
      let next = row;
      do next = step < 0 ? next.previousElementSibling : next.nextElementSibling;
      while (next && !next.classList.contains("row"));
      if (!next) return;
      event.preventDefault();
      next.focus({ preventScroll: true });
      next.scrollIntoView({ block: "nearest" });
    } else if (event.key === "ArrowUp" && event.target === this.element) {
      event.preventDefault();
      [...this.#list.querySelectorAll(".row")].at(-1)?.focus();
    } else if ((event.key === "Enter" || event.key === "ContextMenu") && event.target === row) {
      event.preventDefault();
      row.querySelector(".row-menu")?.click();
    }
  }

  /* ---- The window ---- */

  #resized() {
    this.#height = this.element.clientHeight;
    if (this.#isStuck) this.#toBottom();
    else this.#scrolled();
  }

  #scrolled() {
    if (!this.#conversation?.thread.isLoaded || this.#settling) return;
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    if (clientHeight !== this.#height) return; // the composer grew: `#resized` is next
    const below = scrollHeight - scrollTop - clientHeight;
    const { thread } = this.#conversation;
    this.#isStuck = below < STUCK_PX && thread.atEnd && this.#to === thread.hi;
    if (scrollTop < NEAR_PX) this.#growUp(thread);
    else if (below < NEAR_PX) this.#growDown(thread);
    this.#showJump();
    this.#markRead();
  }

  #growUp(thread) {
    if (this.#from > thread.lo) {
      this.#from = Math.max(thread.lo, this.#from - STEP);
      this.#to = Math.min(this.#to, this.#from + MAX_ROWS - 1);
      this.#render();
    } else if (thread.hasOlder && !thread.loadingOlder) {
      this.#load(() => this.#model.loadOlder(this.#conversation));
    }
  }

  #growDown(thread) {
    if (this.#to < thread.hi) {
      this.#to = Math.min(thread.hi, this.#to + STEP);
      this.#from = Math.max(this.#from, this.#to - MAX_ROWS + 1);
      this.#render();
    } else if (!thread.atEnd && !thread.loadingNewer) {
      this.#load(() => this.#model.loadNewer(this.#conversation));
    }
  }

  async #load(work) {
    const conversation = this.#conversation;
    try {
      await work();
    } catch (error) {
      if (!error.retryable) throw error;
      return; // scrolling tries again
    }
    if (conversation === this.#conversation) this.#scrolled();
  }

  #render() {
    const conversation = this.#conversation;
    if (!conversation) return;
    const { thread } = conversation;
    const pending = thread.atEnd || !thread.isLoaded ? this.#model.pending(conversation) : [];
    if (!thread.isLoaded && (pending.length === 0 || this.#isReloading)) return;
    if (!this.#isStuck && (this.#to < thread.lo || this.#from > thread.hi)) return; // what to show is on its way
    this.element.classList.remove("is-loading");
    if (this.#isStuck) {
      this.#to = thread.hi;
      this.#from = Math.max(thread.lo, Math.min(this.#from || thread.hi - FIRST_ROWS, thread.hi), this.#to - MAX_ROWS + 1);
    }
    thread.keepNear(this.#from, this.#to);
    const anchor = this.#isStuck ? null : this.#anchor();
    const rows = this.#rows.describe(conversation, pending, {
      from: this.#from,
      to: this.#to,
      unreadFrom: this.#unreadFrom,
      isAlive: this.#shownKeys.size > 0 && this.#isStuck,
    });
    this.#settling = true;
    this.#draw(rows);
    if (this.#isStuck) this.#toBottom();
    else if (anchor) this.#restore(anchor);
    this.#settling = false;
    this.#on.drawn();
    this.#showJump();
    this.#markRead();
  }

  #draw(rows) {
    const hadFocus = this.#list.contains(document.activeElement);
    reconcile(this.#list, rows);
    this.#shownKeys = new Set(rows.map(({ key }) => key));
    if (hadFocus && !this.#list.contains(document.activeElement)) this.element.focus({ preventScroll: true });
  }

  #clear() {
    this.#draw([]);
    this.#on.drawn();
  }

  #toBottom() {
    this.element.scrollTop = this.element.scrollHeight;
  }

  /** The first row in sight, and where: it stays there when rows above it come or go. */
  #anchor() {
    const top = this.element.getBoundingClientRect().top;
    for (const row of this.#list.children) {
      const box = row.getBoundingClientRect();
      if (box.bottom > top && row.dataset.key?.startsWith("m")) {
        return { key: row.dataset.key, seq: Number(row.dataset.seq), offset: box.top - top };
      }
    }
    return null;
  }

  #restore({ key, offset }) {
    const row = this.#list.querySelector(`[data-key="${key}"]`);
    if (!row) return;
    const now = row.getBoundingClientRect().top - this.element.getBoundingClientRect().top;
    if (Math.abs(now - offset) >= 1) this.element.scrollTop += now - offset;
  }

  #showJump() {
    const { thread, unread } = this.#conversation;
    const below = this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight;
    this.#jump.hidden = thread.atEnd && this.#to >= thread.hi && below < 300;
    this.#jumpCount.hidden = unread === 0;
    this.#jumpCount.textContent = unread > 99 ? "99+" : String(unread);
  }

  #markRead() {
    const conversation = this.#conversation;
    if (!conversation?.thread.isLoaded || document.hidden || !document.hasFocus()) return;
    if (document.body.dataset.pane === "list" && matchMedia("(max-width: 760px)").matches) return;
    const bottom = this.element.getBoundingClientRect().bottom;
    const seen = [...this.#list.children].findLast(
      (row) => row.dataset.seq && row.getBoundingClientRect().top < bottom,
    );
    if (!seen || conversation.unread === 0) return;
    this.#model.markRead(conversation, Number(seen.dataset.seq));
  }
}
