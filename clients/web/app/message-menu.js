/** What can be done with one message. */

import { focusAnew, h, rowOf } from "./dom.js";

const GAP_PX = 4;
const EDGE_PX = 8;

export class MessageMenu {
  #list = null;
  #key = null;
  #opener = null;
  #isOnTheRight = false;

  constructor() {
    this.element = h("div", {
      class: "menu",
      popover: "auto",
      role: "menu",
      aria: { label: "Message options" },
      onkeydown: moveFocus,
      ontoggle: (event) => event.newState === "closed" && this.#closed(),
    });
  }

  /** Show `items`, each `[label, action, kind?]`, beside the button of a row. */
  open(items, row, alignRight) {
    this.#closed();
    this.#list = row.parentElement;
    this.#key = row.dataset.key;
    this.#opener = document.activeElement;
    this.#isOnTheRight = alignRight;
    this.element.replaceChildren(...items.map((item) => this.#item(...item)));
    this.element.showPopover();
    this.follow();
    this.element.querySelector("button").focus();
  }

  /** The rows were drawn anew: stay beside the row, unless it is gone or has no menu any more. */
  follow() {
    if (this.#key === null) return;
    const button = this.#row?.querySelector(".row-menu");
    if (!button) return this.element.hidePopover();
    this.#row.classList.add("has-menu");
    const at = button.getBoundingClientRect();
    const { width, height } = this.element.getBoundingClientRect();
    const left = this.#isOnTheRight ? at.right - width : at.left;
    const isLow = at.bottom + GAP_PX + height > innerHeight;
    const top = isLow ? at.top - height - GAP_PX : at.bottom + GAP_PX;
    this.element.style.left = `${Math.max(EDGE_PX, Math.min(left, innerWidth - width - EDGE_PX))}px`;
    this.element.style.top = `${Math.max(EDGE_PX, top)}px`;
  }

  get #row() {
    return this.#key === null ? undefined : rowOf(this.#list, this.#key);
  }

  #item(label, action, kind = "") {
    const onclick = () => {
      this.element.hidePopover();
      action();
    };
    return h("button", { type: "button", role: "menuitem", class: kind, onclick }, label);
  }

  #closed() {
    if (this.#key === null) return;
    this.#row?.classList.remove("has-menu");
    const { activeElement } = document;
    if (activeElement === document.body || this.element.contains(activeElement)) {
      focusAnew(this.#opener, this.#row ?? this.#list.parentElement);
    }
    this.#key = null;
  }
}

function moveFocus(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const items = [...event.currentTarget.querySelectorAll("button")];
  event.preventDefault();
  items.at((items.indexOf(document.activeElement) + step) % items.length).focus();
}
