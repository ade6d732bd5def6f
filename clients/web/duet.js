/**
 * Duet for JavaScript: an account, and a client that neither loses nor doubles a message.
 *
 * One file without dependencies, for browsers and for Node.js 20 or newer (which needs a `WebSocket`
 * class passed in before Node.js 22). `duet.d.ts` has the types; docs/protocol.md the wire format.
 *
 *     const account = new Account({ url: "https://chat.example.org", store: browserStore() });
 *     await account.logIn({ username: "alice", password });
 *     const duet = new Duet({ url: "wss://chat.example.org/v1/ws", account });
 *     duet.on("message", (message) => console.log(message.from, message.text));
 *     await duet.start();
 *     await duet.send(bob.id, "hi");
 */

const SUBPROTOCOL = "duet.v1";
const EXPIRY_MARGIN_MS = 5_000;
const HTTP_TIMEOUT_MS = 15_000;
const ANSWER_TIMEOUT_MS = 20_000;
const PROBE_TIMEOUT_MS = 5_000;
const PROBE_AFTER_IDLE_MS = 30_000;
const CONNECT_TIMEOUT_MS = 15_000;
const STABLE_MS = 5_000;
const FLOOD_PAUSE_MS = 60_000;
const TYPING_INTERVAL_MS = 3_000;
const MARKS_DELAY_MS = 50;
const CURSOR_DELAY_MS = 250;
const REMEMBERED = 1_000;

/** What went wrong, by a stable `code`; `retryable` says whether the same call may succeed later. */
export class DuetError extends Error {
  constructor(code, message, details = {}) {
    super(message ?? code);
    this.name = "DuetError";
    this.code = code;
    this.retryable = false;
    Object.assign(this, details);
  }
}

let lastMs = 0;
let counter = 0;

/** Make a UUIDv7 (RFC 9562, section 6.2, method 1): each sorts after those made here before. */
export function uuidv7() {
  const now = Date.now();
  if (now > lastMs) {
    lastMs = now;
    counter = crypto.getRandomValues(new Uint16Array(1))[0] & 0x7ff;
  } else if (++counter > 0xfff) {
    lastMs += 1;
    counter = 0;
  }
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  for (let i = 0; i < 6; i++) bytes[i] = Math.floor(lastMs / 2 ** (8 * (5 - i))) % 256;
  bytes[6] = 0x70 | (counter >> 8);
  bytes[7] = counter & 0xff;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Calls listeners by the name of an event. A listener that throws does not stop the others. */
class Emitter {
  #listeners = new Map();

  /** Call `listener` for each event called `name`. Returns the function that takes it away. */
  on(name, listener) {
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
    this.#listeners.get(name).add(listener);
    return () => this.#listeners.get(name).delete(listener);
  }

  /** Wait for the next event called `name`. */
  once(name) {
    return new Promise((resolve) => {
      const off = this.on(name, (detail) => {
        off();
        resolve(detail);
      });
    });
  }

  emit(name, detail) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(detail);
      } catch (error) {
        setTimeout(() => {
          throw error;
        });
      }
    }
  }
}

/* ---- Stores: small values by key, and the outbox ------------------------------------------- */

/** Keep everything in memory: gone when the process ends. */
export function memoryStore() {
  const values = new Map();
  const outbox = new Map();
  const copy = (value) => (value === undefined ? undefined : structuredClone(value));
  return {
    get: async (key) => copy(values.get(key)),
    set: async (key, value) => void values.set(key, copy(value)),
    delete: async (key) => void values.delete(key),
    entries: async () => [...outbox.values()].map(copy).sort(byId),
    put: async (entry) => void outbox.set(entry.id, copy(entry)),
    remove: async (id) => void outbox.delete(id),
  };
}

/** Keep everything in one JSON file that only its owner can read. For Node.js, one process a file. */
export async function fileStore(path) {
  const { open, readFile, rename } = await import("node:fs/promises");
  let content = { values: {}, outbox: {} };
  try {
    content = JSON.parse(await readFile(path, "utf8"));
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  let writing = Promise.resolve();
  const save = () => {
    const text = JSON.stringify(content);
    writing = writing.catch(() => {}).then(async () => {
      const file = await open(`${path}.new`, "w", 0o600);
      try {
        await file.writeFile(text);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(`${path}.new`, path);
    });
    return writing;
  };
  return {
    get: async (key) => structuredClone(content.values[key]),
    set: (key, value) => ((content.values[key] = structuredClone(value)), save()),
    delete: (key) => (delete content.values[key], save()),
    entries: async () => structuredClone(Object.values(content.outbox)).sort(byId),
    put: (entry) => ((content.outbox[entry.id] = structuredClone(entry)), save()),
    remove: (id) => (delete content.outbox[id], save()),
  };
}

/**
 * Keep everything in the browser's IndexedDB, shared by all tabs of the origin.
 *
 * Tabs that share a store also share one token renewal, and finish the outbox of a closed one.
 */
export function browserStore(name = "duet") {
  let opened;
  const database = () =>
    (opened ??= new Promise((resolve, reject) => {
      const request = indexedDB.open(name, 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("values");
        request.result.createObjectStore("outbox", { keyPath: "id" });
      };
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    }));
  const run = async (table, mode, work) => {
    const transaction = (await database()).transaction(table, mode, { durability: "strict" });
    const request = work(transaction.objectStore(table));
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error);
    });
  };
  return {
    sharedAs: name,
    get: (key) => run("values", "readonly", (table) => table.get(key)),
    set: (key, value) => run("values", "readwrite", (table) => table.put(value, key)),
    delete: (key) => run("values", "readwrite", (table) => table.delete(key)),
    entries: async () => (await run("outbox", "readonly", (table) => table.getAll())).sort(byId),
    put: (entry) => run("outbox", "readwrite", (table) => table.put(entry)),
    remove: (id) => run("outbox", "readwrite", (table) => table.delete(id)),
  };
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const byId = (one, other) => (one.id < other.id ? -1 : 1);

/** What the tabs that share a store use to agree; without tabs, or without the browser's help,
 * the server's own rules (grace for refresh tokens, ids for messages) still keep all correct. */
