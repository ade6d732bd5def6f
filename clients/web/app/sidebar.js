/** The left side: who one talks with. */

import { avatar } from "./avatar.js";
import { h, icon, iconButton, moveFocus, onceAFrame, reconcile } from "./dom.js";
import { Search } from "./search.js";
import { oneLine } from "./text.js";
import * as time from "./time.js";

const STEP = 50;
const TICKS = { sent: "check", delivered: "checks", read: "checks" };

export class Sidebar {
  #model;
  #on;
  #search;
  #openId = null;
  #most = STEP;

  /** `on` has `open(conversation, seq?)`, `openSettings()`, `href(conversation)`. */
  constructor(model, duet, account, on) {
    this.#model = model;
    this.#on = on;
    this.#search = new Search(model, duet, account, {
      open: on.open,
      active: (isActive) => (this.#list.hidden = isActive),
      leave: () => this.#list.querySelector("a")?.focus(),
    });
    this.update = onceAFrame(() => this.#render());
    this.#build();
    for (const name of ["list", "own"]) model.addEventListener(name, this.update);
  }

  /** Which conversation is on the screen. */
  set openId(peerId) {
    this.#openId = peerId;
    this.update();
  }

  /** Look for somebody, or for words; within one conversation if one is given. */
  startSearch(conversation = null) {
    this.#search.start(conversation);
  }

  #build() {
    this.#own = h("button", {
      type: "button",
      class: "own-button",
      aria: { label: "Settings and profile" },
      onclick: () => this.#on.openSettings(),
    });
    this.#list = h("ul", { class: "conversations", onkeydown: (event) => moveFocus(event, this.#search) });
    this.#scroller = h(
      "div",
      { class: "sidebar-scroll", onscroll: () => this.#showMore() },
      h("nav", { aria: { label: "Conversations" } }, this.#list),
      this.#search.hits,
    );
    this.element = h(
      "aside",
      { class: "sidebar", aria: { label: "People" } },
      h(
        "header",
        { class: "sidebar-head" },
        h("h1", { class: "wordmark" }, h("img", { src: "icon.svg", alt: "", width: 30, height: 30 }), "Duet"),
        iconButton("compose", "New conversation", () => this.startSearch()),
        this.#own,
      ),
      this.#search.element,
      this.#scroller,
    );
  }

  #own;
  #list;
  #scroller;

  #render() {
    const { me } = this.#model;
    if (me) {
      const face = { name: me.display_name || me.username, key: me.id, avatarUrl: me.avatar_url };
      this.#own.replaceChildren(avatar(face, "small"));
    }
    if (this.#model.isReloading) return;
    const listed = this.#model.listed().slice(0, this.#most);
    reconcile(
      this.#list,
      listed.length > 0 ? listed.map((conversation) => this.#row(conversation)) : this.#empty(),
    );
    const { unread } = this.#model;
    document.title = unread > 0 ? `(${unread}) Duet` : "Duet";
  }

  #empty() {
    if (!this.#model.isListed) {
      return [0, 1, 2].map((key) => ({
        key: `skeleton-${key}`,
        signature: "",
        build: () =>
          h("li", { class: "conversation skeleton", aria: { hidden: "true" } }, h("span", { class: "blot" }), h("span", { class: "lines" }, h("i"), h("i"))),
      }));
    }
    return [
      {
        key: "empty",
        signature: "",
        build: () =>
          h(
            "li",
            { class: "list-empty" },
            h("p", {}, "No conversations yet."),
            h("button", { type: "button", class: "button quiet", onclick: () => this.startSearch() }, "Find somebody"),
          ),
      },
    ];
  }

  #row(conversation) {
    const pending = this.#model.pending(conversation).at(-1);
    const { last, unread, name } = conversation;
    const isOpen = conversation.peerId === this.#openId;
    const mine = !pending && last?.from === this.#model.ownId;
    const progress = mine && last && !last.deleted ? this.#model.progress(conversation, last) : null;
    const preview = conversation.isTyping
      ? "typing…"
      : pending
        ? oneLine(pending.text)
        : last?.deleted
          ? "Message deleted"
          : oneLine(last?.text ?? "");
    const at = pending ? pending.created_at : last.sent_at;
    const status = pending ? (pending.failed ? "alert" : "clock") : progress && TICKS[progress];
    return {
      key: conversation.peerId,
      signature: JSON.stringify([
        name, conversation.face, unread, isOpen, preview, at, status, progress, conversation.isTyping, time.brief(at), last?.deleted,
      ]),
      build: () => {
        this.#model.wantProfile(conversation);
        return h(
          "li",
          { class: "conversation" },
          h(
            "a",
            {
              href: this.#on.href(conversation),
              class: unread > 0 ? "unread" : "",
              aria: { current: isOpen ? "page" : null },
              data: { peer: conversation.username ?? conversation.peerId, control: "open" },
              // The address stays as it is, but on a phone the list stands before the conversation.
              onclick: () => isOpen && this.#on.open(conversation),
            },
            avatar(conversation.face),
            h(
              "span",
              { class: "conversation-text" },
              h(
                "span",
                { class: "conversation-top" },
                h("span", { class: "name", dir: "auto" }, name),
                conversation.online && h("span", { class: "visually-hidden" }, " online"),
                h("time", { datetime: new Date(at).toISOString() }, time.brief(at)),
              ),
              h(
                "span",
                { class: "conversation-bottom" },
                status && icon(status, progress ?? (status === "alert" ? "not sent" : "sending")),
                h(
                  "span",
                  {
                    class: `preview${conversation.isTyping ? " is-typing" : ""}${last?.deleted && !pending && !conversation.isTyping ? " is-deleted" : ""}`,
                    dir: "auto",
                  },
                  preview,
                ),
                unread > 0 &&
                  h("span", { class: "badge" }, unread > 99 ? "99+" : String(unread), h("span", { class: "visually-hidden" }, " unread")),
              ),
            ),
          ),
        );
      },
    };
  }

  #showMore() {
    const { scrollTop, clientHeight, scrollHeight } = this.#scroller;
    if (scrollHeight - scrollTop - clientHeight > 400) return;
    this.#most = this.#list.childElementCount + STEP;
    this.update();
  }
}
