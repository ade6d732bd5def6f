/** The way in: sign up, or log in. */

import { h, icon } from "./dom.js";
import { field, sentence } from "./fields.js";
import { judge, WORDS } from "./password.js";
import { ofBrowser } from "./storage.js";

const FIELD_NAMES = { username: "username", password: "password", display_name: "display_name" };
const NOTES = {
  signed_out: "You have been logged out of this device.",
  refused: "This device's session is not accepted any more. Please log in again.",
};
const SAMPLE = [
  ["peer", "Are you there?"],
  ["own", "Always. Even when the train goes through the tunnel."],
  ["peer", "And when it comes out again?"],
  ["own", "Then you get this. Once, and in order."],
];

/** Show the page that lets people in. Resolves with the account when somebody is in. */
export function letIn(root, account, { reason } = {}) {
  return new Promise((resolve) => {
    const form = new AuthForm(account, resolve, NOTES[reason]);
    root.replaceChildren(page(form.element));
    form.focus();
  });
}

function page(form) {
  return h(
    "div",
    { class: "auth" },
    h(
      "section",
      { class: "auth-side", aria: { hidden: "true" } },
      h("div", { class: "auth-disc one" }),
      h("div", { class: "auth-disc two" }, h("div", { class: "auth-disc lens" })),
      h(
        "div",
        { class: "auth-sample" },
        SAMPLE.map(([side, text], i) => h("p", { class: `sample ${side} s${i + 1}` }, text)),
      ),
      h("p", { class: "auth-claim" }, "Two people.", h("br"), "One conversation."),
    ),
    h("main", { class: "auth-main" }, form),
  );
}

class AuthForm {
  #account;
  #done;
  #isNew = true;
  #revealed = false;

