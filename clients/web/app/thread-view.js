/** One conversation on the screen: a window of rows over as many messages as there are. */

import { h, icon, onceAFrame, reconcile } from "./dom.js";
import { isEmojiOnly, linked } from "./text.js";
import * as time from "./time.js";

const MAX_ROWS = 160;
const STEP = 50;
const FIRST_ROWS = 70;
const NEAR_PX = 700;
const STUCK_PX = 60;
const GROUP_MS = 5 * 60_000;
const PROGRESS = {
  sending: ["clock", "Sending"],
  sent: ["check", "Sent"],
  delivered: ["checks", "Delivered"],
  read: ["checks", "Read"],
  failed: ["alert", "Not sent"],
};

export class ThreadView {
  #model;
  #on;
  #conversation = null;
  #from = 0;
  #to = 0;
  #isStuck = true;
  #unreadFrom = null;
  #target = null;
  #shownKeys = new Set();
  #settling = false;

  /** `on` has `openMenu(row, message, button)`, `retry(entry)`, `discard(entry)`. */
  constructor(model, on) {
    this.#model = model;
    this.#on = on;
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
    new ResizeObserver(() => this.#isStuck && this.#toBottom()).observe(this.element);
    model.addEventListener("thread", ({ detail }) => detail === this.#conversation && this.update());
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
    this.#list.replaceChildren();
    this.#list.heldRows = new Map();
    this.#shownKeys = new Set();
    this.#unreadFrom = conversation.unread > 0 ? conversation.read : null;
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
    this.#list.replaceChildren();
    this.#list.heldRows = new Map();
  }

  /** Load anew what is on the screen: the server has another past than we thought. */
  async reload() {
    if (this.#conversation) await this.open(this.#conversation);
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

  #scrolled() {
    if (!this.#conversation || this.#settling) return;
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    const below = scrollHeight - scrollTop - clientHeight;
    const { thread } = this.#conversation;
    this.#isStuck = below < STUCK_PX && thread.atEnd && this.#to === thread.hi;
    if (thread.isLoaded) {
      if (scrollTop < NEAR_PX) this.#growUp(thread);
      else if (below < NEAR_PX) this.#growDown(thread);
    }
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
    if (!thread.isLoaded && pending.length === 0) return;
    this.element.classList.remove("is-loading");
    if (this.#isStuck) {
      this.#to = thread.hi;
      this.#from = Math.max(thread.lo, Math.min(this.#from || thread.hi - FIRST_ROWS, thread.hi), this.#to - MAX_ROWS + 1);
    }
    const anchor = this.#isStuck ? null : this.#anchor();
    const rows = this.#rows(conversation, thread, pending);
    this.#settling = true;
    reconcile(this.#list, rows);
    this.#shownKeys = new Set(rows.map(({ key }) => key));
    if (this.#isStuck) this.#toBottom();
    else if (anchor) this.#restore(anchor);
    this.#settling = false;
    this.#showJump();
    this.#markRead();
  }

  #toBottom() {
    this.element.scrollTop = this.element.scrollHeight;
  }

  /** The first row in sight, and where: it stays there when rows above it come or go. */
  #anchor() {
    const top = this.element.getBoundingClientRect().top;
    for (const row of this.#list.children) {
      const box = row.getBoundingClientRect();
      if (box.bottom > top && row.dataset.key?.startsWith("m")) return { key: row.dataset.key, offset: box.top - top };
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
    if (!conversation || document.hidden || !document.hasFocus()) return;
    if (document.body.dataset.pane === "list" && matchMedia("(max-width: 760px)").matches) return;
    const bottom = this.element.getBoundingClientRect().bottom;
    const seen = [...this.#list.children].findLast(
      (row) => row.dataset.seq && row.getBoundingClientRect().top < bottom,
    );
    if (!seen || conversation.unread === 0) return;
    this.#model.markRead(conversation, Number(seen.dataset.seq));
  }

  /* ---- Rows ---- */

  #rows(conversation, thread, pending) {
    const rows = [];
    const first = thread.messages[this.#from - thread.lo];
    if (thread.messages.length === 0 && pending.length === 0) return [this.#greeting(conversation)];
    if (first && first.seq === 1) rows.push(this.#beginning(conversation));
    else if (thread.hasOlder || this.#from > thread.lo || !thread.isLoaded) rows.push(LOADING);
    const shown = thread.messages.slice(this.#from - thread.lo, this.#to - thread.lo + 1);
    const early = this.#to === thread.hi ? [...thread.early.values()].sort((a, b) => a.seq - b.seq) : [];
    const items = [
      ...shown.map((message) => ({ message })),
      ...early.map((message) => ({ message })),
      ...(this.#to === thread.hi ? pending.map((entry) => ({ entry, message: asMessage(entry, this.#model.ownId) })) : []),
    ];
    let before = null;
    for (const [i, item] of items.entries()) {
      const { message } = item;
      const dayKey = time.dayKey(message.sent_at);
      const isNewDay = before === null || time.dayKey(before.sent_at) !== dayKey;
      if (isNewDay) rows.push(separator(`d${dayKey}`, time.day(message.sent_at), "day"));
      const isFirstUnread =
        this.#unreadFrom !== null &&
        message.from === conversation.peerId &&
        message.seq > this.#unreadFrom &&
        (before === null ? message.seq === this.#unreadFrom + 1 : !(before.from === conversation.peerId && before.seq > this.#unreadFrom)) &&
        !rows.some((row) => row.key === "unread");
      if (isFirstUnread) rows.push(separator("unread", "New messages", "unread"));
      const startsGroup = isNewDay || isFirstUnread || !joins(before, message);
      const next = items[i + 1]?.message;
      const endsGroup =
        !next || time.dayKey(next.sent_at) !== dayKey || !joins(message, next);
      rows.push(this.#row(conversation, item, startsGroup, endsGroup));
      before = message;
    }
    return rows;
  }

  #greeting(conversation) {
    return {
      key: "greeting",
      signature: conversation.name,
      build: () =>
        h(
          "li",
          { class: "greeting" },
          h("p", { class: "greeting-title" }, `Say hello to ${conversation.name}`),
          h("p", {}, "Nobody but the two of you is here."),
        ),
    };
  }

  #beginning(conversation) {
    return {
      key: "beginning",
      signature: conversation.name,
      build: () =>
        h("li", { class: "beginning" }, `This is where your conversation with ${conversation.name} begins.`),
    };
  }

  #row(conversation, { message, entry }, startsGroup, endsGroup) {
    const mine = message.from === this.#model.ownId;
    const progress = !mine
      ? null
      : entry
        ? entry.failed
          ? "failed"
          : "sending"
        : this.#model.progress(conversation, message);
    const key = `m${message.id ?? message.seq}`;
    return {
      key,
      signature: [
        message.seq, message.revision, message.deleted, progress, startsGroup, endsGroup, mine, entry?.failed?.code,
      ].join(),
      build: (old) => this.#build({ key, message, entry, mine, progress, startsGroup, endsGroup }, old),
    };
  }

  #build({ key, message, entry, mine, progress, startsGroup, endsGroup }, old) {
    const isNew = !old && this.#shownKeys.size > 0 && this.#isStuck;
    const text = message.deleted
      ? h("span", { class: "text is-deleted" }, "Message deleted")
      : h("span", { class: `text${isEmojiOnly(message.text) ? " is-emoji" : ""}`, dir: "auto" }, linked(message.text));
    const meta = h(
      "span",
      { class: "meta" },
      message.edited_at && !message.deleted && h("span", {}, "edited "),
      h("time", { datetime: message.sent_at, title: time.exact(message.sent_at) }, time.clock(message.sent_at)),
      progress && !message.deleted && h("span", { class: `tick tick-${progress}`, data: { progress } }, icon(...PROGRESS[progress])),
    );
    const row = h(
      "li",
      {
        class: [
          "row", mine ? "own" : "peer", startsGroup && "starts", endsGroup && "ends", isNew && "is-new",
          progress === "failed" && "has-failed", old?.classList.contains("is-target") && "is-target",
        ].filter(Boolean).join(" "),
        tabindex: -1,
        data: { key, ...(message.seq && { seq: message.seq }) },
      },
      h("span", { class: "visually-hidden" }, mine ? "You: " : `${this.#conversation.name}: `),
      h("div", { class: "bubble" }, text, meta),
      progress === "failed" && this.#failure(entry),
    );
    if (!entry && !message.deleted) {
      row.append(
        h(
          "button",
          {
            type: "button",
            class: "row-menu",
            tabindex: -1,
            aria: { label: "Message options", haspopup: "menu" },
            onclick: (event) => this.#on.openMenu(row, message, event.currentTarget),
          },
          icon("more"),
        ),
      );
    }
    return row;
  }

  #failure(entry) {
    return h(
      "p",
      { class: "failure" },
      entry.failed.message,
      " ",
      h("button", { type: "button", onclick: () => this.#on.retry(entry) }, "Try again"),
      " ",
      h("button", { type: "button", onclick: () => this.#on.discard(entry) }, "Discard"),
    );
  }
}

const LOADING = {
  key: "loading",
  signature: "",
  build: () => h("li", { class: "loading" }, h("span", { class: "visually-hidden" }, "Loading older messages")),
};

const separator = (key, label, kind) => ({
  key,
  signature: label,
  build: () => h("li", { class: `separator is-${kind}` }, h("span", {}, label)),
});

const joins = (before, after) =>
  before !== null && before.from === after.from && new Date(after.sent_at) - new Date(before.sent_at) < GROUP_MS;

const asMessage = (entry, from) => ({
  id: entry.id,
  from,
  text: entry.text,
  sent_at: new Date(entry.created_at).toISOString(),
});