class Tabs {
  constructor(store) {
    this.name = store.sharedAs;
    const locks = this.name && globalThis.navigator?.locks;
    this.#locks = locks || null;
    this.#channel =
      this.name && globalThis.BroadcastChannel ? new BroadcastChannel(`duet:${this.name}`) : null;
  }

  #locks;
  #channel;

  get canLock() {
    return this.#locks !== null;
  }

  /** Run `work` while no other tab runs work of this name. */
  exclusively(name, work) {
    return this.#locks ? this.#locks.request(`duet:${this.name}:${name}`, work) : work();
  }

  /** Hold a name until the tab dies or `release` is called. */
  hold(name) {
    let release = () => {};
    if (this.#locks) {
      this.exclusively(name, () => new Promise((resolve) => (release = resolve)));
    }
    return () => release();
  }

  tell(message) {
    this.#channel?.postMessage(message);
  }

  listen(listener) {
    this.#channel?.addEventListener("message", (event) => listener(event.data));
  }

  close() {
    this.#channel?.close();
    this.#channel = null;
  }
}

/* ---- The account: HTTP --------------------------------------------------------------------- */

/**
 * One logged-in device: its tokens, and the profile service's API.
 *
 * Events: `session` (the session or null: logged in or out, here or in another tab).
 */
export class Account extends Emitter {
  #store;
  #tabs;
  #fetch;
  #now;
  #renewing = null;

  constructor({ url = "", store = memoryStore(), fetch, now = Date.now } = {}) {
    super();
    this.url = url.replace(/\/$/, "");
    this.session = null;
    this.#store = store;
    this.#fetch = fetch ?? globalThis.fetch.bind(globalThis);
    this.#now = now;
    this.#tabs = new Tabs(store);
    this.#tabs.listen((message) => message.type === "session" && this.load());
  }

  get store() {
    return this.#store;
  }

  /** Take up the session that the store holds, if it holds one. Returns it, or null. */
  async load() {
    const stored = (await this.#store.get("session")) ?? null;
    const changed = stored?.session_id !== this.session?.session_id;
    this.session = stored;
    if (changed) this.emit("session", stored);
    return stored;
  }

  /** Create an account and log this device in. Returns the own profile. */
  signUp(fields) {
    return this.#open("/v1/users", fields);
  }

  /** Log this device in. Returns the own profile. */
  logIn({ username, password, device_name }) {
    return this.#open("/v1/sessions", { username, password, device_name });
  }

  /** Log this device in with a token of an embedder's own sign-in (docs/embed.md). */
  logInExternally({ token, device_name }) {
    return this.#open("/v1/sessions/external", { token, device_name });
  }

  /** Log this device out. The device forgets its tokens even when the service cannot be reached. */
  async logOut() {
    try {
      await this.call("DELETE", "/v1/sessions/current");
    } catch (error) {
      if (!(error instanceof DuetError)) throw error;
    }
    await this.forget({ outboxToo: true });
  }

  /** Log every device out, this one too. */
  async logOutEverywhere() {
    await this.call("DELETE", "/v1/sessions");
    await this.forget({ outboxToo: true });
  }

  async me() {
    const { body, headers } = await this.call("GET", "/v1/users/me");
    return { profile: body, etag: headers.get("etag") };
  }

  /** Change fields of the own profile; null clears one. With an `etag`, only if nobody else did. */
  async updateProfile(changes, etag) {
    const headers = { "Content-Type": "application/merge-patch+json" };
    if (etag) headers["If-Match"] = etag;
    const answer = await this.call("PATCH", "/v1/users/me", changes, headers);
    return { profile: answer.body, etag: answer.headers.get("etag") };
  }

  async user(username) {
    return (await this.call("GET", `/v1/users/${encodeURIComponent(username)}`)).body;
  }

  async findUsers(prefix, { after, limit = 20 } = {}) {
    const query = new URLSearchParams({ prefix, limit, ...(after && { after }) });
    return (await this.call("GET", `/v1/users?${query}`)).body;
  }

  async sessions() {
    return (await this.call("GET", "/v1/sessions")).body.sessions;
  }

  async endSession(id) {
    await this.call("DELETE", `/v1/sessions/${encodeURIComponent(id)}`);
  }

  /** Change the password; every other device is logged out. */
  async changePassword(current_password, new_password) {
    const { body } = await this.call("PUT", "/v1/users/me/password", {
      current_password,
      new_password,
    });
    await this.#keep({ ...this.session, ...this.#timed(body) });
  }

  async deleteAccount(password) {
    await this.call("DELETE", "/v1/users/me", { password });
    await this.forget({ outboxToo: true });
  }

  /** Call a route with the access token, renewing it once if the service says so. */
  async call(method, path, body, headers = {}) {
    const token = await this.accessToken();
    const send = (bearer) =>
      this.#request(method, path, body, { ...headers, Authorization: `Bearer ${bearer}` });
    try {
      return await send(token);
    } catch (error) {
      if (error.code !== "invalid_token") throw error;
      return send(await this.accessToken(token));
    }
  }

  /**
   * Return a good access token. `rejected` is one that was refused, whatever the clock says.
   *
   * Renewal happens once at a time, over all tabs. Throws a DuetError: `signed_out` when the session
   * is over; otherwise a retryable one.
   */
  async accessToken(rejected) {
    if (!this.session) await this.load();
    if (this.#isGood(this.session, rejected)) return this.session.access_token;
    this.#renewing ??= this.#tabs
      .exclusively("token", () => this.#renew(rejected))
      .finally(() => (this.#renewing = null));
    return this.#renewing;
  }

  /**
   * Forget the session on this device, without telling the service. The outbox waits for the same
   * person to log in again, unless it is to be forgotten too. A session that another tab has opened
   * meanwhile stays.
   */
  async forget({ outboxToo = false } = {}) {
    const { session } = this;
    this.session = null;
    const stored = await this.#store.get("session");
    if (session === null || stored?.session_id === session.session_id) {
      await this.#store.delete("session");
      await this.#store.delete("cursor");
      if (outboxToo) await this.#clearOutbox();
    }
    this.#tabs.tell({ type: "session" });
    this.emit("session", null);
  }

  close() {
    this.#tabs.close();
  }

  async #clearOutbox(exceptOf) {
    for (const { id, user } of await this.#store.entries()) {
      if (user !== exceptOf || exceptOf === undefined) await this.#store.remove(id);
    }
  }

  #isGood(session, rejected) {
    return (
      session !== null &&
      session.access_token !== rejected &&
      session.expires_at - this.#now() > EXPIRY_MARGIN_MS
    );
  }

  async #renew(rejected) {
    const stored = (await this.#store.get("session")) ?? null;
    if (stored === null || (this.session && stored.session_id !== this.session.session_id)) {
      await this.load();
      throw new DuetError("signed_out", "This device is logged out.");
    }
    if (!this.#isGood(stored, rejected)) {
      const refreshed = await this.#exchange(stored.refresh_token);
      if (this.session === null) throw new DuetError("signed_out", "This device is logged out.");
      const renewed = { ...stored, ...this.#timed(refreshed) };
      await this.#keep(renewed);
      return renewed.access_token;
    }
    this.session = stored;
    return stored.access_token;
  }

  async #exchange(refresh_token) {
    try {
      return (await this.#request("POST", "/v1/token", { refresh_token })).body;
    } catch (error) {
      if (error.code !== "invalid_grant") throw error;
      await this.forget();
      throw new DuetError("signed_out", "This device was logged out.");
    }
  }

  async #open(path, fields) {
    const { body } = await this.#request("POST", path, fields);
    const { user, ...tokens } = body;
    await this.#clearOutbox(user.id);
    await this.#store.delete("cursor");
    await this.#keep({
      ...this.#timed(tokens),
      user: { id: user.id, username: user.username },
    });
    this.emit("session", this.session);
    return user;
  }

  /** Store a session, then use it: the next run could not go on from one that only was used. */
  async #keep(session) {
    const before = this.session;
    await this.#store.set("session", session);
    if (this.session !== null || before === null) this.session = session; // else: logged out since
    this.#tabs.tell({ type: "session" });
  }

