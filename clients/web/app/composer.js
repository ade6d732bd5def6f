/** Where one writes: grows with the text, keeps a draft for each person, edits what was sent. */

import { h, icon, iconButton } from "./dom.js";
import { characters, oneLine } from "./text.js";

const MAX_CHARACTERS = 4_000;
const COUNT_FROM = 3_500;

export class Composer {
  #on;
  #conversation = null;
  #editing = null;
  #original = "";

  /** `on` has `send(conversation, text)`, `edit(message, text)`, `typing(conversation, active)`,
   * `editLast(conversation)`. */
  constructor(on) {
    this.#on = on;
    this.#text = h("textarea", {
      id: "composer",
      rows: 1,
      placeholder: "Write a message",
      enterkeyhint: "send",
      aria: { label: "Message" },
      oninput: () => this.#typed(),
      onkeydown: (event) => this.#pressed(event),
    });
    this.#count = h("span", { class: "count", aria: { live: "polite" } });
    this.#send = h(
      "button",
      { type: "submit", class: "send", title: "Send", disabled: true, aria: { label: "Send" } },
      icon("send"),
    );
    this.#quote = h("span", { class: "quote", dir: "auto" });
    this.#bar = h(
      "div",
      { class: "edit-bar", hidden: true },
      h("span", {}, h("strong", {}, "Editing"), this.#quote),
      iconButton("close", "Cancel editing", () => this.#leaveEditing(), { class: "small" }),
    );
    this.element = h(
      "form",
      {
        class: "composer",
        onsubmit: (event) => {
          event.preventDefault();
          this.#submit();
        },
      },
      this.#bar,
      h("div", { class: "composer-row" }, this.#text, this.#count, this.#send),
    );
  }

  #text;
  #count;
  #send;
  #quote;
  #bar;

  /** Write to somebody else now; what was begun stays there for later. */
  open(conversation) {
    this.stopEditing();
    this.#keepDraft();
    this.#conversation = conversation;
    this.#text.value = conversation?.draft ?? "";
    this.rename();
    this.fit();
  }

  /** The person's name may have been learnt, or changed. */
  rename() {
    this.#text.placeholder = this.#conversation ? `Message ${this.#conversation.name}` : "";
  }

  focus() {
    this.#text.focus({ preventScroll: true });
  }

  edit(message) {
    this.#keepDraft();
    this.#editing = message;
    this.#bar.hidden = false;
    this.#quote.textContent = oneLine(message.text);
    this.#text.value = this.#original = message.text;
    this.fit();
    this.focus();
  }

  /** Give up an edit of what has been deleted. Returns whether a new text is kept as a draft. */
  leaveDeleted() {
    if (!this.#editing?.deleted) return false;
    const isNew = this.#text.value !== this.#original;
    if (isNew) this.keep(this.#conversation, this.#text.value);
    this.stopEditing();
    return isNew;
  }

  /** Let a text that could not be used be a draft, after what is one already. */
  keep(conversation, text) {
    const { draft } = conversation;
    conversation.draft = [draft, text].filter(Boolean).join("\n");
    if (conversation !== this.#conversation || this.#editing) return;
    const { selectionStart, selectionEnd } = this.#text;
    this.#text.value = conversation.draft;
    if (draft) this.#text.setSelectionRange(selectionStart, selectionEnd);
    this.fit();
  }

  stopEditing() {
    if (!this.#editing) return;
    this.#editing = null;
    this.#bar.hidden = true;
    this.#text.value = this.#conversation?.draft ?? "";
    this.fit();
  }

  /** The button that was pressed is hidden or disabled now, and would take the focus with it. */
  #leaveEditing() {
    this.stopEditing();
    this.focus();
  }

  #keepDraft() {
    if (this.#conversation && !this.#editing) this.#conversation.draft = this.#text.value;
  }

  #typed() {
    this.fit();
    this.#keepDraft();
    if (!this.#editing) this.#on.typing(this.#conversation, this.#text.value.trim() !== "");
  }

  #pressed(event) {
    if (event.isComposing) return;
    const isTouch = matchMedia("(pointer: coarse)").matches;
    if (event.key === "Enter" && !event.shiftKey && !isTouch) {
      event.preventDefault();
      this.#submit();
    } else if (event.key === "Escape" && this.#editing) {
      event.preventDefault();
      event.stopPropagation();
      this.stopEditing();
    } else if (event.key === "ArrowUp" && this.#text.value === "" && !this.#editing) {
      event.preventDefault();
      this.#on.editLast(this.#conversation);
    }
  }

  #submit() {
    const text = this.#text.value.trim();
    if (text === "" || characters(text) > MAX_CHARACTERS) return;
    if (this.#editing) {
      if (text !== this.#editing.text) this.#on.edit(this.#editing, text);
      return this.#leaveEditing();
    }
    this.#text.value = "";
    this.#conversation.draft = "";
    this.fit();
    this.#on.send(this.#conversation, text);
    this.focus();
  }

  /** Be as high as the text; to be called when what holds this has come into the document. */
  fit() {
    const text = this.#text.value;
    this.#text.style.height = "auto";
    this.#text.style.height = `${this.#text.scrollHeight}px`;
    const left = MAX_CHARACTERS - (text.length > COUNT_FROM ? characters(text) : 0);
    this.#count.textContent = left < MAX_CHARACTERS - COUNT_FROM ? String(left) : "";
    this.#count.classList.toggle("over", left < 0);
    this.#send.disabled = text.trim() === "" || left < 0;
  }
}
