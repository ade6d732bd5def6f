/** The page of somebody who is in: the list, one conversation, and what goes on between them. */

import { AboutDialog } from "./about-dialog.js";
import { avatar } from "./avatar.js";
import { Composer } from "./composer.js";
import { announce, h, icon, iconButton, onceAFrame } from "./dom.js";
import { MessageMenu } from "./message-menu.js";
import { Model } from "./model.js";
import { Settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { oneLine } from "./text.js";
import { ThreadView } from "./thread-view.js";
import * as time from "./time.js";

const QUIET_MS = 1_500;
const MINUTE_MS = 60_000;
const REFUSALS = {
  conflict: "It was deleted.",
  message_not_found: "It is not there any more.",
};

export class Chat {
  #duet;
  #account;
  #open = null;
  #bannerTimer = null;

  constructor(duet, account, { image_origins = [] }) {
    this.#duet = duet;
    this.#account = account;
    this.model = new Model(duet, account);
    this.#settings = new Settings(this.model, duet, account, image_origins);
    this.#sidebar = new Sidebar(this.model, duet, account, {
      open: (conversation, seq) => this.#go(conversation, seq),
      href: (conversation) => hrefOf(conversation),
      openSettings: () => this.#settings.open().catch((error) => this.#sayFailed(error)),
    });
    this.#thread = new ThreadView(this.model, {
      openMenu: (row, message) => this.#openMenu(row, message),
      drawn: () => this.#menu.follow(),
      retry: (entry) => duet.retry(entry.id),
      discard: (entry) => duet.discard(entry.id),
    });
    this.#composer = new Composer({
      send: (conversation, text) => this.#send(conversation, text),
      edit: (message, text) => duet.edit(message, text).catch(() => {}), // `refused` says why not
      typing: ({ peerId }, active) => duet.typing(peerId, active),
      editLast: () => {
        const last = this.#thread.lastOwn();
        if (last) this.#composer.edit(last);
      },
    });
    this.#build();
    this.#listen();
  }

  #settings;
  #sidebar;
  #thread;
  #composer;
  #head;
  #foot;
  #banner;
  #pane;
  #empty;
  #menu;
  #about;
  #toast;

  /** Show what the address says, once who is who is known. */
  async start() {
    this.model.loadOwn().catch(() => {});
    await this.#route();
  }

  #build() {
    this.#banner = h("div", { class: "banner", role: "status", hidden: true });
    this.#head = h("header", { class: "thread-head" });
    this.#foot = h("div", { class: "thread-foot" });
    this.#menu = new MessageMenu();
    this.#about = new AboutDialog();
    this.#toast = h("div", { class: "toast", role: "status", hidden: true });
    this.#pane = h(
      "section",
      { class: "thread", hidden: true, aria: { label: "Conversation" } },
      this.#head,
      h("div", { class: "thread-body" }, this.#thread.element, this.#thread.jumpButton),
      this.#foot,
    );
    this.#empty = h(
      "section",
      { class: "no-thread" },
      h("div", { class: "empty-art", aria: { hidden: "true" } }, h("i"), h("i")),
      h("h2", {}, "Pick up where you left off"),
      h("p", {}, "Choose a conversation, or find somebody by their username."),
      h("button", { type: "button", class: "button primary", onclick: () => this.#sidebar.startSearch() }, "Find somebody"),
    );
    this.element = h(
      "div",
      { class: "chat" },
      this.#banner,
      this.#sidebar.element,
      h("main", { class: "pane" }, this.#pane, this.#empty),
      this.#settings.element,
      this.#about.element,
      this.#menu.element,
      this.#toast,
    );
  }

  #listen() {
    const { model } = this;
    this.updateHead = onceAFrame(() => this.#showHead());
    model.addEventListener("person", ({ detail }) => {
      if (detail === this.#open) this.updateHead();
      if (detail === this.#about.person) this.#showPersonState();
    });
    model.addEventListener("blocked", () => {
      this.updateHead();
      if (this.#about.person) this.#showPersonState();
    });
    model.addEventListener("reset", () => this.#thread.reload().catch(() => {}));
    model.addEventListener("list", () => this.#open === null && location.hash.length > 2 && this.#routeAgain());
    model.addEventListener("message", ({ detail: { conversation, message } }) => {
      const where = conversation === this.#open ? "" : `${conversation.name}: `;
      announce(`${where}${oneLine(message.text)}`);
    });
    model.addEventListener("refused", ({ detail }) => this.#refused(detail));
    model.addEventListener("thread", ({ detail }) => {
      if (detail === this.#open && this.#composer.leaveDeleted()) this.#say("The message was deleted. Your text is kept.");
    });
    this.#duet.on("state", (detail) => this.#stateChanged(detail));
    this.#duet.on("live", () => this.#open?.thread.isLoaded === false && this.#thread.reload().catch(() => {}));
    setInterval(() => this.#timePasses(), MINUTE_MS);
    addEventListener("hashchange", () => this.#route());
    addEventListener("keydown", (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        this.#sidebar.startSearch();
      } else if (event.key === "Escape" && !event.defaultPrevented && !document.querySelector("dialog[open]")) {
        if (document.activeElement?.closest?.(".thread-body")) this.#composer.focus();
      }
    });
  }

  #timePasses() {
    this.#sidebar.update();
    this.#thread.update();
    this.updateHead();
  }

  /* ---- Where one is ---- */

  #routeAgain = onceAFrame(() => this.#open === null && this.#route());

  #go(conversation, seq) {
    const hash = hrefOf(conversation);
    this.#wantedSeq = seq ?? null;
    if (location.hash === hash) this.#route();
    else location.hash = hash;
  }

  #wantedSeq = null;

  async #route() {
    const wanted = placeOf(location.hash);
    if (wanted === "") return this.#show(null);
    const seq = this.#wantedSeq;
    this.#wantedSeq = null;
    let conversation = wanted.startsWith("id/")
      ? this.model.conversations.get(wanted.slice(3))
      : this.model.byUsername(wanted);
    if (!conversation && !wanted.startsWith("id/") && this.#account.session) {
      try {
        const user = await this.#account.user(wanted);
        if (placeOf(location.hash) !== wanted) return;
        if (user.id !== this.#account.session?.user.id) conversation = this.model.withUser(user);
      } catch (error) {
        if (error.code === "user_not_found" && placeOf(location.hash) === wanted) location.hash = "";
        return;
      }
    }
    await this.#show(conversation ?? null, seq);
  }

  async #show(conversation, seq = null) {
    document.body.dataset.pane = conversation ? "thread" : "list";
    const isSame = conversation === this.#open;
    this.#open = conversation;
    this.#sidebar.openId = conversation?.peerId ?? null;
    this.#pane.hidden = conversation === null;
    this.#empty.hidden = conversation !== null;
    if (conversation === null) return this.#thread.close();
    this.#showHead();
    if (!isSame) this.#composer.open(conversation);
    if (!matchMedia("(pointer: coarse)").matches && seq === null) this.#composer.focus();
    if (isSame && seq === null) return;
    try {
      await this.#thread.open(conversation, seq);
    } catch (error) {
      if (!error.retryable) throw error; // the next connection loads it
    }
    this.model.loadProfile(conversation).catch(() => {});
  }

  #showHead() {
    const conversation = this.#open;
    if (!conversation) return;
    const status = conversation.isTyping
      ? "typing…"
      : conversation.isGone
        ? "This account was deleted"
        : conversation.online
          ? "online"
          : conversation.profile?.status_text ||
            (conversation.lastSeen ? `last here ${time.ago(conversation.lastSeen)}` : conversation.username ? `@${conversation.username}` : "");
    const heading = h("h2", { class: "name", dir: "auto" }, conversation.name);
    const line = h("p", { class: conversation.isTyping ? "status is-typing" : conversation.online ? "status is-online" : "status", dir: "auto" }, status);
    if (this.#head.dataset.peer === conversation.peerId && this.#head.childElementCount > 0) {
      this.#head.querySelector(".person-button").replaceChildren(avatar(conversation.face), h("span", { class: "person-text" }, heading, line));
    } else {
      this.#head.dataset.peer = conversation.peerId;
      this.#head.replaceChildren(
        iconButton("back", "Back to the list", () => (location.hash = ""), { class: "back" }),
        h(
          "button",
          { type: "button", class: "person-button", title: "About this person", onclick: () => this.#openPerson(this.#open) },
          avatar(conversation.face),
          h("span", { class: "person-text" }, heading, line),
        ),
        iconButton("search", "Search in this conversation", () => {
          if (matchMedia("(max-width: 760px)").matches) document.body.dataset.pane = "list";
          this.#sidebar.startSearch(this.#open);
        }),
      );
    }
    this.#showFoot();
    this.#composer.rename();
  }

  #showFoot() {
    const conversation = this.#open;
    const kind = conversation.isGone ? "gone" : this.model.blocked.has(conversation.peerId) ? "blocked" : "open";
    if (this.#foot.dataset.kind === kind) return;
    this.#foot.dataset.kind = kind;
    if (kind === "open") {
      this.#foot.replaceChildren(this.#composer.element);
      this.#composer.fit();
    } else if (kind === "gone") this.#foot.replaceChildren(h("p", { class: "closed" }, "This account was deleted. What you wrote stays here."));
    else {
      this.#foot.replaceChildren(
        h("p", { class: "closed" }, "You block this person.", h("button", { type: "button", class: "link", onclick: () => this.#setBlocked(this.#open, false) }, "Unblock")),
      );
    }
  }

  /* ---- What one does ---- */

  #send(conversation, text) {
    this.#duet.typing(conversation.peerId, false);
    this.#duet.send(conversation.peerId, text).catch(() => {}); // the row shows why not
    this.#thread.showEnd().catch(() => {});
  }

  async #setBlocked(conversation, isBlocked) {
    try {
      await this.model.setBlocked(conversation, isBlocked);
    } catch (error) {
      this.#sayFailed(error);
    }
  }

  #openPerson(conversation) {
    this.#about.showPerson(conversation, () => this.#setBlocked(conversation, !this.model.blocked.has(conversation.peerId)));
    this.#showPersonState();
  }

  #showPersonState() {
    this.#about.showState(this.model.blocked.has(this.#about.person.peerId));
  }

  #openMenu(row, message) {
    const mine = message.from === this.model.ownId;
    const items = [
      ["Copy text", () => navigator.clipboard?.writeText(message.text)],
      // The row may be older than the messages that are held, and only these learn of changes.
      mine && ["Edit", () => this.#composer.edit(this.#open.thread.find(message.seq) ?? message)],
      mine && ["Details", () => this.#showTrace(message)],
      mine && ["Delete for both", () => this.#duet.delete(message).catch(() => {}), "danger"],
    ];
    this.#menu.open(items.filter(Boolean), row, mine);
  }

  async #showTrace(message) {
    try {
      this.#about.showTrace(await this.#duet.trace(message));
    } catch (error) {
      this.#sayFailed(error);
    }
  }

  #refused({ conversation, entry: { kind, text, failed } }) {
    const isEdit = kind === "edit";
    const why = `${isEdit ? "The message was not changed." : "The message was not deleted."} ${REFUSALS[failed.code] ?? failed.message}`;
    if (isEdit && !conversation) return this.#about.showText(why, text);
    if (isEdit) this.#composer.keep(conversation, text);
    const where = !conversation || conversation === this.#open ? "" : `${conversation.name}: `;
    this.#say(`${where}${why}${isEdit ? " Your text is kept." : ""}`);
  }

  #sayFailed(error) {
    if (error.code !== "signed_out") this.#say(error.message);
  }

  #say(text) {
    this.#toast.textContent = text;
    this.#toast.hidden = false;
    clearTimeout(this.#toast.timer);
    this.#toast.timer = setTimeout(() => (this.#toast.hidden = true), 6_000);
  }

  /* ---- The connection ---- */

  #stateChanged({ state, reason }) {
    if (state === "connecting" || state === "waiting") {
      this.#bannerTimer ??= setTimeout(() => this.#showOffline(), QUIET_MS);
      return;
    }
    clearTimeout(this.#bannerTimer);
    this.#bannerTimer = null;
    if (state === "open") this.#showBanner(null);
    else this.#showEnded(reason);
  }

  #showOffline() {
    this.#showBanner(
      [h("span", {}, h("strong", {}, "Reconnecting. "), "What you write is kept and sent when you are back.")],
      ["Try now", () => this.#duet.reconnect()],
    );
  }

  #showEnded(reason) {
    if (reason === "signed_out" || reason === "refused" || reason === "stopped") return;
    const text =
      reason === "evicted"
        ? "Duet is open in many places, so this one was closed."
        : "Something about this connection is wrong.";
    this.#showBanner([h("span", {}, text)], ["Use Duet here", () => this.#duet.reconnect()]);
  }

  /** Say that the connection is away; null: that it is back. */
  #showBanner(content, action) {
    this.#banner.hidden = content === null;
    if (content === null) return this.#banner.replaceChildren();
    this.model.forgetPresence();
    this.#banner.replaceChildren(icon("clock"), ...content, h("button", { type: "button", class: "link", onclick: action[1] }, action[0]));
  }
}

/** What the address names: a username, `id/` and an id, or nothing. */
function placeOf(hash) {
  try {
    return decodeURIComponent(hash.replace(/^#\/?/, ""));
  } catch {
    return "";
  }
}

function hrefOf(conversation) {
  return `#/${conversation.username && !conversation.isGone ? encodeURIComponent(conversation.username) : `id/${conversation.peerId}`}`;
}