  #timed({ access_token, refresh_token, expires_in, session_id }) {
    return {
      access_token,
      refresh_token,
      session_id,
      expires_at: this.#now() + expires_in * 1000,
    };
  }

  async #request(method, path, body, headers = {}) {
    const init = { method, headers, signal: AbortSignal.timeout(HTTP_TIMEOUT_MS) };
    if (body !== undefined) {
      init.body = JSON.stringify(body);
      init.headers = { "Content-Type": "application/json", ...headers };
    }
    let response;
    let answer = null;
    try {
      response = await this.#fetch(this.url + path, init);
      const text = await response.text();
      if (text) answer = JSON.parse(text);
    } catch (error) {
      throw new DuetError("unreachable", "The service cannot be reached.", {
        retryable: true,
        cause: error,
      });
    }
    if (response.ok) return { status: response.status, body: answer, headers: response.headers };
    throw problem(response, answer ?? {});
  }
}

function problem(response, body) {
  const retryAfter = Number(response.headers.get("retry-after"));
  return new DuetError(body.code ?? `http_${response.status}`, body.detail ?? body.title, {
    status: response.status,
    title: body.title,
    faults: body.errors ?? [],
    retryable: response.status === 429 || response.status >= 500,
    retryAfterMs: retryAfter > 0 ? retryAfter * 1000 : undefined,
  });
}

/* ---- The client: WebSocket ----------------------------------------------------------------- */

/**
 * A connection that comes back, and an outbox that empties itself.
 *
 * Events are the server's frames by their `type` (`message`, `edited`, `deleted`, `erased`,
 * `receipt`, `typing`, `presence`, `changed`, `resync`), each once, and:
 * - `state`: `{state, reason?, retryAt?}`; `state` is `connecting`, `open`, `waiting` or `ended`.
 * - `live`: connected, and everything that was missed has been told; `{fresh}` is true when the
 *   client starts without a past, so that what is on the screen must be loaded.
 * - `queued` (it is in the store, and would survive a crash), `acked`, `failed`, `discarded`:
 *   `{entry, ack?, error?}`: a change in the outbox.
 *
 * Texts to one person are sent one after the other, each with the same id until it is acknowledged:
 * whatever happens, they are stored once and in order.
 */
export class Duet extends Emitter {
  #account;
  #store;
  #tabs;
  #WebSocket;
  #options;
  #now;
  #elapsed;
  #random;
  #owner = uuidv7();
  #release = null;

  #run = 0;
  #socket = null;
  #closed = null;
  #wake = null;
  #attempt = 0;
  #refusals = 0;
  #renewal = null;
  #lastHeardAt = 0;
  #watch = null;
  #pending = new Map();
  #token = null;
  #sessionId = null;

  #lanes = new Map();
  #settlers = new Map();
  #keeping = new Set();
  #pace = null;

  #toldUpTo = new Map();
  #ownTold = new Map();
  #revisions = new Map();
  #marks = new Map();
  #marksTimer = null;
  #cursorTimer = null;
  #typed = new Map();

  constructor(options) {
    super();
    const { url, account, store, now = Date.now, random = Math.random } = options;
    this.url = url;
    this.state = "idle";
    this.user = null;
    this.limits = null;
    this.cursor = null;
    this.isLive = false;
    this.#account = account;
    this.#store = store ?? account.store;
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (!this.#WebSocket) throw new TypeError("pass a WebSocket class: this platform has none");
    this.#options = {
      autoReceived: true,
      rememberCursor: false,
      backoffBaseMs: 500,
      backoffMaxMs: 30_000,
      answerTimeoutMs: ANSWER_TIMEOUT_MS,
      ...options,
    };
    this.#now = now;
    this.#elapsed = options.now ?? (() => performance.now());
    this.#random = random;
    this.#tabs = new Tabs(this.#store);
    this.#tabs.listen((message) => this.#heardFromTab(message));
    account.on("session", (session) => {
      if (session === null && this.state !== "idle") this.#end("signed_out");
    });
  }

