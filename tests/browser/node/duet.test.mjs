/** clients/web/duet.js against both real services, with faults between them. */

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { Account, Duet, DuetError, fileStore, memoryStore, uuidv7 } from "../../../clients/web/duet.js";
import { FaultyProxy, Services } from "./services.mjs";

const PASSWORD = "correct horse battery";
let services;
let proxy;
let names = 0;

before(async () => {
  services = await Services.start({ DUET_MESSAGES_PER_S: "1000", DUET_MESSAGE_BURST: "1000" });
  proxy = await FaultyProxy.start(() => services.gatewayPort);
});
after(async () => {
  proxy.stop();
  await services.stop();
});

/** Somebody new, connected; through the proxy unless another URL is given. */
async function person({ url = proxy.url, store = memoryStore(), ...options } = {}) {
  const account = new Account({ url: services.profileUrl, store });
  await account.signUp({ username: `person-${process.pid}-${names++}`, password: PASSWORD });
  return device(account, { url, ...options });
}

async function device(account, options = {}) {
  const duet = new Duet({
    url: proxy.url,
    account,
    backoffBaseMs: 20,
    backoffMaxMs: 200,
    ...options,
  });
  duet.heard = [];
  duet.on("message", (message) => duet.heard.push(message));
  const live = duet.once("live");
  await duet.start();
  await live;
  return duet;
}

async function anotherDevice(of, options) {
  const account = new Account({ url: services.profileUrl });
  await account.logIn({ username: of.user.username, password: PASSWORD });
  return device(account, options);
}

/** Resolve when `duet` has heard so many messages. */
async function heard(duet, count) {
  while (duet.heard.length < count) await duet.once("message");
  return duet.heard.map((message) => message.text);
}

const direct = () => ({ url: services.gatewayUrl });
/** Drop what is sent until told otherwise. Resolves when the first text was dropped. */
const textDropped = () =>
  new Promise((resolve) => {
    proxy.fromClient = (frame) => (frame.type === "send" ? (resolve(), "drop") : "pass");
  });
const numbered = (count) => Array.from({ length: count }, (_, i) => `message ${i + 1}`);

async function texts(duet, peer) {
  const page = await duet.history(peer.user.id, { limit: 200 });
  assert.deepEqual(
    page.messages.map((message) => message.seq),
    page.messages.map((_, i) => i + 1),
  );
  return page.messages.map((message) => message.text);
}

