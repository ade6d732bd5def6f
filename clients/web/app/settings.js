/** The settings: profile, what others may see, devices, who is blocked, the account. */

import { field, sentence } from "./auth.js";
import { avatar, BUILT_IN, builtInUrl, shownUrl } from "./avatar.js";
import { h, icon, iconButton } from "./dom.js";
import { judge, WORDS } from "./password.js";
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
  }

  #tabs;
  #panel;

  open(section = "profile") {
    if (!this.element.open) this.element.showModal();
    this.show(section);
    this.#tabs[SECTIONS.findIndex(([name]) => name === section)].focus();
  }

  show(section) {
    for (const [i, [name]] of SECTIONS.entries()) {
      this.#tabs[i].setAttribute("aria-selected", String(name === section));
      this.#tabs[i].tabIndex = name === section ? 0 : -1;
    }
    this.#panel.setAttribute("aria-labelledby", `tab-${section}`);
    this.#panel.scrollTop = 0;
    const build = {
      profile: () => this.#profile(),
      privacy: () => this.#privacy(),
      devices: () => this.#devices(),
      blocked: () => this.#blocked(),
      account: () => this.#accountSection(),
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

  /* ---- Profile ---- */

  #profile() {
    const me = this.#model.me;
    let avatarUrl = me.avatar_url;
    const face = h("div", { class: "profile-face" });
    const display = field("profile-name", "Name", { maxlength: 64, autocomplete: "name", value: me.display_name ?? "" });
    const status = field("profile-status", "Status", { maxlength: 140, placeholder: "What are you up to?", value: me.status_text ?? "" });
    const bio = area("profile-bio", "About you", { maxlength: 500, rows: 3, value: me.bio ?? "" });
    const link = field("profile-avatar", "Or the address of a picture", { type: "url", maxlength: 512, value: shownUrl(avatarUrl)?.startsWith("/") ? "" : (avatarUrl ?? "") });
    const show = () => {
      face.replaceChildren(avatar({ name: display.input.value || me.username, key: me.id, avatarUrl }, "large"));
      for (const choice of choices.children) {
        choice.setAttribute("aria-checked", String((choice.dataset.url || null) === (builtIn(avatarUrl) ?? null)));
      }
    };
    const choose = (url) => {
      avatarUrl = url;
      link.input.value = "";
      show();
    };
    const choices = h(
      "div",
      { class: "avatar-choices", role: "radiogroup", aria: { label: "Picture" } },
      choice("Initial", null, h("span", { class: "avatar-letter" }, [...(me.display_name || me.username)][0].toUpperCase()), () => choose(null)),
      BUILT_IN.map((name) =>
        choice(name, builtInUrl(name), h("img", { src: `avatars/${name}.svg`, alt: "", width: 40, height: 40 }), () => choose(builtInUrl(name))),
      ),
    );
    link.input.addEventListener("change", () => {
      avatarUrl = link.input.value.trim() || null;
      show();
    });
    display.input.addEventListener("input", show);
    const saving = new Saving("Save profile");
    const fields = { display_name: display, status_text: status, bio, avatar_url: link };
    const form = h(
      "form",
      {
        class: "stack",
        novalidate: true,
        onsubmit: (event) => {
          event.preventDefault();
          const changes = {
            display_name: display.input.value.trim() || null,
            status_text: status.input.value.trim() || null,
            bio: bio.input.value.trim() || null,
            avatar_url: avatarUrl,
          };
          saving.run(() => this.#saveProfile(changes), fields);
        },
      },
      h("div", { class: "profile-top" }, face, h("div", {}, h("p", { class: "profile-username" }, `@${me.username}`), choices)),
      this.#imageOrigins.length > 0 && link.element,
      display.element,
      status.element,
      bio.element,
      saving.element,
    );
    this.#panel.replaceChildren(form);
    show();
  }

  async #saveProfile(changes) {
    try {
      const { profile, etag } = await this.#account.updateProfile(changes, this.#model.etag);
      this.#model.takeOwn(profile, etag);
    } catch (error) {
      if (error.code !== "precondition_failed") throw error;
      await this.#model.loadOwn();
      this.#profile();
      throw new Error("Your profile was changed on another device. Here is how it is now.");
    }
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
    const input = h("input", {
      type: "checkbox",
      role: "switch",
      id: `switch-${name}`,
      checked: held[name],
      aria: { describedby: `about-${name}` },
      onchange: async () => {
        input.disabled = true;
        try {
          input.checked = (await this.#duet.preferences({ [name]: input.checked }))[name];
        } catch {
          input.checked = !input.checked;
        }
        input.disabled = false;
      },
    });
    return h(
      "div",
      { class: "switch" },
      h("div", {}, h("label", { for: `switch-${name}` }, label), h("p", { id: `about-${name}` }, explanation)),
      input,
    );
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
    saving.onclick(async () => {
      await this.#model.setBlocked(person, false);
      this.#blocked();
    });
    return h("li", { class: "device" }, avatar(person.face), h("p", { class: "name" }, person.name), saving.element);
  }

  /* ---- Account ---- */

  #accountSection() {
    const current = field("current-password", "Current password", { type: "password", autocomplete: "current-password", maxlength: 1024 });
    const fresh = field("new-password", "New password", { type: "password", autocomplete: "new-password", maxlength: 128 });
    const verdict = h("p", { class: "hint", role: "status" });
    fresh.input.addEventListener("input", () => {
      const { score, hint } = judge(fresh.input.value, [this.#model.me.username]);
      verdict.textContent = fresh.input.value ? `${WORDS[score]}${hint ? ". " : ""}${hint}` : "";
    });
    const changing = new Saving("Change password");
    const password = h(
      "form",
      {
        class: "stack card",
        novalidate: true,
        onsubmit: (event) => {
          event.preventDefault();
          changing.run(
            async () => {
              await this.#account.changePassword(current.input.value, fresh.input.value);
              current.input.value = fresh.input.value = "";
              verdict.textContent = "";
            },
            { current_password: current, new_password: fresh },
            "Changed. Every other device is logged out.",
          );
        },
      },
      h("h3", {}, "Password"),
      h("input", { class: "visually-hidden", type: "text", autocomplete: "username", value: this.#model.me.username, tabindex: -1, readonly: true, aria: { hidden: "true" } }),
      current.element,
      fresh.element,
      verdict,
      changing.element,
    );
    this.#panel.replaceChildren(h("div", { class: "stack" }, password, this.#exporting(), this.#deleting()));
  }

  #exporting() {
    const saving = new Saving("Save a copy", "quiet");
    saving.onclick(async () => {
      const pieces = [];
      await this.#duet.export((lines) => pieces.push(lines));
      const url = URL.createObjectURL(new Blob(pieces, { type: "application/jsonl" }));
      h("a", { href: url, download: "duet-conversations.jsonl" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
    });
    return h("div", { class: "card stack" }, h("h3", {}, "Your conversations"), h("p", { class: "hint" }, "All of your messages in one file, as JSON Lines."), saving.element);
  }

  #deleting() {
    const password = field("delete-password", "Your password, to confirm", { type: "password", autocomplete: "current-password", maxlength: 1024 });
    const saving = new Saving("Delete account", "danger");
    const form = h(
      "form",
      {
        class: "stack",
        novalidate: true,
        onsubmit: (event) => {
          event.preventDefault();
          saving.run(() => this.#account.deleteAccount(password.input.value), { current_password: password, password });
        },
      },
      password.element,
      saving.element,
    );
    return h(
      "details",
      { class: "card" },
      h("summary", {}, "Delete account"),
      h("p", { class: "hint" }, "Your profile and the text of every message you wrote are erased, for good. Your username is never given to anybody else."),
      form,
    );
  }
}

/** A button that is busy while its work goes on, and says how it ended. */
class Saving {
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

function area(name, label, attributes) {
  const made = field(name, label);
  const input = h("textarea", { id: `field-${name}`, name, ...attributes, aria: { describedby: `fault-${name}` } });
  made.input.replaceWith(input);
  return { ...made, input, showError: (text) => (made.showError(text), input.setAttribute("aria-invalid", String(text !== ""))) };
}

function choice(label, url, content, onclick) {
  return h("button", { type: "button", role: "radio", class: "avatar-choice", data: { url: url ?? "" }, title: label, aria: { label, checked: "false" }, onclick }, content);
}

function builtIn(avatarUrl) {
  const shown = shownUrl(avatarUrl);
  return shown?.startsWith("/avatars/") ? new URL(shown, location.origin).href : avatarUrl;
}

export function closeOnBackdrop(event) {
  if (event.target === event.currentTarget) event.currentTarget.close();
}

/** Use these colours here from now on. */
export function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (theme === "system") localStorage.removeItem("duet-theme");
    else localStorage.setItem("duet-theme", theme);
  } catch {
    // switched off: it holds until the page is closed
  }
}