  /** Begin: load the outbox, connect, and stay connected. Returns once the outbox is loaded. */
  async start() {
    if (this.state !== "idle" && this.state !== "ended") return;
    const run = ++this.#run;
    this.state = "connecting";
    this.#refusals = 0;
    if (!this.#account.session) await this.#account.load();
    this.user = this.#account.session?.user ?? null;
    await this.#claim();
    if (this.#options.rememberCursor) this.cursor ??= (await this.#store.get("cursor")) ?? null;
    this.#release ??= this.#tabs.hold(`outbox:${this.#owner}`);
    await this.#adopt();
    this.#tabs.tell({ type: "hello", owner: this.#owner });
    this.#listenToPlatform();
    this.#live(run);
  }

  /** End: close the connection. What is in the outbox stays in the store. */
  async stop() {
    this.#end("stopped");
    await Promise.all(this.#keeping);
    await this.#saveCursor();
    this.#tabs.close();
    this.#release?.();
  }

  /** Try to connect now instead of waiting for the backoff. */
  reconnect() {
    if (this.state === "ended") this.start();
    else this.#wake?.();
  }

  /** Find out at once whether the connection is still alive; a dead one is replaced. */
  async probe() {
    if (this.state !== "open") return this.#wake?.();
    const socket = this.#socket;
    try {
      await this.#ask({ type: "preferences" }, PROBE_TIMEOUT_MS);
    } catch (error) {
      if (error.code === "timeout" && socket === this.#socket) this.#drop("half_open");
    }
  }

  /* Changes: kept until they are acknowledged */

  /**
   * Queue a text for `to` (a user id). Resolves with the ack when it is stored on the server; rejects
   * with a DuetError when it never will be. Offline it waits, over restarts too; and when a session
   * was ended from elsewhere, for the same person to log in again. A log-out here, or somebody
   * else's log-in, rejects it (`signed_out`).
   */
  send(to, text, { id = uuidv7() } = {}) {
    return this.#queue({ id, kind: "send", to, text });
  }

  edit({ conversation, seq }, text, { id = uuidv7() } = {}) {
    return this.#queue({ id, kind: "edit", conversation, seq, text });
  }

  delete({ conversation, seq }, { id = uuidv7() } = {}) {
    return this.#queue({ id, kind: "delete", conversation, seq });
  }

  /** What waits or has failed, in order; for one person, or for all. It is in the store already. */
  outbox(to) {
    const entries = [...this.#lanes.values()].flatMap((lane) => lane.entries);
    const isShown = (entry) => (entry.kept || entry.failed) && (to === undefined || entry.to === to);
    return entries.filter(isShown).sort(byId);
  }

  /** Try a failed change again. */
  async retry(id) {
    const { lane, entry } = this.#find(id);
    if (!entry?.failed) return;
    const wasConflict = entry.failed.code === "conflict";
    delete entry.failed;
    entry.attempts = 0;
    if (wasConflict) {
      await this.#store.remove(entry.id);
      entry.id = uuidv7();
    }
    await this.#store.put(entry);
    entry.kept = true;
    this.emit("queued", { entry });
    this.#pump(lane);
  }

  /** Take a change out of the outbox, unless it is on its way. Returns whether it could. */
  async discard(id) {
    const { lane, entry } = this.#find(id);
    if (!entry || lane.inFlight === id || (entry.attempts > 0 && !entry.failed)) return false;
    lane.entries = lane.entries.filter((other) => other !== entry);
    await this.#store.remove(id);
    this.emit("discarded", { entry });
    this.#settle(id, "reject", new DuetError("discarded", "It was discarded."));
    return true;
  }

  /* Questions: asked again after a reconnect, until the deadline */

  history(peer, { before, after, limit = 50 } = {}) {
    return this.ask({ type: "history", with: peer, before, after, limit });
  }

  conversations({ after, limit = 50 } = {}) {
    return this.ask({ type: "conversations", after, limit });
  }

  search(query, { peer, after, limit = 20 } = {}) {
    return this.ask({ type: "search", query, with: peer, after, limit });
  }

  trace({ conversation, seq }) {
    return this.ask({ type: "trace", conversation, seq });
  }

  block(user) {
    return this.ask({ type: "block", user });
  }

  unblock(user) {
    return this.ask({ type: "unblock", user });
  }

  async blocks() {
    return (await this.ask({ type: "blocks" })).users;
  }

  preferences(changes = {}) {
    return this.ask({ type: "preferences", ...changes });
  }

  /** All of one's conversations as JSON Lines; `onLines` is called with each piece, in order. */
  async export(onLines) {
    return this.#ask({ type: "export" }, this.#options.answerTimeoutMs, onLines);
  }

  /** Send a request that changes nothing when repeated, and return its answer. */
  async ask(frame, timeoutMs = this.#options.answerTimeoutMs) {
    const deadline = this.#now() + timeoutMs;
    for (;;) {
      await this.#whenOpen(deadline - this.#now());
      try {
        return await this.#ask(frame, deadline - this.#now());
      } catch (error) {
        if (!error.retryable || this.#now() >= deadline) throw error;
        if (error.code !== "disconnected") await sleep(error.retryAfterMs ?? 500);
      }
    }
  }

  /* Marks and typing */

  /** This device has everything of the conversation up to `seq`. */
  markReceived(conversation, seq) {
    this.#mark(conversation, "received", seq);
  }

  /** The person has seen everything of the conversation up to `seq`. */
  markRead(conversation, seq) {
    this.#mark(conversation, "read", seq);
  }

  /** The person types, or has stopped. Call it for every key: it says so often enough. */
  typing(to, active = true) {
    const last = this.#typed.get(to) ?? -Infinity;
    if (active ? this.#now() - last < TYPING_INTERVAL_MS : last === -Infinity) return;
    if (active) this.#typed.set(to, this.#now());
    else this.#typed.delete(to);
    if (this.state === "open") this.#write({ type: "typing", to, active });
  }

  /* ---- Connecting, and connecting again ---- */

  async #live(run) {
    while (run === this.#run) {
      this.#setState("connecting");
      const outcome = await this.#session(run).catch((error) => ({ error }));
      if (run !== this.#run) return;
      const next = this.#next(outcome);
      if (next.end) return this.#end(next.end, outcome.error);
      if (next.rejected) this.#rejectedToken = this.#token;
      this.#setState("waiting", {
        reason: next.reason,
        retryAt: this.#now() + next.delayMs,
      });
      await this.#pause(next.delayMs);
    }
  }

  #rejectedToken = null;

  /** One connection from its token to its close. Resolves with how it ended. */
  async #session(run) {
    this.#token = await this.#account.accessToken(this.#rejectedToken ?? undefined);
    if (run !== this.#run) return {};
    this.#rejectedToken = null;
    this.user = this.#account.session.user;
    this.#sessionId = this.#account.session.session_id;
    const socket = new this.#WebSocket(this.url, [SUBPROTOCOL]);
    this.#socket = socket;
    const outcome = { code: 1006, error: null, drainingMs: null, openedAt: null };
    const closed = new Promise((resolve) => (this.#closed = resolve));
    const timer = setTimeout(() => this.#drop("connect_timeout"), CONNECT_TIMEOUT_MS);
    socket.onopen = () => {
      const connect = { type: "connect", access_token: this.#token };
      if (this.cursor !== null) connect.resume = this.cursor;
      socket.send(JSON.stringify(connect));
    };
    socket.onmessage = (event) => {
      if (socket !== this.#socket) return;
      this.#lastHeardAt = this.#now();
      const frame = JSON.parse(event.data);
      if (frame.type === "connected") {
        clearTimeout(timer);
        outcome.openedAt = this.#now();
      } else if (frame.type === "error" && (frame.id === undefined || frame.code === "flood")) {
        if (frame.code !== "rate_limited") outcome.error = failure(frame); // it explains the close
      } else if (frame.type === "draining") {
        outcome.drainingMs = frame.retry_after_ms;
      }
      this.#receive(frame);
    };
    socket.onclose = (event) => socket === this.#socket && this.#closed({ code: event.code });
    // Not every platform tells of a failed handshake by a close event too.
    socket.onerror = () => {
      if (socket === this.#socket && socket.readyState !== 1) this.#closed({ code: 1006 });
    };
    Object.assign(outcome, await closed);
    clearTimeout(timer);
    this.#disconnected(socket);
    return outcome;
  }

  /** Decide what to do after a connection ended: this is the table of close codes. */
  #next({ code, error, drainingMs, openedAt }) {
    if (openedAt && this.#now() - openedAt >= STABLE_MS) this.#attempt = 0;
    const reason = error?.code ?? (code ? `close_${code}` : "unreachable");
    const again = (leastMs) => ({ reason, delayMs: this.#backoff(leastMs) });
    if (error?.code === "signed_out" || error?.code === "session_ended") return { end: "signed_out" };
    switch (code) {
      case 3000:
        return ++this.#refusals > 3 ? { end: "refused" } : { ...again(0), rejected: true };
      case 1008:
        if (error?.code === "flood") return again(FLOOD_PAUSE_MS);
        return { end: error?.code === "evicted" ? "evicted" : "fault" };
      case 1003:
      case 1007:
      case 1009:
      case 3003:
        return { end: "fault" };
      default:
        return again(drainingMs ?? error?.retryAfterMs ?? 0);
    }
  }

  /** Exponential, with jitter, and never less than the server asked for. */
  #backoff(leastMs) {
    const { backoffBaseMs, backoffMaxMs } = this.#options;
    const ceiling = Math.min(backoffMaxMs, backoffBaseMs * 2 ** this.#attempt++);
    return leastMs + Math.round(ceiling * (0.5 + this.#random() / 2));
  }

  #pause(delayMs) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, delayMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #whenOpen(timeoutMs) {
    if (this.state === "open") return Promise.resolve();
    return new Promise((resolve, reject) => {
      const finish = (settle, value) => {
        clearTimeout(timer);
        off();
        settle(value);
      };
      const timer = setTimeout(
        () => finish(reject, new DuetError("timeout", "No connection.", { retryable: true })),
        Math.max(0, timeoutMs),
      );
      const off = this.on("state", ({ state, reason }) => {
        if (state === "open") finish(resolve);
        if (state === "ended") finish(reject, new DuetError(reason, "The client has ended."));
      });
    });
  }

  /** Give a connection up without waiting for a peer that may be gone. */
  #drop(code) {
    const error = new DuetError(code, "The connection is dead.", { retryable: true });
    const socket = this.#socket;
    this.#closed?.({ code: 1006, error });
    try {
      socket?.close();
    } catch {
      // it was not open yet
    }
  }

  #disconnected(socket) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    this.isLive = false;
    if (this.state !== "ended") this.state = "connecting";
    clearTimeout(this.#renewal);
    for (const [id, waiting] of [...this.#pending]) {
      this.#pending.delete(id);
      clearTimeout(waiting.timer);
      waiting.reject(new DuetError("disconnected", "The connection was lost.", { retryable: true }));
    }
  }

  #end(reason, error) {
    // Also when it has ended already: a log-out empties the outbox last.
    if (reason === "signed_out") this.#untilStopped(this.#rejectForgotten());
    if (this.state === "ended" || this.state === "idle") return;
    this.#run += 1;
    const socket = this.#socket;
    this.#setState("ended", { reason, error });
    this.#wake?.();
    this.#disconnected(socket);
    this.#unlisten?.();
    clearInterval(this.#watch);
    if (reason === "signed_out") {
      this.#lanes.clear();
      this.cursor = null;
      if (this.#account.session?.session_id === this.#sessionId) {
        this.#account.forget().catch(() => {}); // the tokens are dead anyway
      }
    }
    this.#closed?.({ code: 1000 });
    try {
      socket?.close(1000);
    } catch {
      // it was not open yet
    }
  }

  #toldState = null;

  #setState(state, detail = {}) {
    if (state === "connecting" && this.#toldState === state) return;
    this.#toldState = state;
    this.state = state;
    this.emit("state", { state, ...detail });
  }

  #unlisten = null;

  /** Follow what the browser knows of the network and of the person looking. */
  #listenToPlatform() {
    clearInterval(this.#watch);
    const isIdle = () => this.#now() - this.#lastHeardAt > PROBE_AFTER_IDLE_MS;
    const isHidden = () => globalThis.document?.hidden ?? false;
    this.#watch = setInterval(() => {
      if (isIdle() && !isHidden() && this.state === "open") this.probe();
    }, PROBE_AFTER_IDLE_MS);
    this.#watch.unref?.();
    if (!globalThis.document) return;
    const onNetwork = () => this.probe();
    const onVisible = () => {
      if (!isHidden() && (isIdle() || this.state !== "open")) this.probe();
    };
    globalThis.addEventListener("online", onNetwork);
    globalThis.addEventListener("offline", onNetwork);
    document.addEventListener("visibilitychange", onVisible);
    this.#unlisten = () => {
      globalThis.removeEventListener("online", onNetwork);
      globalThis.removeEventListener("offline", onNetwork);
      document.removeEventListener("visibilitychange", onVisible);
    };
  }

  /* ---- Frames ---- */

  #receive(frame) {
    switch (frame.type) {
      case "connected":
        return this.#connected(frame);
      case "resumed":
        this.#moveCursor(frame.cursor);
        return this.#caughtUp(false);
      case "resync":
        this.#forgetPast();
        this.#moveCursor(frame.cursor);
        this.emit("resync", frame);
        return this.#caughtUp(true);
      case "expiring":
        return this.#expiring(frame.in_s * 1000);
      case "message":
        return this.#told(frame, this.#isNews(frame));
      case "edited":
      case "deleted":
        return this.#told(frame, this.#isNewRevision(frame));
      case "erased":
        return this.#told(frame, true);
      case "receipt":
        this.#confirmMark(frame);
        this.emit("receipt", frame);
        return this.#answered(frame);
      case "typing":
      case "presence":
      case "changed":
        return this.emit(frame.type, frame);
      case "export":
        return this.#part(frame);
      case "error":
        return frame.id === undefined ? this.#refused(failure(frame)) : this.#answered(frame);
      default:
        return this.#answered(frame);
    }
  }

  /** What has no id failed: perhaps a mark, which is worth another try, or typing, which is not. */
  #refused(error) {
    if (!error.retryable) return;
    if (error.code === "rate_limited") this.#pace?.pause(error.retryAfterMs);
    setTimeout(() => this.#sendMarks(true), error.retryAfterMs ?? 1_000);
  }

  #connected(frame) {
    this.#refusals = 0;
    this.user = frame.user;
    this.limits = frame.limits;
    this.#pace ??= new Pace(frame.limits, this.#elapsed);
    const isFresh = this.cursor === null;
    if (isFresh) this.#moveCursor(frame.cursor);
    this.#setState("open");
    if (isFresh) this.#caughtUp(true);
    this.#sendMarks(true);
    for (const lane of this.#lanes.values()) this.#pump(lane);
  }

  #caughtUp(fresh) {
    this.isLive = true;
    this.emit("live", { fresh });
  }

  #told(frame, isNew) {
    if (isNew) this.emit(frame.type, frame);
    this.#moveCursor(frame.cursor);
    if (isNew && frame.type === "message" && frame.from !== this.user.id) {
      if (this.#options.autoReceived) this.markReceived(frame.conversation, frame.seq);
    }
  }

  /** Messages of a conversation come in order; what is not beyond the last was told before. */
  #isNews(frame) {
    const upTo = this.#toldUpTo.get(frame.conversation) ?? 0;
    if (frame.seq <= upTo) return false;
    this.#toldUpTo.set(frame.conversation, frame.seq);
    if (this.#absorb(frame.conversation, frame.seq)) return false;
    if (frame.from === this.user.id && frame.id && this.#find(frame.id).entry) {
      this.#acked(frame.id, { ...frame, type: "ack", duplicate: true });
      return false;
    }
    return true;
  }

  /** Own messages count as told from their ack on. Returns whether the one at `seq` was. */
  #absorb(conversation, seq) {
    const acked = this.#ownTold.get(conversation);
    if (!acked) return false;
    const wasTold = acked.delete(seq);
    let next = this.#toldUpTo.get(conversation) + 1;
    while (acked.delete(next)) this.#toldUpTo.set(conversation, next++);
    return wasTold;
  }

  #isNewRevision({ conversation, seq, revision }) {
    const key = `${conversation} ${seq}`;
    if ((this.#revisions.get(key) ?? 0) >= revision) return false;
    this.#revisions.delete(key);
    this.#revisions.set(key, revision);
    if (this.#revisions.size > REMEMBERED) {
      this.#revisions.delete(this.#revisions.keys().next().value);
    }
    return true;
  }

  #forgetPast() {
    this.#toldUpTo.clear();
    this.#ownTold.clear();
    this.#revisions.clear();
    this.#marks.clear();
  }

  #moveCursor(cursor) {
    this.cursor = cursor;
    if (this.#options.rememberCursor && this.#cursorTimer === null) {
      const save = () => this.#saveCursor().catch(() => {}); // the next event tries again
      this.#cursorTimer = setTimeout(save, CURSOR_DELAY_MS);
      this.#cursorTimer.unref?.();
    }
  }

  async #saveCursor() {
    clearTimeout(this.#cursorTimer);
    this.#cursorTimer = null;
    if (this.#options.rememberCursor && this.cursor !== null) {
      await this.#store.set("cursor", this.cursor);
    }
  }

  /** Renew at a random moment before the end, so that a thousand clients do not do it at once. */
  #expiring(inMs) {
    clearTimeout(this.#renewal);
    this.#renewal = setTimeout(() => this.#renew(), inMs * (0.2 + 0.4 * this.#random()));
    this.#renewal.unref?.();
  }

  async #renew() {
    const socket = this.#socket;
    try {
      const token = await this.#account.accessToken(this.#token);
      if (socket !== this.#socket) return;
      await this.#ask({ type: "refresh", access_token: token }, this.#options.answerTimeoutMs);
      this.#token = token;
    } catch (error) {
      if (socket !== this.#socket || this.state !== "open") return;
      if (error.code === "signed_out") this.#end("signed_out");
      else if (error.retryable) this.#renewal = setTimeout(() => this.#renew(), 2_000);
    }
  }

  #write(frame) {
    this.#socket.send(JSON.stringify(frame));
  }

  /** Ask once, on this connection. */
  #ask(frame, timeoutMs, onPart) {
    if (this.state !== "open") {
      return Promise.reject(new DuetError("disconnected", "No connection.", { retryable: true }));
    }
    const id = frame.id ?? uuidv7();
    const request = { ...frame, id };
    const fault = unsendable(request, this.limits);
    if (fault !== null) return Promise.reject(fault);
    return new Promise((resolve, reject) => {
      const waiting = { resolve, reject, onPart };
      waiting.restart = () => {
        clearTimeout(waiting.timer);
        waiting.timer = setTimeout(() => {
          this.#pending.delete(id);
          reject(new DuetError("timeout", "No answer came in time.", { retryable: true }));
        }, timeoutMs);
      };
      waiting.restart();
      this.#pending.set(id, waiting);
      this.#write(request);
    });
  }

  #part({ id, lines }) {
    const waiting = this.#pending.get(id);
    if (!waiting) return;
    waiting.restart();
    waiting.onPart?.(lines);
  }

  #answered(frame) {
    const waiting = this.#pending.get(frame.id);
    if (!waiting) return;
    this.#pending.delete(frame.id);
    clearTimeout(waiting.timer);
    if (frame.type === "error") waiting.reject(failure(frame));
    else waiting.resolve(frame);
  }

  /* ---- The outbox: one lane for each recipient, one change of a lane on its way ---- */

  #queue(fields) {
    const entry = {
      ...fields,
      user: this.user?.id,
      created_at: this.#now(),
      owner: this.#owner,
      attempts: 0,
    };
    const settled = new Promise((resolve, reject) => {
      this.#settlers.set(entry.id, { entry, resolve, reject });
    });
    settled.catch(() => {}); // `failed` tells whoever does not wait
    const lane = this.#laneOf(entry);
    lane.entries.push(entry);
    const kept = this.#store.put(entry).then(
      () => {
        entry.kept = true;
        this.emit("queued", { entry });
        this.#pump(lane);
      },
      (error) => this.#failed(lane, entry, new DuetError("not_kept", String(error))),
    );
    this.#untilStopped(kept);
    return settled;
  }

  /** Let `stop` wait for a write. */
  #untilStopped(writing) {
    const done = writing.catch(() => {}).finally(() => this.#keeping.delete(done));
    this.#keeping.add(done);
  }

  #laneOf(entry) {
    const key = entry.kind === "send" ? entry.to : `${entry.conversation} ${entry.seq}`;
    if (!this.#lanes.has(key)) this.#lanes.set(key, { key, entries: [], inFlight: null });
    return this.#lanes.get(key);
  }

  #find(id) {
    for (const lane of this.#lanes.values()) {
      const entry = lane.entries.find((candidate) => candidate.id === id);
      if (entry) return { lane, entry };
    }
    return {};
  }

  async #pump(lane) {
    const entry = lane.entries.find((candidate) => !candidate.failed);
    if (!entry?.kept || lane.inFlight !== null || lane.timer || this.state !== "open") return;
    const waitMs = this.#pace.take();
    if (waitMs > 0) return this.#pumpLater(lane, waitMs);
    lane.inFlight = entry.id;
    entry.attempts += 1;
    const socket = this.#socket;
    try {
      const { id, kind: type, to, conversation, seq, text } = entry;
      const frame = { type, id, to, conversation, seq, text };
      const ack = await this.#ask(frame, this.#options.answerTimeoutMs);
      lane.inFlight = null;
      this.#acked(entry.id, ack);
    } catch (error) {
      lane.inFlight = null;
      if (error.code === "timeout" && socket === this.#socket) this.#drop("no_answer");
      else if (!error.retryable) this.#failed(lane, entry, error);
      else if (error.code !== "disconnected") {
        if (error.code === "rate_limited") this.#pace.pause(error.retryAfterMs);
        this.#pumpLater(lane, this.#retryDelay(entry, error));
      }
    }
    this.#pump(lane);
  }

  #retryDelay(entry, error) {
    const ceiling = Math.min(this.#options.backoffMaxMs, 100 * 2 ** Math.min(entry.attempts, 10));
    return (error.retryAfterMs ?? 0) + Math.round(ceiling * this.#random());
  }

  #pumpLater(lane, delayMs) {
    clearTimeout(lane.timer);
    lane.timer = setTimeout(() => {
      lane.timer = null;
      this.#pump(lane);
    }, delayMs);
  }

  /** A change is stored: its ack came, or the message itself came back. Only the first counts. */
  #acked(id, ack) {
    const { lane, entry } = this.#find(id);
    if (!entry) return;
    lane.entries = lane.entries.filter((other) => other !== entry);
    if (lane.entries.length === 0 && lane.inFlight === null) this.#lanes.delete(lane.key);
    if (entry.kind === "send") this.#noteOwn(ack);
    this.#untilStopped(this.#store.remove(id)); // if that fails, it is a duplicate next time
    this.emit("acked", { entry, ack });
    this.#settle(id, "resolve", ack);
  }