  constructor(account, done, note) {
    this.#account = account;
    this.#done = done;
    this.#title = h("h1", {});
    this.#note = h("p", { class: "auth-note", role: "status", hidden: !note }, note);
    this.#username = field("username", "Username", {
      autocomplete: "username",
      autocapitalize: "none",
      spellcheck: "false",
      maxlength: 32,
      required: true,
    });
    this.#display = field("display_name", "Your name", { autocomplete: "name", maxlength: 64 }, "optional");
    this.#password = field("password", "Password", { type: "password", maxlength: 128, required: true });
    this.#reveal = h(
      "button",
      { type: "button", class: "reveal", title: "Show the password", aria: { label: "Show the password", pressed: "false" }, onclick: () => this.#toggleReveal() },
      icon("eye"),
    );
    this.#password.box.append(this.#reveal);
    this.#meter = h("div", { class: "meter", aria: { hidden: "true" } }, h("i"), h("i"), h("i"), h("i"));
    this.#verdict = h("p", { class: "verdict", id: "verdict", role: "status" });
    this.#strength = h("div", { class: "strength" }, this.#meter, this.#verdict);
    this.#error = h("p", { class: "form-error", role: "alert", hidden: true });
    this.#submitButton = h("button", { type: "submit", class: "button primary" });
    this.#switch = h("p", { class: "auth-switch" });
    this.element = h(
      "form",
      {
        class: "auth-form",
        novalidate: true,
        onsubmit: (event) => {
          event.preventDefault();
          this.#submit();
        },
      },
      h("img", { src: "icon.svg", alt: "Duet", width: 52, height: 52, class: "auth-logo" }),
      this.#title,
      this.#note,
      this.#username.element,
      this.#display.element,
      this.#password.element,
      this.#strength,
      this.#error,
      this.#submitButton,
      this.#switch,
    );
    for (const { input } of [this.#username, this.#password, this.#display]) {
      input.addEventListener("input", () => {
        this.#judge();
        this.#error.hidden = true;
      });
    }
    this.#setMode(!note && !ofBrowser.get("duet-known"));
  }

  #title;
  #note;
  #username;
  #display;
  #password;
  #reveal;
  #meter;
  #verdict;
  #strength;
  #error;
  #submitButton;
  #switch;

  focus() {
    this.#username.input.focus();
  }

  #setMode(isNew) {
    this.#isNew = isNew;
    this.#title.textContent = isNew ? "Create your account" : "Welcome back";
    this.#display.element.hidden = !isNew;
    this.#password.input.autocomplete = isNew ? "new-password" : "current-password";
    this.#submitButton.textContent = isNew ? "Create account" : "Log in";
    this.#switch.replaceChildren(
      isNew ? "Already with Duet? " : "New here? ",
      h("button", { type: "button", class: "link", onclick: () => (this.#setMode(!isNew), this.focus()) }, isNew ? "Log in" : "Create an account"),
    );
    this.#showFaults([]);
    this.#error.hidden = true;
    this.#judge();
  }

  #toggleReveal() {
    this.#revealed = !this.#revealed;
    this.#password.input.type = this.#revealed ? "text" : "password";
    this.#reveal.setAttribute("aria-pressed", String(this.#revealed));
  }

  #judge() {
    const password = this.#password.input.value;
    this.#strength.hidden = !this.#isNew || password === "";
    if (this.#strength.hidden) return;
    const { score, hint } = judge(password, [this.#username.input.value, ...this.#display.input.value.split(/\s+/)]);
    this.#meter.dataset.score = String(score);
    this.#verdict.textContent = `${WORDS[score]}${hint ? ". " : ""}${hint}`;
  }

  async #submit() {
    const username = this.#username.input.value.trim();
    const password = this.#password.input.value;
    this.#showFaults([]);
    if (!username || !password) {
      const empty = !username ? this.#username : this.#password;
      empty.showError("Please fill this in.");
      empty.input.focus();
      return;
    }
    this.#setBusy(true);
    try {
      const device_name = deviceName();
      const display_name = this.#display.input.value.trim();
      if (this.#isNew) {
        await this.#account.signUp({ username, password, device_name, ...(display_name && { display_name }) });
      } else {
        await this.#account.logIn({ username, password, device_name });
      }
      ofBrowser.set("duet-known", "1");
      this.#done(this.#account);
    } catch (error) {
      if (!error.code) throw error;
      this.#refused(error);
    } finally {
      this.#setBusy(false);
    }
  }

  #refused(error) {
    if (error.code === "username_taken") {
      this.#username.showError("This username is taken. Choose another one.");
      this.#username.input.focus();
    } else if (error.faults?.length > 0) {
      this.#showFaults(error.faults);
    } else {
      this.#error.textContent =
        error.code === "invalid_credentials" ? "The username or the password is not right." : error.message;
      this.#error.hidden = false;
    }
  }

  #showFaults(faults) {
    const fields = { username: this.#username, password: this.#password, display_name: this.#display };
    for (const [name, shown] of Object.entries(fields)) {
      const own = faults.filter((fault) => fault.pointer === `/${FIELD_NAMES[name]}`);
      shown.showError(own.map((fault) => sentence(fault.detail)).join(" "));
    }
    const first = Object.values(fields).find(({ input }) => input.getAttribute("aria-invalid") === "true");
    first?.input.focus();
  }

  #setBusy(isBusy) {
    this.#submitButton.disabled = isBusy;
    this.#submitButton.classList.toggle("is-busy", isBusy);
  }
}

/** How the list of devices will call this one. */
function deviceName() {
  const agent = navigator.userAgent;
  const browsers = { Edg: "Edge", OPR: "Opera", Firefox: "Firefox", Chrome: "Chrome", Safari: "Safari" };
  const systems = { Android: "Android", iPhone: "iPhone", iPad: "iPad", Windows: "Windows", "Mac OS": "Mac", Linux: "Linux" };
  const find = (names) => Object.entries(names).find(([mark]) => agent.includes(mark))?.[1];
  return [find(browsers) ?? "Browser", find(systems)].filter(Boolean).join(" on ");
}
