/** The form of the own profile. */

import { avatar, BUILT_IN, builtInUrl, shownUrl } from "./avatar.js";
import { h } from "./dom.js";
import { area, field, Saving } from "./fields.js";

/** Show the form of the own profile in `panel`; the address of a picture only where one may be. */
export function showProfile(panel, model, account, imageOrigins) {
  const { me } = model;
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
        saving.run(() => save(changes, model, account, () => showProfile(panel, model, account, imageOrigins)), fields);
      },
    },
    h("div", { class: "profile-top" }, face, h("div", {}, h("p", { class: "profile-username" }, `@${me.username}`), choices)),
    imageOrigins.length > 0 && link.element,
    display.element,
    status.element,
    bio.element,
    saving.element,
  );
  panel.replaceChildren(form);
  show();
  return saving;
}

async function save(changes, model, account, showAgain) {
  try {
    const { profile, etag } = await account.updateProfile(changes, model.etag);
    model.takeOwn(profile, etag);
  } catch (error) {
    if (error.code !== "precondition_failed") throw error;
    await model.loadOwn();
    showAgain().note.textContent = "It was changed on another device. This is how it is now.";
  }
}

function choice(label, url, content, onclick) {
  return h("button", { type: "button", role: "radio", class: "avatar-choice", data: { url: url ?? "" }, title: label, aria: { label, checked: "false" }, onclick }, content);
}

function builtIn(avatarUrl) {
  const shown = shownUrl(avatarUrl);
  return shown?.startsWith("/avatars/") ? new URL(shown, location.origin).href : avatarUrl;
}
