/** Parts of forms: inputs that say what is wrong with them, and buttons that say what became of it. */

import { h } from "./dom.js";

/** A labelled input with a place for what is wrong with it. */
export function field(name, label, attributes = {}, aside = "") {
  const input = h("input", { id: `field-${name}`, name, ...attributes, aria: { describedby: `fault-${name}` } });
  const box = h("span", { class: "field-box" }, input);
  const fault = h("p", { class: "field-error", id: `fault-${name}`, role: "alert" });
  return {
    element: h(
      "div",
      { class: "field" },
      h("label", { for: `field-${name}` }, label, aside && h("span", { class: "aside" }, aside)),
      box,
      fault,
    ),
    input,
    box,
    showError(text) {
      fault.textContent = text;
      input.setAttribute("aria-invalid", String(text !== ""));
    },
  };
}

export const sentence = (text) => {
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
};

/** The same for several lines. */
export function area(name, label, attributes) {
  const made = field(name, label);
  const input = h("textarea", { id: `field-${name}`, name, ...attributes, aria: { describedby: `fault-${name}` } });
  made.input.replaceWith(input);
  return { ...made, input, showError: (text) => (made.showError(text), input.setAttribute("aria-invalid", String(text !== ""))) };
}

/** A button that is busy while its work goes on, and says how it ended. */
export class Saving {
  constructor(label, kind = "primary") {
    this.button = h("button", { type: "submit", class: `button ${kind}` }, label);
    this.note = h("p", { class: "saving-note", role: "status" });
    this.element = h("div", { class: "saving" }, this.button, this.note);
  }

  onclick(work) {
    this.button.type = "button";
    this.button.addEventListener("click", () => this.run(work, {}, ""));
  }

  async run(work, fields = {}, done = "Saved.") {
    this.button.disabled = true;
    this.button.classList.add("is-busy");
    this.note.textContent = "";
    this.note.classList.remove("is-error");
    for (const shown of Object.values(fields)) shown.showError("");
    try {
      await work();
      this.note.textContent = done;
    } catch (error) {
      this.#fail(error, fields);
    } finally {
      this.button.disabled = false;
      this.button.classList.remove("is-busy");
    }
  }

  #fail(error, fields) {
    const faults = error.faults ?? [];
    for (const fault of faults) {
      const shown = fields[fault.pointer.slice(1)];
      if (shown) shown.showError(sentence(fault.detail));
    }
    if (error.code === "wrong_password" && fields.current_password) {
      fields.current_password.showError("This is not your password.");
    } else if (faults.length === 0) {
      this.note.textContent = error.message;
      this.note.classList.add("is-error");
    }
  }
}

