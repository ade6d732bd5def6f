/** The rows of a conversation: messages in groups, days between them, and how far one's own got. */

import { h, icon } from "./dom.js";
import { isEmojiOnly, linked } from "./text.js";
import * as time from "./time.js";

const GROUP_MS = 5 * 60_000;
const PROGRESS = {
  sending: ["clock", "Sending"],
  sent: ["check", "Sent"],
  delivered: ["checks", "Delivered"],
  read: ["checks", "Read"],
  failed: ["alert", "Not sent"],
};

export class ThreadRows {
  #model;
  #on;
  #isAlive = false;
  #ids = new Map();

  constructor(model, on) {
    this.#model = model;
    this.#on = on;
  }

  /** Describe the rows from `from` to `to`, for `reconcile`. `isAlive`: what is new may move in. */
  describe(conversation, pending, { from, to, unreadFrom, isAlive }) {
    const { thread } = conversation;
    this.#isAlive = isAlive;
    const rows = [];
    const first = thread.messages[from - thread.lo];
    if (thread.messages.length === 0 && pending.length === 0) return [this.#greeting(conversation)];
    if (first && first.seq === 1) rows.push(this.#beginning(conversation));
    else if (thread.hasOlder || from > thread.lo || !thread.isLoaded) rows.push(LOADING);
    const shown = thread.messages.slice(from - thread.lo, to - thread.lo + 1);
    const isEnd = to === thread.hi && (thread.atEnd || !thread.isLoaded);
    const early = isEnd ? [...thread.early.values()].sort((a, b) => a.seq - b.seq) : [];
    const items = [
      ...shown.map((message) => ({ message })),
      ...early.map((message) => ({ message })),
      ...(to === thread.hi ? pending.map((entry) => ({ entry, message: asMessage(entry, this.#model.ownId) })) : []),
    ];
    let before = null;
    for (const [i, item] of items.entries()) {
      const { message } = item;
      const dayKey = time.dayKey(message.sent_at);
      const isNewDay = before === null || time.dayKey(before.sent_at) !== dayKey;
      if (isNewDay) rows.push(separator(`d${dayKey}`, time.day(message.sent_at), "day"));
      const isFirstUnread =
        unreadFrom !== null &&
        message.from === conversation.peerId &&
        message.seq > unreadFrom &&
        (before === null ? message.seq === unreadFrom + 1 : !(before.from === conversation.peerId && before.seq > unreadFrom)) &&
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
    const key = this.#key(message);
    return {
      key,
      signature: [
        message.seq, message.revision, message.edited_at, message.deleted, progress, startsGroup, endsGroup, mine, entry?.failed?.code,
      ].join(),
      build: (old) => this.#build(conversation, { key, message, entry, mine, progress, startsGroup, endsGroup }, old),
    };
  }

  /** The same for the same message, however it came; another past may have another one at its `seq`. */
  #key({ id, seq, sent_at }) {
    const place = `${seq} ${sent_at}`;
    if (id && seq) this.#ids.set(place, id);
    return `m${id ?? this.#ids.get(place) ?? place}`;
  }

  #build(conversation, { key, message, entry, mine, progress, startsGroup, endsGroup }, old) {
    const isNew = !old && this.#isAlive;
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
      h("span", { class: "visually-hidden" }, mine ? "You: " : `${conversation.name}: `),
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
            data: { control: "menu" },
            onclick: () => this.#on.openMenu(row, message),
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
      h("button", { type: "button", data: { control: "retry" }, onclick: () => this.#on.retry(entry) }, "Try again"),
      " ",
      h("button", { type: "button", data: { control: "discard" }, onclick: () => this.#on.discard(entry) }, "Discard"),
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
