/** Where the page begins: who is here, then the conversations. */

import { Account, browserStore, Duet, memoryStore } from "../duet.js";
import { letIn } from "./auth.js";
import { allowImages } from "./avatar.js";
import { Chat } from "./chat.js";
import { forgetDrafts } from "./drafts.js";
import { ofTab } from "./storage.js";

const REASON = "duet-reason";
const root = document.getElementById("app");

/** The browser's database, or memory where it is switched off. */
async function openStore() {
  const store = browserStore();
  try {
    await store.get("session");
    return store;
  } catch {
    return memoryStore();
  }
}

async function configuration() {
  for (let delayMs = 500; ; delayMs = Math.min(8_000, delayMs * 2)) {
    try {
      const answer = await fetch("client-config.json");
      if (answer.ok) return await answer.json();
    } catch {
      // asked again below
    }
    await new Promise((resolve) => setTimeout(resolve, delayMs));
  }
}

async function main() {
  const [config, store] = await Promise.all([configuration(), openStore()]);
  allowImages(config.image_origins);
  const account = new Account({ url: location.origin, store });
  await account.load();
  if (!account.session) {
    forgetDrafts(); // here, as a page that ends may keep one more
    await Promise.race([letIn(root, account, { reason: takeReason() }), comesIn(account)]);
  }
  ofTab.set(REASON, await converse(account, config));
  location.hash = "";
  location.reload(); // nothing of the one who was here stays behind
}

/** Why the page ended the last time, for the way in to say. */
function takeReason() {
  const reason = ofTab.get(REASON);
  ofTab.delete(REASON);
  return reason;
}

/** Another tab has logged in. */
function comesIn(account) {
  return new Promise((resolve) => {
    const off = account.on("session", (session) => {
      if (session === null) return;
      off();
      resolve();
    });
  });
}

/** Show the conversations until the session ends. Resolves with why it did. */
async function converse(account, config) {
  const { user, session_id } = account.session;
  const duet = new Duet({ url: config.gateway_url, account });
  const ended = new Promise((resolve) => {
    duet.on("state", ({ state, reason }) => {
      if (state === "ended" && (reason === "signed_out" || reason === "refused")) resolve(reason);
    });
  });
  account.on("session", (session) => {
    if (session && session.user.id !== user.id) location.reload();
  });
  const chat = new Chat(duet, account, config);
  root.replaceChildren(chat.element);
  await duet.start();
  chat.start();
  const reason = await ended;
  if (account.session?.session_id === session_id) await account.forget();
  await duet.stop();
  return reason;
}

main();
