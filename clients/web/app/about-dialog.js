/** More about a person, or about what became of a message. */

import { avatar } from "./avatar.js";
import { closeOnBackdrop, h, iconButton } from "./dom.js";
import * as time from "./time.js";

export class AboutDialog {
  constructor() {
    this.element = h("dialog", { class: "person", aria: { labelledby: "person-name" }, onclick: closeOnBackdrop });
    /** Who was shown last. */
    this.person = null;
  }

  #seen;
  #block;

  showPerson(conversation, onBlock) {
    this.person = conversation;
    this.#seen = h("p", { class: "hint" });
    this.#block = h("button", { type: "button", onclick: onBlock });
    const { profile, username } = conversation;
    this.#show(
      avatar(conversation.face, "huge"),
      h("h2", { id: "person-name", dir: "auto" }, conversation.name),
      username && h("p", { class: "hint" }, `@${username}`),
      profile?.status_text && h("p", { class: "person-status", dir: "auto" }, profile.status_text),
      profile?.bio && h("p", { class: "person-bio", dir: "auto" }, profile.bio),
      this.#seen,
      !conversation.isGone && this.#block,
    );
  }

  /** What may change while the person is shown; the button does the opposite of what is so. */
  showState(isBlocked) {
    const { online, lastSeen } = this.person;
    this.#seen.textContent = online ? "Online now" : lastSeen ? `Last here ${time.ago(lastSeen)}` : "";
    this.#seen.hidden = isBlocked || this.#seen.textContent === "";
    this.#block.className = `button ${isBlocked ? "quiet" : "danger"}`;
    this.#block.textContent = isBlocked ? "Unblock" : "Block";
  }

  /** A text that can be kept nowhere, for the person to copy. */
  showText(title, text) {
    this.#show(h("h2", { id: "person-name" }, title), h("p", { class: "person-bio", dir: "auto" }, text));
  }

  /** `trace` is the answer of the request of that name. */
  showTrace(trace) {
    const line = (label, at, more = "") =>
      h("div", {}, h("dt", {}, label), h("dd", {}, at ? time.exact(at) + more : "not yet"));
    const count = trace.delivered_to_connections ?? 0;
    this.#show(
      h("h2", { id: "person-name" }, "Message details"),
      h(
        "dl",
        { class: "trace" },
        line("Stored", trace.stored_at),
        // What was fetched from the history was never delivered by itself.
        (trace.delivered_at || !trace.received_at) &&
          line("Delivered", trace.delivered_at, count > 1 ? ` to ${count} devices` : ""),
        line("Received", trace.received_at),
        line("Read", trace.read_at),
      ),
    );
  }

  #show(...content) {
    const close = iconButton("close", "Close", () => this.element.close(), { class: "person-close" });
    this.element.replaceChildren(close, ...content.filter(Boolean));
    if (!this.element.open) this.element.showModal();
  }
}
