/** The left side: who one talks with, and the search for people and messages. */

import { avatar } from "./avatar.js";
import { h, icon, iconButton, onceAFrame, reconcile } from "./dom.js";
import { marked, oneLine } from "./text.js";
import * as time from "./time.js";

const SEARCH_DELAY_MS = 180;
const PEOPLE_SHOWN = 6;
const USERNAME_PREFIX = /^[A-Za-z0-9._-]{1,32}$/;
const TICKS = { sent: "check", delivered: "checks", read: "checks" };

export class Sidebar {
  #model;
  #duet;
  #account;
  #on;
  #openId = null;
  #within = null;
  #asked = 0;
  #searchTimer = null;
  #results = [];

  /** `on` has `open(conversation, seq?)`, `openSettings()`, `href(conversation)`. */
  constructor(model, duet, account, on) {
    this.#model = model;
    this.#duet = duet;
    this.#account = account;
    this.#on = on;
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
    this.#within = conversation;
    this.#chip.hidden = conversation === null;
    this.#chipName.textContent = conversation ? `in ${conversation.name}` : "";
    this.#input.focus();
    this.#input.select();
    this.#search();
  }

  #build() {
    this.#input = h("input", {
      type: "search",
      id: "search",
      placeholder: "Search people and messages",
      autocomplete: "off",
      autocapitalize: "off",
      spellcheck: "false",
      maxlength: 100,
      aria: { label: "Search people and messages", controls: "results" },
      oninput: () => this.#searchSoon(),
      onkeydown: (event) => {
        if (event.key === "Escape") this.#endSearch();
        if (event.key === "ArrowDown") {
          event.preventDefault();
          (this.#results[0] ?? this.#list.querySelector("a"))?.focus();
        }
      },
    });
    this.#chipName = h("span", {});
    this.#chip = h(
      "span",
      { class: "search-chip", hidden: true },
      this.#chipName,
      iconButton("close", "Search everywhere", () => this.startSearch(null)),
    );
    this.#clear = iconButton("close", "End the search", () => this.#endSearch(), { class: "small", hidden: true });
    this.#own = h("button", {
      type: "button",
      class: "own-button",
      aria: { label: "Settings and profile" },
      onclick: () => this.#on.openSettings(),
    });
    this.#list = h("ul", { class: "conversations", onkeydown: (event) => this.#moveFocus(event) });
    this.#hits = h("div", { id: "results", class: "results", hidden: true, onkeydown: (event) => this.#moveFocus(event) });
    this.#scroller = h(
      "div",
      { class: "sidebar-scroll", onscroll: () => this.#loadMore() },
      h("nav", { aria: { label: "Conversations" } }, this.#list),
      this.#hits,
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
      h("div", { class: "search", role: "search" }, icon("search"), this.#input, this.#chip, this.#clear),
      this.#scroller,
    );
  }

  #input;
  #chip;
  #chipName;
  #clear;
  #own;
  #list;
  #hits;
  #scroller;

  #render() {
    const { me } = this.#model;
    if (me) {
      const face = { name: me.display_name || me.username, key: me.id, avatarUrl: me.avatar_url };
      this.#own.replaceChildren(avatar(face, "small"));
    }
    const listed = this.#model.listed();
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
      build: () =>
        h(
          "li",
          { class: "conversation" },
          h(
            "a",
            {
              href: this.#on.href(conversation),
              class: unread > 0 ? "unread" : "",
              aria: { current: isOpen ? "page" : null },
              data: { peer: conversation.username ?? conversation.peerId },
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
        ),
    };
  }

  #moveFocus(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const links = [...event.currentTarget.querySelectorAll("a, button")];
    const next = links[links.indexOf(document.activeElement) + step];
    event.preventDefault();
    (next ?? (step < 0 ? this.#input : null))?.focus();
  }

  #loadMore() {
    const { scrollTop, clientHeight, scrollHeight } = this.#scroller;
    if (!this.#model.hasMore || scrollHeight - scrollTop - clientHeight > 400) return;
    this.#model.loadMoreConversations().catch(() => {});
  }

  /* ---- Search ---- */

  #searchSoon() {
    clearTimeout(this.#searchTimer);
    this.#searchTimer = setTimeout(() => this.#search(), SEARCH_DELAY_MS);
  }

  #endSearch() {
    this.#input.value = "";
    this.#within = null;
    this.#chip.hidden = true;
    this.#search();
  }

  async #search() {
    const query = this.#input.value.trim();
    const asked = ++this.#asked;
    const isActive = query !== "" || this.#within !== null;
    this.#hits.hidden = !isActive;
    this.#list.hidden = isActive;
    this.#clear.hidden = !isActive;
    this.#results = [];
    if (!isActive) return this.#hits.replaceChildren();
    if (query === "") {
      return this.#hits.replaceChildren(h("p", { class: "hint" }, `Search your messages with ${this.#within.name}.`));
    }
    const [people, messages] = await Promise.all([
      this.#findPeople(query),
      this.#duet.search(query, { peer: this.#within?.peerId, limit: 30 }).catch(() => null),
    ]);
    if (asked === this.#asked) this.#showHits(query, people, messages);
  }

  async #findPeople(query) {
    const prefix = query.replace(/^@/, "");
    if (this.#within || !USERNAME_PREFIX.test(prefix)) return [];
    try {
      const { users } = await this.#account.findUsers(prefix, { limit: PEOPLE_SHOWN + 1 });
      return users.filter((user) => user.id !== this.#model.ownId).slice(0, PEOPLE_SHOWN);
    } catch {
      return [];
    }
  }

  #showHits(query, people, messages) {
    const items = messages?.items ?? [];
    const sections = [];
    if (people.length > 0) {
      sections.push(h("h2", {}, "People"), h("ul", {}, people.map((user) => h("li", {}, this.#personHit(user)))));
    }
    if (items.length > 0) {
      sections.push(h("h2", {}, "Messages"), h("ul", {}, items.map((item) => h("li", {}, this.#messageHit(item)))));
    }
    if (sections.length === 0) {
      sections.push(
        h("p", { class: "hint" }, messages === null ? "Messages can be searched once you are connected." : `Nothing found for “${query}”.`),
      );
      if (!this.#within) sections.push(h("p", { class: "hint" }, "People are found by how their username begins."));
    }
    this.#hits.replaceChildren(...sections);
    this.#results = [...this.#hits.querySelectorAll("button")];
  }

  #personHit(user) {
    const name = user.display_name || user.username;
    return h(
      "button",
      {
        type: "button",
        class: "hit",
        data: { user: user.username },
        onclick: () => {
          this.#endSearch();
          this.#on.open(this.#model.withUser(user));
        },
      },
      avatar({ name, key: user.id, avatarUrl: user.avatar_url }),
      h("span", { class: "hit-text" }, h("span", { class: "name", dir: "auto" }, name), h("span", { class: "preview" }, `@${user.username}`)),
    );
  }

  #messageHit({ message, peer, snippet }) {
    const conversation = this.#model.conversations.get(peer);
    return h(
      "button",
      {
        type: "button",
        class: "hit",
        data: { seq: message.seq },
        onclick: () => conversation && this.#on.open(conversation, message.seq),
      },
      conversation && avatar(conversation.face),
      h(
        "span",
        { class: "hit-text" },
        h(
          "span",
          { class: "conversation-top" },
          h("span", { class: "name", dir: "auto" }, conversation?.name ?? "…"),
          h("time", { datetime: message.sent_at }, time.brief(message.sent_at)),
        ),
        h("span", { class: "preview", dir: "auto" }, marked(snippet)),
      ),
    );
  }
}
