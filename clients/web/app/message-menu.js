/** What can be done with one message. */

import { h } from "./dom.js";

const GAP_PX = 4;
const EDGE_PX = 8;

export class MessageMenu {
  #row = null;

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
  open(items, row, button, alignRight) {
    this.#closed();
    this.#row = row;
    row.classList.add("has-menu");
    this.element.replaceChildren(...items.map((item) => this.#item(...item)));
    this.element.showPopover();
    const at = button.getBoundingClientRect();
    const { width, height } = this.element.getBoundingClientRect();
    const left = alignRight ? at.right - width : at.left;
    const isLow = at.bottom + GAP_PX + height > innerHeight;
    const top = isLow ? at.top - height - GAP_PX : at.bottom + GAP_PX;
    this.element.style.left = `${Math.max(EDGE_PX, Math.min(left, innerWidth - width - EDGE_PX))}px`;
    this.element.style.top = `${Math.max(EDGE_PX, top)}px`;
    this.element.querySelector("button").focus();
  }

  #item(label, action, kind = "") {
    const onclick = () => {
      this.element.hidePopover();
      action();
    };
    return h("button", { type: "button", role: "menuitem", class: kind, onclick }, label);
  }

  #closed() {
    this.#row?.classList.remove("has-menu");
    if (document.activeElement === document.body) this.#row?.focus({ preventScroll: true });
    this.#row = null;
  }
}

function moveFocus(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const items = [...event.currentTarget.querySelectorAll("button")];
  event.preventDefault();
  items.at((items.indexOf(document.activeElement) + step) % items.length).focus();
}
