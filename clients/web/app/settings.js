/** The settings: profile, what others may see, devices, who is blocked, the account. */

import { avatar } from "./avatar.js";
import { closeOnBackdrop, h, icon, iconButton } from "./dom.js";
import { Saving, sentence } from "./fields.js";
import { showAccount } from "./own-account.js";
import { showProfile } from "./own-profile.js";
import { ofBrowser } from "./storage.js";
import * as time from "./time.js";

const SECTIONS = [
  ["profile", "Profile", "person"],
  ["privacy", "Appearance and privacy", "moon"],
  ["devices", "Devices", "device"],
  ["blocked", "Blocked people", "block"],
  ["account", "Account", "key"],
];
const THEMES = [
  ["system", "Like the system"],
  ["light", "Light"],
  ["dark", "Dark"],
];

export class Settings {
  #model;
  #duet;
  #account;
  #imageOrigins;

  constructor(model, duet, account, imageOrigins) {
    this.#model = model;
    this.#duet = duet;
    this.#account = account;
    this.#imageOrigins = imageOrigins;
    this.#tabs = SECTIONS.map(([name, label, glyph]) =>
      h(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${name}`,
          aria: { controls: "settings-panel", selected: "false" },
          onclick: () => this.show(name),
          onkeydown: (event) => this.#moveTab(event, name),
        },
        icon(glyph),
        h("span", {}, label),
      ),
    );
    this.#panel = h("div", { class: "settings-panel", id: "settings-panel", role: "tabpanel", tabindex: 0 });
    this.element = h(
      "dialog",
      { class: "settings", aria: { labelledby: "settings-title" }, onclick: closeOnBackdrop },
      h(
        "header",
        { class: "dialog-head" },
        h("h2", { id: "settings-title" }, "Settings"),
        iconButton("close", "Close", () => this.element.close()),
      ),
      h(
        "div",
        { class: "settings-body" },
        h("div", { class: "settings-tabs", role: "tablist", aria: { orientation: "vertical", label: "Settings" } }, this.#tabs),
        this.#panel,
      ),
    );
    model.addEventListener("blocked", () => this.#section === "blocked" && this.#blocked());
    duet.on("changed", ({ what }) => what === "preferences" && this.#showPreferences());
    duet.on("live", () => this.#showPreferences());
  }

  #tabs;
  #panel;
  #section = null;

  async open(section = "profile") {
    if (this.#model.me === null) await this.#model.loadOwn();
    if (!this.element.open) this.element.showModal();
    this.show(section);
    this.#tabs[SECTIONS.findIndex(([name]) => name === section)].focus();
  }

  show(section) {
    this.#section = section;
    for (const [i, [name]] of SECTIONS.entries()) {
      this.#tabs[i].setAttribute("aria-selected", String(name === section));
      this.#tabs[i].tabIndex = name === section ? 0 : -1;
    }
    this.#panel.setAttribute("aria-labelledby", `tab-${section}`);
    this.#panel.scrollTop = 0;
    const build = {
      profile: () => showProfile(this.#panel, this.#model, this.#account, this.#imageOrigins),
      privacy: () => this.#privacy(),
      devices: () => this.#devices(),
      blocked: () => this.#blocked(),
      account: () => showAccount(this.#panel, this.#model, this.#duet, this.#account),
    };
    build[section]();
  }

  #moveTab(event, name) {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const i = (SECTIONS.findIndex(([other]) => other === name) + step + SECTIONS.length) % SECTIONS.length;
    this.show(SECTIONS[i][0]);
    this.#tabs[i].focus();
  }

  /* ---- Appearance and privacy ---- */

  async #privacy() {
    const now = document.documentElement.dataset.theme ?? "system";
    const themes = h(
      "fieldset",
      { class: "themes" },
      h("legend", {}, "Colours"),
      THEMES.map(([value, label]) =>
        h(
          "label",
          { class: `theme theme-${value}` },
          h("input", { type: "radio", name: "theme", value, checked: value === now, onchange: () => setTheme(value) }),
          h("span", { class: "theme-sample", aria: { hidden: "true" } }, h("i"), h("i")),
          label,
        ),
      ),
    );
    const switches = h("div", { class: "switches" }, h("p", { class: "hint" }, "Loading…"));
    this.#panel.replaceChildren(h("div", { class: "stack" }, themes, switches));
    try {
      const held = await this.#duet.preferences();
      switches.replaceChildren(
        this.#toggle("share_reads", "Show when you have read a message", "Without it, others see that a message arrived, not that you read it.", held),
        this.#toggle("share_presence", "Show when you are online", "Only people you have a conversation with ever see it.", held),
      );
    } catch (error) {
      switches.replaceChildren(h("p", { class: "form-error" }, error.message));
    }
  }

  #toggle(name, label, explanation, held) {
    const refusal = h("p", { class: "field-error", role: "alert" });
    const input = h("input", {
      type: "checkbox",
      role: "switch",
      id: `switch-${name}`,
      name,
      checked: held[name],
      aria: { describedby: `about-${name}` },
      onchange: async () => {
        input.disabled = true;
        refusal.textContent = "";
        try {
          input.checked = (await this.#duet.preferences({ [name]: input.checked }))[name];
        } catch (error) {
          input.checked = !input.checked;
          refusal.textContent = sentence(error.message);
        }
        input.disabled = false;
      },
    });
    return h(
      "div",
      { class: "switch" },
      h("div", {}, h("label", { for: `switch-${name}` }, label), h("p", { id: `about-${name}` }, explanation), refusal),
      input,
    );
  }

  /** Another device may have changed them. */
  async #showPreferences() {
    if (!this.element.open || this.#section !== "privacy") return;
    try {
      const held = await this.#duet.preferences();
      for (const input of this.#panel.querySelectorAll("[role=switch]")) {
        if (!input.disabled) input.checked = held[input.name]; // else its own answer says it
      }
    } catch {
      // the next connection asks again
    }
  }

  /* ---- Devices ---- */

  async #devices() {
    const list = h("ul", { class: "devices" }, h("li", { class: "hint" }, "Loading…"));
    const everywhere = new Saving("Log out everywhere", "danger");
    const here = new Saving("Log out here", "quiet");
    const actions = h("div", { class: "actions" }, here.element, everywhere.element);
    here.onclick(() => this.#account.logOut());
    everywhere.onclick(() => this.#account.logOutEverywhere());
    this.#panel.replaceChildren(
      h("div", { class: "stack" }, h("p", { class: "hint" }, "Everywhere you are logged in. If you do not know one of them, log it out and change your password."), list, actions),
    );
    try {
      const sessions = await this.#account.sessions();
      list.replaceChildren(...sessions.reverse().map((session) => this.#device(session)));
    } catch (error) {
      list.replaceChildren(h("li", { class: "form-error" }, error.message));
    }
  }

  #device(session) {
    const saving = new Saving("Log out", "quiet");
    saving.onclick(async () => {
      await this.#account.endSession(session.id);
      await this.#devices();
    });
    return h(
      "li",
      { class: "device" },
      icon("device"),
      h(
        "div",
        {},
        h("p", { class: "name" }, session.device_name ?? session.user_agent?.split(" ")[0] ?? "Unknown device", session.current && h("span", { class: "tag" }, "this one")),
        h("p", { class: "hint" }, `Logged in ${time.ago(session.created_at)} · active ${time.ago(session.refreshed_at)}`),
      ),
      !session.current && saving.element,
    );
  }

  /* ---- Blocked people ---- */

  #blocked() {
    const people = [...this.#model.blocked].map((id) => this.#model.conversations.get(id) ?? { peerId: id, name: "Somebody", face: { name: "?", key: id } });
    this.#panel.replaceChildren(
      h(
        "div",
        { class: "stack" },
        h("p", { class: "hint" }, "They cannot write to you, nor see when you are online. They are not told."),
        people.length === 0
          ? h("p", { class: "empty-note" }, "You block nobody.")
          : h("ul", { class: "devices" }, people.map((person) => this.#blockedPerson(person))),
      ),
    );
  }

  #blockedPerson(person) {
    const saving = new Saving("Unblock", "quiet");
    saving.onclick(() => this.#model.setBlocked(person, false));
    return h("li", { class: "device" }, avatar(person.face), h("p", { class: "name" }, person.name), saving.element);
  }
}

/** Use these colours here from now on. */
export function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  if (theme === "system") ofBrowser.delete("duet-theme");
  else ofBrowser.set("duet-theme", theme);
}