  /** An ack may overtake messages that were stored before it, so it moves no mark by itself. */
  #noteOwn({ conversation, seq }) {
    const upTo = this.#toldUpTo.get(conversation) ?? 0;
    if (seq <= upTo) return;
    if (seq === upTo + 1) {
      this.#toldUpTo.set(conversation, seq);
      this.#absorb(conversation, seq);
      return;
    }
    const acked = this.#ownTold.get(conversation) ?? new Set();
    this.#ownTold.set(conversation, acked.add(seq));
    if (acked.size > REMEMBERED) acked.delete(acked.values().next().value);
  }

  #failed(lane, entry, error) {
    entry.failed = { code: error.code, message: error.message };
    this.#untilStopped(this.#store.put(entry));
    this.emit("failed", { entry, error });
    this.#settle(entry.id, "reject", error);
  }

  #settle(id, how, value) {
    this.#settlers.get(id)?.[how](value);
    this.#settlers.delete(id);
  }

  /** What was queued before anybody was here is theirs; what somebody else queued here is not. */
  async #claim() {
    if (this.user === null) return;
    for (const lane of this.#lanes.values()) {
      lane.entries = lane.entries.filter(({ user }) => !user || user === this.user.id);
      for (const entry of lane.entries.filter(({ user }) => !user)) {
        entry.user = this.user.id;
        await this.#store.put(entry);
      }
    }
    for (const [id, { entry }] of this.#settlers) {
      if (entry.user !== this.user.id) this.#settle(id, "reject", forgotten());
    }
  }

  /** Nobody will send what a log-out has taken out of the store. */
  async #rejectForgotten() {
    await Promise.all(this.#keeping);
    const kept = new Set((await this.#store.entries()).map(({ id }) => id));
    for (const id of this.#settlers.keys()) {
      if (!kept.has(id) && !this.#find(id).entry) this.#settle(id, "reject", forgotten());
    }
  }

  /** Take over what tabs (or runs) that are gone have left in the store, and what was left here. */
  async #adopt() {
    for (const entry of await this.#store.entries()) {
      if (entry.owner !== this.#owner && this.#tabs.canLock) this.#watchTab(entry.owner);
      else await this.#take(entry);
    }
  }

  #watched = new Set();

  /** Wait, perhaps for hours, until another tab is gone. */
  #watchTab(owner) {
    if (owner === this.#owner || this.#watched.has(owner)) return;
    this.#watched.add(owner);
    const takeAll = async () => {
      for (const entry of await this.#store.entries()) {
        if (entry.owner === owner) await this.#take(entry);
      }
    };
    this.#tabs
      .exclusively(`outbox:${owner}`, takeAll)
      .catch(() => {}) // they stay in the store, for the next start
      .finally(() => this.#watched.delete(owner));
  }

  async #take(entry) {
    const isOurs = entry.user === this.user?.id;
    if (!isOurs || this.state === "ended" || this.#find(entry.id).entry) return;
    const own = { ...entry, owner: this.#owner, kept: true };
    await this.#store.put(own);
    const lane = this.#laneOf(own);
    lane.entries = [...lane.entries, own].sort(byId);
    this.emit("queued", { entry: own });
    this.#pump(lane);
  }

  #heardFromTab({ type, owner }) {
    if (type === "hello") this.#tabs.tell({ type: "here", owner: this.#owner });
    if (type === "hello" || type === "here") {
      if (this.#tabs.canLock && this.state !== "ended") this.#watchTab(owner);
    }
    if (type === "session" && this.state === "open") this.#usePeersToken();
  }

  /** Another tab has renewed: this connection may live on with the new token at once. */
  async #usePeersToken() {
    await this.#account.load();
    if (this.#account.session && this.#account.session.access_token !== this.#token) this.#renew();
  }

  /* ---- Marks ---- */

  #mark(conversation, kind, seq) {
    const marks = this.#marks.get(conversation) ?? { received: 0, read: 0, sent: {}, told: {} };
    this.#marks.set(conversation, marks);
    if (seq <= marks[kind]) return;
    marks[kind] = seq;
    this.#marksTimer ??= setTimeout(() => {
      this.#marksTimer = null;
      this.#sendMarks(false);
    }, MARKS_DELAY_MS);
  }

  /** `again` after a reconnect: what was not confirmed may never have arrived. */
  #sendMarks(again) {
    if (this.state !== "open") return;
    for (const [conversation, marks] of this.#marks) {
      if (again) marks.sent = { ...marks.told };
      for (const kind of ["received", "read"]) {
        const covered = kind === "received" ? (marks.sent.read ?? 0) : 0;
        if (marks[kind] <= Math.max(marks.sent[kind] ?? 0, covered)) continue;
        if (kind === "received" && marks.read >= marks.received) continue;
        marks.sent[kind] = marks[kind];
        this.#write({ type: kind, conversation, seq: marks[kind] });
      }
    }
  }

  #confirmMark({ conversation, user, received, read }) {
    const marks = this.#marks.get(conversation);
    if (marks && user === this.user.id) marks.told = { received, read: read ?? 0 };
  }
}

