/** The own account: its password, a copy of its conversations, and its end. */

import { h } from "./dom.js";
import { field, Saving } from "./fields.js";
import { judge, WORDS } from "./password.js";

/** Show in `panel` what concerns the account as a whole: its password, a copy, its end. */
export function showAccount(panel, model, duet, account) {
  const current = field("current-password", "Current password", { type: "password", autocomplete: "current-password", maxlength: 1024 });
  const fresh = field("new-password", "New password", { type: "password", autocomplete: "new-password", maxlength: 128 });
  const verdict = h("p", { class: "hint", role: "status" });
  fresh.input.addEventListener("input", () => {
    const { score, hint } = judge(fresh.input.value, [model.me.username]);
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
            await account.changePassword(current.input.value, fresh.input.value);
            current.input.value = fresh.input.value = "";
            verdict.textContent = "";
          },
          { current_password: current, new_password: fresh },
          "Changed. Every other device is logged out.",
        );
      },
    },
    h("h3", {}, "Password"),
    h("input", { class: "visually-hidden", type: "text", autocomplete: "username", value: model.me.username, tabindex: -1, readonly: true, aria: { hidden: "true" } }),
    current.element,
    fresh.element,
    verdict,
    changing.element,
  );
  panel.replaceChildren(h("div", { class: "stack" }, password, exporting(duet), deleting(account)));
}

function exporting(duet) {
  const saving = new Saving("Save a copy", "quiet");
  saving.onclick(async () => {
    const pieces = [];
    await duet.export((lines) => pieces.push(lines));
    const url = URL.createObjectURL(new Blob(pieces, { type: "application/jsonl" }));
    h("a", { href: url, download: "duet-conversations.jsonl" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  });
  return h("div", { class: "card stack" }, h("h3", {}, "Your conversations"), h("p", { class: "hint" }, "All of your messages in one file, as JSON Lines."), saving.element);
}

function deleting(account) {
  const password = field("delete-password", "Your password, to confirm", { type: "password", autocomplete: "current-password", maxlength: 1024 });
  const saving = new Saving("Delete account", "danger");
  const form = h(
    "form",
    {
      class: "stack",
      novalidate: true,
      onsubmit: (event) => {
        event.preventDefault();
        saving.run(() => account.deleteAccount(password.input.value), { current_password: password, password });
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
