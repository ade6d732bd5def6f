/** The search: people by how their username begins, and messages by the words in them. */

import { avatar } from "./avatar.js";
import { focusAnew, h, icon, iconButton, moveFocus } from "./dom.js";
import { marked } from "./text.js";
import * as time from "./time.js";

const DELAY_MS = 180;
const PEOPLE_SHOWN = 6;
const MESSAGES_SHOWN = 30;
const EVERYWHERE = "Search people and messages";
const USERNAME_PREFIX = /^[A-Za-z0-9._-]{1,32}$/;

export class Search {
  #model;
  #duet;
  #account;
  #on;
  #within = null;
  #asked = 0;
  #timer = null;

  /** `on` has `open(conversation, seq?)`, `active(isActive)` and `leave()`, downwards. */
  constructor(model, duet, account, on) {
    this.#model = model;
    this.#duet = duet;
    this.#account = account;
    this.#on = on;
    this.#input = h("input", {
      type: "search",
      id: "search",
      placeholder: EVERYWHERE,
      autocomplete: "off",
      autocapitalize: "off",
      spellcheck: "false",
      maxlength: 100,
      aria: { label: EVERYWHERE, controls: "results" },
      oninput: () => {
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.#search(), DELAY_MS);
      },
      onkeydown: (event) => this.#pressed(event),
    });
    this.#chipName = h("span", {});
    this.#chip = h(
      "span",
      { class: "search-chip", hidden: true },
      this.#chipName,
      iconButton("close", "Search everywhere", () => this.start(null)),
    );
    this.#clear = iconButton("close", "End the search", () => this.#end(), { class: "small", hidden: true });
    this.element = h("div", { class: "search", role: "search" }, icon("search"), this.#input, this.#chip, this.#clear);
    this.hits = h("div", {
      id: "results",
      class: "results",
      hidden: true,
      onkeydown: (event) => moveFocus(event, this.#input),
    });
  }

  #input;
  #chip;
  #chipName;
  #clear;

  /** Look for somebody, or for words; within one conversation if one is given. */
  start(conversation = null) {
    this.#confine(conversation);
    this.focus();
    this.#input.select();
    this.#search();
  }

  focus() {
    this.#input.focus();
  }

  #pressed(event) {
    if (event.key === "Escape") this.#end();
    if (event.key === "Enter" && !event.isComposing) this.#openFirst();
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    const first = this.hits.querySelector("button");
    if (first) first.focus();
    else this.#on.leave();
  }

  async #openFirst() {
    clearTimeout(this.#timer); // what was typed last may not have been looked for yet
    const searched = this.#search();
    const asked = this.#asked;
    await searched;
    if (asked === this.#asked) this.hits.querySelector(".hit")?.click();
  }

  #end() {
    this.#input.value = "";
    this.#confine(null);
    this.#search();
  }

  #confine(conversation) {
    this.#within = conversation;
    this.#chip.hidden = conversation === null;
    this.#chipName.textContent = conversation ? `in ${conversation.name}` : "";
    this.#input.placeholder = conversation ? "Search" : EVERYWHERE; // the chip leaves no room for more
  }

  async #search() {
    const query = this.#input.value.trim();
    const asked = ++this.#asked;
    const isActive = query !== "" || this.#within !== null;
    this.hits.hidden = this.#clear.hidden = !isActive;
    this.#on.active(isActive);
    if (query === "") {
      const hint = isActive ? [h("p", { class: "hint" }, `Search your messages with ${this.#within.name}.`)] : [];
      return this.hits.replaceChildren(...hint);
    }
    const show = (people, messages) => asked === this.#asked && this.#show(query, people, messages);
    const [people, messages] = [this.#findPeople(query), this.#findMessages(query)];
    const found = await people;
    if (found.length > 0) show(found, undefined);
    show(found, await messages);
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

  /** The hits, or null where nobody can be asked. */
  async #findMessages(query) {
    if (this.#duet.state !== "open") return null;
    try {
      const peer = this.#within?.peerId;
      const { items } = await this.#duet.search(query, { peer, limit: MESSAGES_SHOWN });
      await this.#model.loadRest(); // a hit has no name by itself
      return items;
    } catch {
      return null;
    }
  }

  #show(query, people, messages) {
    const sections = [
      people.length > 0 && section("People", people.map((user) => this.#personHit(user))),
      messages?.length > 0 && section("Messages", messages.map((item) => this.#messageHit(item))),
    ].filter(Boolean);
    if (sections.length === 0 && messages !== undefined) {
      const nothing =
        messages === null ? "Messages can be searched once you are connected." : `Nothing found for “${query}”.`;
      sections.push(h("p", { class: "hint" }, nothing));
      if (!this.#within) sections.push(h("p", { class: "hint" }, "People are found by how their username begins."));
    }
    const focused = this.hits.contains(document.activeElement) && document.activeElement;
    this.hits.replaceChildren(...sections);
    if (focused) focusAnew(focused, this.hits);
  }

  #personHit(user) {
    const name = user.display_name || user.username;
    const onclick = () => {
      this.#end();
      this.#on.open(this.#model.withUser(user));
    };
    return h(
      "button",
      { type: "button", class: "hit", data: { user: user.username, control: user.id }, onclick },
      avatar({ name, key: user.id, avatarUrl: user.avatar_url }),
      h(
        "span",
        { class: "hit-text" },
        h("span", { class: "name", dir: "auto" }, name),
        h("span", { class: "preview" }, `@${user.username}`),
      ),
    );
  }

  #messageHit({ message, peer, snippet }) {
    const conversation = this.#model.conversations.get(peer);
    if (conversation) this.#model.wantProfile(conversation);
    const onclick = () => conversation && this.#on.open(conversation, message.seq);
    return h(
      "button",
      { type: "button", class: "hit", data: { seq: message.seq, control: `${peer} ${message.seq}` }, onclick },
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

function section(title, hits) {
  return h("section", {}, h("h2", {}, title), h("ul", {}, hits.map((hit) => h("li", {}, hit))));
}