/**
 * Keeps below the server's rate, so that a long outbox drains without being told off.
 *
 * `now` must not go back: nothing would be sent until it is where it was.
 */
class Pace {
  constructor({ messages_per_s, message_burst }, now) {
    this.perMs = (0.9 * messages_per_s) / 1000;
    this.burst = Math.max(1, 0.8 * message_burst);
    this.tokens = this.burst;
    this.now = now;
    this.at = now();
  }

  /** Take one. Returns 0, or how many milliseconds to wait before asking again. */
  take() {
    const at = this.now();
    this.tokens = Math.min(this.burst, this.tokens + Math.max(0, at - this.at) * this.perMs);
    this.at = Math.max(this.at, at);
    if (this.tokens < 1) return Math.ceil((1 - this.tokens) / this.perMs);
    this.tokens -= 1;
    return 0;
  }

  /** Another device of the same person uses the rate up. */
  pause(ms = 1_000) {
    this.tokens = 0;
    this.at = this.now() + ms;
  }
}

/** Why the gateway would end the connection over a frame, at each try anew; null if it would not. */
function unsendable(frame, { max_frame_bytes }) {
  if (/\p{Surrogate}/u.test(Object.values(frame).join())) {
    return new DuetError("invalid_frame", "A character in it is incomplete.");
  }
  const bytes = new TextEncoder().encode(JSON.stringify(frame)).length;
  return bytes > max_frame_bytes ? new DuetError("invalid_frame", "It is too long.") : null;
}

function forgotten() {
  return new DuetError("signed_out", "This device was logged out before it was acknowledged.");
}

function failure(frame) {
  return new DuetError(frame.code, frame.message, {
    retryable: frame.retryable || frame.code === "flood", // once the pause is over
    retryAfterMs: frame.retry_after_ms,
  });
}