describe("ids", () => {
  test("are UUIDv7 and sort by time", () => {
    assert.match(uuidv7(), /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    const before = Date.now();
    const ids = Array.from({ length: 10_000 }, uuidv7);
    assert.deepEqual(ids, [...ids].sort());
    assert.equal(new Set(ids).size, ids.length);
    assert.ok(parseInt(ids[0].replaceAll("-", "").slice(0, 12), 16) >= before);
  });
});

describe("types", () => {
  test("name every public member", async () => {
    const file = new URL("../../../clients/web/duet.d.ts", import.meta.url);
    const types = await readFile(file, "utf8");
    const account = new Account();
    const duet = new Duet({ url: "", account, WebSocket: class {} });
    for (const one of [account, duet]) {
      const { name } = one.constructor;
      const body = types.split(`export class ${name} `)[1].split("\n}")[0];
      const members = [one, Object.getPrototypeOf(one)].flatMap(Object.getOwnPropertyNames);
      const isNamed = (member) => new RegExp(`^  (readonly )?${member}[(:]`, "m").test(body);
      assert.deepEqual(members.filter((member) => !isNamed(member)), []);
    }
  });
});

describe("a conversation", () => {
  test("goes both ways, with receipts and typing", async () => {
    const [ann, bob] = [await person(), await person()];
    const ack = await ann.send(bob.user.id, "hello");
    assert.equal(ack.seq, 1);
    assert.equal(ack.duplicate, false);
    await heard(bob, 1);
    const received = await ann.once("receipt");
    assert.equal(received.received, 1);
    const typing = ann.once("typing");
    bob.typing(ann.user.id);
    assert.equal((await typing).from, bob.user.id);
    const read = ann.once("receipt");
    bob.markRead(ack.conversation, 1);
    assert.equal((await read).read, 1);
    await bob.send(ann.user.id, "hi");
    assert.deepEqual(await heard(ann, 1), ["hi"]);
    await Promise.all([ann.stop(), bob.stop()]);
  });

  test("edits and deletes are told once", async () => {
    const [ann, bob] = [await person(), await person()];
    const ack = await ann.send(bob.user.id, "helo");
    const edited = bob.once("edited");
    await ann.edit(ack, "hello");
    assert.equal((await edited).text, "hello");
    const deleted = bob.once("deleted");
    await ann.delete(ack);
    assert.equal((await deleted).seq, 1);
    await Promise.all([ann.stop(), bob.stop()]);
  });

  test("another device is told what to ask for again", async () => {
    const [ann, bob] = [await person(), await person()];
    const phone = await anotherDevice(ann);
    const blocked = phone.once("changed");
    await ann.block(bob.user.id);
    assert.equal((await blocked).what, "blocks");
    assert.deepEqual(await phone.blocks(), [bob.user.id]);
    const hidden = ann.once("changed");
    await phone.preferences({ share_reads: false });
    assert.equal((await hidden).what, "preferences");
    assert.equal((await ann.preferences()).share_reads, false);
    await Promise.all([ann.stop(), bob.stop(), phone.stop()]);
  });

  test("refusal for good rejects, stays in the outbox as failed, and stops nothing else", async () => {
    const [ann, bob] = [await person(), await person()];
    await bob.block(ann.user.id);
    const failed = ann.once("failed");
    await assert.rejects(ann.send(bob.user.id, "hello"), (error) => {
      assert.ok(error instanceof DuetError);
      assert.equal(error.code, "blocked");
      return true;
    });
    const { entry } = await failed;
    assert.deepEqual(
      ann.outbox(bob.user.id).map((kept) => kept.failed.code),
      ["blocked"],
    );
    await bob.unblock(ann.user.id);
    await ann.send(bob.user.id, "now?");
    const acked = ann.once("acked");
    await ann.retry(entry.id);
    assert.equal((await acked).entry.text, "hello");
    assert.deepEqual(await heard(bob, 2), ["now?", "hello"]);
    await Promise.all([ann.stop(), bob.stop()]);
  });
});

describe("faults", () => {
  test("ack dropped after the commit: the retry is answered, and nothing is stored twice", async () => {
    const [ann, bob] = [await person({ answerTimeoutMs: 200 }), await person(direct())];
    let dropped = 0;
    proxy.fromServer = (frame) => (frame.type === "ack" && dropped++ === 0 ? "drop" : "pass");
    const acks = await Promise.all(numbered(5).map((text) => ann.send(bob.user.id, text)));
    proxy.fromServer = () => "pass";
    assert.ok(dropped > 1);
    assert.deepEqual(acks.map((ack) => ack.seq), [1, 2, 3, 4, 5]);
    assert.deepEqual(await heard(bob, 5), numbered(5));
    assert.deepEqual(await texts(ann, bob), numbered(5));
    assert.deepEqual(ann.heard, []);
    await Promise.all([ann.stop(), bob.stop()]);
  });

  test("connection cut in place of each third ack: once, in order", async () => {
    const [ann, bob] = [await person(), await person(direct())];
    let acks = 0;
    proxy.fromServer = (frame) => (frame.type === "ack" && ++acks % 3 === 0 ? "cut" : "pass");
    await Promise.all(numbered(20).map((text) => ann.send(bob.user.id, text)));
    proxy.fromServer = () => "pass";
    assert.deepEqual(await heard(bob, 20), numbered(20));
    assert.deepEqual(await texts(ann, bob), numbered(20));
    await Promise.all([ann.stop(), bob.stop()]);
  });

  test("connection cut within a send: once, in order", async () => {
    const [ann, bob] = [await person(), await person(direct())];
    let sends = 0;
    proxy.fromClient = (frame) => (frame.type === "send" && ++sends % 4 === 0 ? "cut_within" : "pass");
    await Promise.all(numbered(20).map((text) => ann.send(bob.user.id, text)));
    proxy.fromClient = () => "pass";
    assert.deepEqual(await heard(bob, 20), numbered(20));
    assert.deepEqual(await texts(ann, bob), numbered(20));
    await Promise.all([ann.stop(), bob.stop()]);
  });

  test("every frame doubled in both directions: told once", async () => {
    const [ann, bob] = [await person(), await person()];
    const twice = (frame) => (frame.type === "connect" ? "pass" : "double");
    proxy.fromServer = proxy.fromClient = twice;
    await Promise.all(numbered(10).map((text) => ann.send(bob.user.id, text)));
    const last = await bob.send(ann.user.id, "done");
    await heard(ann, 1);
    await ann.edit({ ...last, seq: 1 }, "edited");
    proxy.fromServer = proxy.fromClient = () => "pass";
    assert.deepEqual(await heard(bob, 10), numbered(10));
    assert.deepEqual(ann.heard.map((message) => message.text), ["done"]);
    assert.deepEqual(await texts(ann, bob), ["edited", ...numbered(10).slice(1), "done"]);
    await Promise.all([ann.stop(), bob.stop()]);
  });

  test("recipient cut after each second message resumes without a gap or a double", async () => {
    const [ann, bob] = [await person(direct()), await person()];
    let messages = 0;
    proxy.fromServer = (frame) => (frame.type === "message" && ++messages % 2 === 0 ? "cut" : "pass");
    await Promise.all(numbered(12).map((text) => ann.send(bob.user.id, text)));
    assert.deepEqual(await heard(bob, 12), numbered(12));
    proxy.fromServer = () => "pass";
    await Promise.all([ann.stop(), bob.stop()]);
  });

  test("gateway killed in the middle of sending: once, in order, on every device", async () => {
    const [ann, bob] = [await person(direct()), await person(direct())];
    const tablet = await anotherDevice(ann, direct());
    let acked = 0;
    const third = new Promise((resolve) => ann.on("acked", () => ++acked === 3 && resolve()));
    const sent = Promise.all(numbered(30).map((text) => ann.send(bob.user.id, text)));
    await third;
    await services.killGateway();
    await services.startGateway();
    await sent;
    assert.deepEqual(await heard(bob, 30), numbered(30));
    assert.deepEqual(await heard(tablet, 30), numbered(30));
    assert.deepEqual(await texts(ann, bob), numbered(30));
    await Promise.all([ann.stop(), bob.stop(), tablet.stop()]);
  });

  test("gateway that drains is left and found again", async () => {
    const ann = await person(direct());
    const waiting = new Promise((resolve) =>
      ann.on("state", (detail) => detail.state === "waiting" && resolve(detail)),
    );
    await services.gateway.end("SIGTERM");
    assert.ok((await waiting).retryAt - Date.now() > 200);
    const live = ann.once("live");
    await services.startGateway();
    ann.reconnect();
    assert.deepEqual(await live, { fresh: false });
    await ann.stop();
  });
});

describe("refusals", () => {
  test("mark that was refused for its pace is sent again", async () => {
    const [ann, bob] = [await person(direct()), await person({ autoReceived: false })];
    const ack = await ann.send(bob.user.id, "hello");
    await heard(bob, 1);
    const refused = new Promise((resolve) => {
      proxy.fromClient = (frame) => (frame.type === "read" ? (resolve(frame), "drop") : "pass");
    });
    bob.markRead(ack.conversation, 1);
    await refused;
    proxy.fromClient = () => "pass";
    const read = ann.once("receipt");
    proxy.inject({ type: "error", code: "rate_limited", retryable: true, retry_after_ms: 20 });
    assert.equal((await read).read, 1);
    await Promise.all([ann.stop(), bob.stop()]);
  });

  test("text that would end the connection fails alone, from an earlier run too", async () => {
    const store = memoryStore();
    const [ann, bob] = [await person({ ...direct(), store }), await person(direct())];
    const states = [];
    ann.on("state", ({ state }) => states.push(state));
    for (const text of ["half of \ud83d", "x".repeat(70_000)]) {
      await assert.rejects(ann.send(bob.user.id, text), { code: "invalid_frame" });
      await assert.rejects(ann.search(text), { code: "invalid_frame" });
    }
    await ann.send(bob.user.id, "\\ud83d and 🙂");
    assert.deepEqual(states, []);
    await ann.stop();
    for (const { failed, ...entry } of await store.entries()) await store.put(entry);
    const again = await device(new Account({ url: services.profileUrl, store }), direct());
    await again.send(bob.user.id, "done");
    assert.deepEqual(await heard(bob, 2), ["\\ud83d and 🙂", "done"]);
    assert.deepEqual(
      again.outbox().map((entry) => entry.failed.code),
      ["invalid_frame", "invalid_frame"],
    );
    await Promise.all([again.stop(), bob.stop()]);
  });

  test("long outbox keeps below the announced pace, clock set back or not", async (t) => {
    const slow = await Services.start({ DUET_MESSAGES_PER_S: "200", DUET_MESSAGE_BURST: "10" });
    const now = Date.now;
    let setBackMs = 0;
    t.mock.method(Date, "now", () => now() - setBackMs);
    const people = [];
    for (const username of ["ann", "bob"]) {
      const account = new Account({ url: slow.profileUrl });
      await account.signUp({ username, password: PASSWORD });
      people.push(await device(account, { url: slow.gatewayUrl }));
    }
    const [ann, bob] = people;
    const states = [];
    ann.on("state", ({ state }) => states.push(state));
    await Promise.all(numbered(60).map((text) => ann.send(bob.user.id, text)));
    assert.deepEqual(await heard(bob, 60), numbered(60));
    setBackMs = 3_600_000;
    await Promise.all(numbered(20).map((text) => ann.send(bob.user.id, text)));
    assert.deepEqual(await heard(bob, 80), [...numbered(60), ...numbered(20)]);
    assert.deepEqual(states, []);
    await Promise.all([ann.stop(), bob.stop()]);
    await slow.stop();
  });
});

describe("offline", () => {
  test("what is written while the gateway is away is sent once when it is back", async () => {
    const [ann, bob] = [await person(direct()), await person(direct())];
    const down = ann.once("state");
    await services.killGateway();
    await down;
    let queued = 0;
    const all = new Promise((resolve) => ann.on("queued", () => ++queued === 3 && resolve()));
    const sent = Promise.all(numbered(3).map((text) => ann.send(bob.user.id, text)));
    await all;
    assert.deepEqual(ann.outbox(bob.user.id).map((entry) => entry.text), numbered(3));
    await services.startGateway();
    await sent;
    assert.deepEqual(await heard(bob, 3), numbered(3));
    assert.deepEqual(ann.outbox(), []);
    await Promise.all([ann.stop(), bob.stop()]);
  });

  test("outbox in a file is sent by the next process, with the same ids", async () => {
    const folder = await mkdtemp(join(tmpdir(), "duet-store-"));
    const store = await fileStore(join(folder, "store.json"));
    const [ann, bob] = [await person({ store }), await person(direct())];
    proxy.fromServer = (frame) => (frame.type === "ack" ? "drop" : "pass");
    ann.send(bob.user.id, "stored, not acknowledged");
    await heard(bob, 1);
    ann.send(bob.user.id, "never sent");
    await ann.stop();
    proxy.fromServer = () => "pass";

    const reopened = await fileStore(join(folder, "store.json"));
    assert.equal((await reopened.entries()).length, 2);
    const account = new Account({ url: services.profileUrl, store: reopened });
    const again = await device(account, direct());
    assert.deepEqual(await heard(bob, 2), ["stored, not acknowledged", "never sent"]);
    assert.deepEqual(await texts(again, bob), ["stored, not acknowledged", "never sent"]);
    await Promise.all([again.stop(), bob.stop()]);
    await rm(folder, { recursive: true });
  });

  test("text written before the start is sent by the next process, if not by this one", async () => {
    const store = memoryStore();
    const bob = await person(direct());
    const account = new Account({ url: services.profileUrl, store });
    await account.signUp({ username: `person-${process.pid}-${names++}`, password: PASSWORD });
    const dropped = textDropped();
    const early = new Duet({ url: proxy.url, account });
    early.send(bob.user.id, "hello");
    await early.start();
    await dropped;
    await early.stop();
    proxy.fromClient = () => "pass";
    const again = await device(new Account({ url: services.profileUrl, store }), direct());
    assert.deepEqual(await heard(bob, 1), ["hello"]);
    await Promise.all([again.stop(), bob.stop()]);
  });

  test("outbox waits for its person to log in again, and is nobody else's", async () => {
    const bob = await person(direct());
    const account = new Account({ url: services.profileUrl });
    const username = `person-${process.pid}-${names++}`;
    await account.signUp({ username, password: PASSWORD });
    let dropped = textDropped();
    const duet = await device(account);
    const start = async () => {
      const live = duet.once("live");
      duet.reconnect();
      await live;
    };
    const first = duet.send(bob.user.id, "of the first");
    await dropped;
    const ended = new Promise((resolve) =>
      duet.on("state", ({ state, reason }) => state === "ended" && resolve(reason)),
    );
    await account.call("DELETE", "/v1/sessions"); // as from another device
    assert.equal(await ended, "signed_out");
    await account.logIn({ username, password: PASSWORD });
    proxy.fromClient = () => "pass";
    await start();
    assert.equal((await first).seq, 1);
    assert.deepEqual(await heard(bob, 1), ["of the first"]);

    dropped = textDropped();
    const notSent = duet.send(bob.user.id, "of the first, not sent");
    await dropped;
    await duet.stop();
    await account.signUp({ username: `person-${process.pid}-${names++}`, password: PASSWORD });
    proxy.fromClient = () => "pass";
    await start();
    await assert.rejects(notSent, { code: "signed_out" });
    await duet.send(bob.user.id, "of the second");
    assert.deepEqual(await heard(bob, 2), ["of the first", "of the second"]);
    await Promise.all([duet.stop(), bob.stop()]);
  });

  test("log-out rejects what was on its way, since it empties the outbox", async () => {
    const store = memoryStore();
    const bob = await person(direct());
    const account = new Account({ url: services.profileUrl, store });
    await account.signUp({ username: `person-${process.pid}-${names++}`, password: PASSWORD });
    const duet = await device(account);
    const dropped = textDropped();
    const sent = ["one", "two"].map((text) => duet.send(bob.user.id, text));
    await dropped;
    await account.logOut();
    proxy.fromClient = () => "pass";
    for (const each of sent) await assert.rejects(each, { code: "signed_out" });
    assert.deepEqual(await store.entries(), []);
    await Promise.all([duet.stop(), bob.stop()]);
  });

  test("cursor in the store: the next process hears what it missed", async () => {
    const store = memoryStore();
    const [ann, bob] = [await person(), await person({ store, rememberCursor: true })];
    await ann.send(bob.user.id, "one");
    await heard(bob, 1);
    await bob.stop();
    await ann.send(bob.user.id, "two");
    const again = await device(new Account({ url: services.profileUrl, store }), {
      rememberCursor: true,
    });
    assert.deepEqual(await heard(again, 1), ["two"]);
    await Promise.all([ann.stop(), again.stop()]);
  });

  test("store that cannot take the cursor stops nothing, and is tried again", async () => {
    const store = memoryStore();
    const ann = await person(direct());
    const bob = await person({ ...direct(), store, rememberCursor: true });
    const set = store.set;
    const refused = new Promise((resolve) => {
      store.set = async () => {
        resolve();
        throw new Error("No space left on device");
      };
    });
    await refused;
    const stored = new Promise((resolve) => {
      store.set = async (...entry) => resolve(await set(...entry));
    });
    await ann.send(bob.user.id, "hello");
    await stored;
    assert.equal(await store.get("cursor"), bob.cursor);
    await Promise.all([ann.stop(), bob.stop()]);
  });
});

describe("tokens", () => {
  test("twenty callers at once cause one renewal", async () => {
    const renewals = [];
    const counting = (url, init) => {
      if (url.endsWith("/v1/token")) renewals.push(url);
      return fetch(url, init);
    };
    const account = new Account({ url: services.profileUrl, fetch: counting });
    await account.signUp({ username: `person-${process.pid}-${names++}`, password: PASSWORD });
    const old = account.session.access_token;
    const tokens = await Promise.all(Array.from({ length: 20 }, () => account.accessToken(old)));
    assert.equal(new Set(tokens).size, 1);
    assert.notEqual(tokens[0], old);
    assert.equal(renewals.length, 1);
  });

  test("renewed token is stored before anybody uses it", async () => {
    const store = memoryStore();
    const account = new Account({ url: services.profileUrl, store });
    await account.signUp({ username: `person-${process.pid}-${names++}`, password: PASSWORD });
    const old = account.session.access_token;
    let goOn;
    const storing = new Promise((resolve) => {
      const set = store.set;
      store.set = async (key, value) => {
        await new Promise((go) => resolve((goOn = go)));
        return set(key, value);
      };
    });
    const first = account.accessToken(old);
    await storing;
    assert.equal(account.session.access_token, old);
    const second = account.accessToken(old).then(async (token) => {
      assert.equal((await store.get("session")).access_token, token);
      return token;
    });
    goOn();
    assert.equal(await second, await first);
    assert.notEqual(await first, old);
  });

  test("log-out stands though a renewal was under way", async () => {
    const store = memoryStore();
    let answer;
    let held = null;
    const slow = async (url, init) => {
      const response = await fetch(url, init);
      if (held !== null) await new Promise((go) => held((answer = go)));
      return response;
    };
    const account = new Account({ url: services.profileUrl, store, fetch: slow });
    await account.signUp({ username: `person-${process.pid}-${names++}`, password: PASSWORD });
    const renewing = new Promise((resolve) => (held = resolve));
    const renewal = account.accessToken(account.session.access_token);
    await renewing;
    await account.forget();
    answer();
    await assert.rejects(renewal, { code: "signed_out" });
    assert.equal(account.session, null);
    assert.equal(await store.get("session"), undefined);
  });

  test("refused access token is renewed and the connection made", async () => {
    const account = new Account({ url: services.profileUrl });
    await account.signUp({ username: `person-${process.pid}-${names++}`, password: PASSWORD });
    const good = account.session.access_token;
    await account.store.set("session", { ...account.session, access_token: "refused" });
    await account.load();
    assert.equal(await account.accessToken(), "refused");
    const ann = await device(account);
    assert.notEqual(account.session.access_token, "refused");
    assert.notEqual(account.session.access_token, good);
    await ann.stop();
  });

  test("access token refused after a long outage is renewed, too", async () => {
    const account = new Account({ url: services.profileUrl });
    await account.signUp({ username: `person-${process.pid}-${names++}`, password: PASSWORD });
    const ann = await device(account, direct());
    let failures = 0;
    const tried = new Promise((resolve) =>
      ann.on("state", ({ state }) => state === "waiting" && ++failures === 6 && resolve()),
    );
    await services.killGateway();
    await tried;
    await account.store.set("session", { ...account.session, access_token: "refused" });
    await account.load();
    const ended = new Promise((_, reject) =>
      ann.on("state", ({ state, reason }) => state === "ended" && reject(new Error(reason))),
    );
    const live = ann.once("live");
    await services.startGateway();
    await Promise.race([live, ended]);
    ended.catch(() => {});
    await ann.stop();
  });

  test("token that ends is renewed within the connection", async () => {
    const ann = await person();
    const states = [];
    ann.on("state", ({ state }) => states.push(state));
    const refreshed = new Promise((resolve) => {
      proxy.fromServer = (frame) => (frame.type === "refreshed" && resolve(frame), "pass");
    });
    proxy.inject({ type: "expiring", in_s: 1 });
    await refreshed;
    proxy.fromServer = () => "pass";
    await ann.preferences();
    assert.deepEqual(states, []);
    await ann.stop();
  });

  test("client whose session another tab has replaced ends and leaves the new one alone", async () => {
    const store = memoryStore(); // tells nobody, as when a tab was asleep
    const duet = await person({ ...direct(), store });
    const ended = new Promise((resolve) =>
      duet.on("state", ({ state, reason }) => state === "ended" && resolve(reason)),
    );
    await services.killGateway();
    const other = new Account({ url: services.profileUrl, store });
    await other.load();
    await other.logOut();
    await other.logIn({ username: duet.user.username, password: PASSWORD });
    await services.startGateway();
    duet.reconnect();
    assert.equal(await ended, "signed_out");
    assert.deepEqual(await store.get("session"), other.session);
    await other.me();
  });

  test("session that is forgotten is one's own", async () => {
    const store = memoryStore();
    const username = `person-${process.pid}-${names++}`;
    const [asleep, other] = [1, 2].map(() => new Account({ url: services.profileUrl, store }));
    await asleep.signUp({ username, password: PASSWORD });
    await other.logIn({ username, password: PASSWORD });
    await asleep.forget({ outboxToo: true });
    assert.equal(asleep.session, null);
    assert.deepEqual(await store.get("session"), other.session);
    await other.forget();
    assert.equal(await store.get("session"), undefined);
  });

  test("log out everywhere ends the other device's client", async () => {
    const ann = await person();
    const tablet = await anotherDevice(ann);
    const ended = new Promise((resolve) =>
      tablet.on("state", (detail) => detail.state === "ended" && resolve(detail)),
    );
    const account = new Account({ url: services.profileUrl });
    await account.logIn({ username: ann.user.username, password: PASSWORD });
    await account.logOutEverywhere();
    assert.equal((await ended).reason, "signed_out");
  });
});
