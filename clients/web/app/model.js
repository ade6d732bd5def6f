/** Everything the page knows of people and conversations, kept true by the client's events. */

import { Drafts } from "./drafts.js";
import { Thread } from "./thread.js";

const PAGE = 60;
const OLDER_PAGE = 100;
const LIST_PAGE = 50;
const REST_PAGE = 200;
const TYPING_MS = 6_000;
const PROFILES_AT_ONCE = 4;

/** One conversation, and what is known of the person at its other end. */
export class Conversation {
  #drafts;

  constructor(peerId, drafts) {
    this.peerId = peerId;
    this.#drafts = drafts;
    this.id = null;
    this.username = null;
    this.profile = null;
    this.isGone = false;
    this.online = false;
    this.lastSeen = null;
    this.typingTimer = null;
    this.forgetPast();
  }

  get draft() {
    return this.#drafts.of(this.peerId);
  }

  set draft(text) {
    this.#drafts.keep(this.peerId, text);
  }

  /** Forget messages and marks: the server may have others now. */
  forgetPast() {
    this.last = null;
    this.unread = 0;
    this.isMiscounted = false;
    this.read = 0;
    this.peerReceived = 0;
    this.peerRead = 0;
    this.thread = new Thread();
  }

  get name() {
    if (this.isGone) return "Deleted user";
    return this.profile?.display_name || this.username || "…";
  }

  get isTyping() {
    return this.typingTimer !== null;
  }

  get face() {
    return {
      name: this.name,
      key: this.peerId,
      avatarUrl: this.isGone ? null : this.profile?.avatar_url,
      online: this.online,
    };
  }
}

/**
 * Events (DOM events on this object): `list`, `thread` and `person` (`detail` is the conversation),
 * `message` (`detail`: `{conversation, message}`: somebody else's, just now), `blocked`, `reset`, `own`,
 * `refused` (`detail`: `{conversation, entry}`: an edit or a deletion that will never be, and is kept no more).
 */
export class Model extends EventTarget {
  #duet;
  #account;
  #drafts;
  #byConversation = new Map();
  #profiles = new Set();
  #wantedProfiles = [];
  #loadingProfiles = 0;
  #next = null;
  #refreshing = null;
  #refreshingAgain = null;
  #loadingRest = null;

  constructor(duet, account) {
    super();
    this.#duet = duet;
    this.#account = account;
    this.#drafts = new Drafts(account.session.user.id);
    this.me = null;
    this.etag = null;
    this.blocked = new Set();
    this.conversations = new Map();
    this.isListed = false;
    /** What is shown is of another past, and stays until the list of this one is there. */
    this.isReloading = false;
    this.#listen();
  }

  get ownId() {
    return this.#duet.user?.id;
  }

  get unread() {
    let sum = 0;
    for (const conversation of this.conversations.values()) sum += conversation.unread;
    return sum;
  }

  /** Conversations that have anything to show, the latest first. */
  listed() {
    const latest = (one) =>
      Math.max(one.last ? Date.parse(one.last.sent_at) : 0, this.pending(one).at(-1)?.created_at ?? 0);
    return [...this.conversations.values()]
      .map((conversation) => ({ conversation, at: latest(conversation) }))
      .filter(({ at }) => at > 0)
      .sort((one, other) => other.at - one.at)
      .map(({ conversation }) => conversation);
  }

  /** Texts on their way to somebody, and those that failed. */
  pending({ peerId }) {
    return this.#duet.outbox(peerId).filter((entry) => entry.kind === "send");
  }

  /** How far an own message has come. */
  progress(conversation, message) {
    if (conversation.peerRead >= message.seq) return "read";
    if (conversation.peerReceived >= message.seq) return "delivered";
    return "sent";
  }

  async loadOwn() {
    const { profile, etag } = await this.#account.me();
    this.takeOwn(profile, etag);
    return profile;
  }

  takeOwn(profile, etag) {
    this.me = profile;
    this.etag = etag;
    this.#emit("own");
  }

  /** The conversation with somebody, new if need be. `user` is a public profile. */
  withUser(user) {
    const conversation = this.#of(user.id);
    conversation.username = user.username;
    this.#takeProfile(user);
    return conversation;
  }

  byUsername(username) {
    const wanted = username.toLowerCase();
    return [...this.conversations.values()].find((one) => one.username?.toLowerCase() === wanted);
  }

  /**
   * Read the newest page of the list again: names, marks, presence and counts are then right.
   *
   * It is asked for after the call: an answer under way may be of before what it is called for.
   */
  refresh() {
    if (this.#refreshing === null) {
      this.#refreshing = this.#loadList(null).finally(() => (this.#refreshing = null));
      return this.#refreshing;
    }
    this.#refreshingAgain ??= this.#refreshing.catch(() => {}).then(() => {
      this.#refreshingAgain = null;
      return this.refresh();
    });
    return this.#refreshingAgain;
  }

  /** Load the list to its end: what is unread far down counts, and hits of a search are there. */
  loadRest() {
    this.#loadingRest ??= this.#loadPages().finally(() => (this.#loadingRest = null));
    return this.#loadingRest;
  }

  /** Load the end of a conversation, unless it is there. */
  async loadEnd(conversation, { anew = false } = {}) {
    const { thread } = conversation;
    if (thread.isLoaded && thread.atEnd && !anew) return;
    const { droppedTo } = thread;
    const page = await this.#duet.history(conversation.peerId, { limit: PAGE });
    thread.replace(page.messages, { hasOlder: page.more, atEnd: true });
    this.#setConversationId(conversation, page.conversation);
    if (thread.droppedTo > droppedTo) return this.loadEnd(conversation); // more came meanwhile than is kept
    this.#emit("thread", conversation);
  }

  /** Load the neighbourhood of one message. */
  async loadAround(conversation, seq) {
    const half = PAGE / 2;
    const before = await this.#duet.history(conversation.peerId, { before: seq + 1, limit: half });
    const after = await this.#duet.history(conversation.peerId, { after: seq, limit: half });
    conversation.thread.replace([...before.messages, ...after.messages], {
      hasOlder: before.more,
      atEnd: !after.more,
    });
    this.#setConversationId(conversation, before.conversation);
    this.#emit("thread", conversation);
  }

  async loadOlder(conversation) {
    const { thread } = conversation;
    await this.#once(thread, "loadingOlder", async () => {
      const { lo } = thread;
      const page = await this.#duet.history(conversation.peerId, { before: lo, limit: OLDER_PAGE });
      if (thread.lo === lo) thread.prepend(page.messages, page.more);
    });
    this.#emit("thread", conversation);
  }

  async loadNewer(conversation) {
    const { thread } = conversation;
    await this.#once(thread, "loadingNewer", async () => {
      const { hi } = thread;
      const page = await this.#duet.history(conversation.peerId, { after: hi, limit: OLDER_PAGE });
      if (thread.hi === hi) thread.append(page.messages, !page.more);
    });
    this.#emit("thread", conversation);
  }

  /** The connection is away: who is online, only the next one tells. */
  forgetPresence() {
    for (const conversation of this.conversations.values()) {
      if (!conversation.online) continue;
      conversation.online = false;
      conversation.lastSeen = null; // it was before the person came
      this.#emit("person", conversation);
    }
    this.#emit("list");
  }

  /** The person has seen everything up to `seq`. */
  markRead(conversation, seq) {
    if (!conversation.id || seq <= conversation.read) return;
    conversation.read = seq;
    this.#duet.markRead(conversation.id, seq);
    this.#recount(conversation);
  }

  async loadBlocked() {
    this.blocked = new Set(await this.#duet.blocks());
    this.#emit("blocked");
  }

  async setBlocked(conversation, isBlocked) {
    await (isBlocked ? this.#duet.block(conversation.peerId) : this.#duet.unblock(conversation.peerId));
    this.blocked[isBlocked ? "add" : "delete"](conversation.peerId);
    this.#emit("blocked");
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  async #once(owner, flag, work) {
    if (owner[flag]) return;
    owner[flag] = true;
    try {
      await work();
    } finally {
      owner[flag] = false;
    }
  }

  #of(peerId) {
    if (!this.conversations.has(peerId)) this.conversations.set(peerId, new Conversation(peerId, this.#drafts));
    return this.conversations.get(peerId);
  }

  #setConversationId(conversation, id) {
    conversation.id = id;
    this.#byConversation.set(id, conversation);
  }

  /* ---- What the client tells ---- */

  #listen() {
    const duet = this.#duet;
    duet.on("live", ({ fresh }) => this.#live(fresh));
    duet.on("message", (frame) => this.#message(frame));
    duet.on("acked", ({ entry, ack }) => this.#acked(entry, ack));
    for (const name of ["queued", "failed", "discarded"]) {
      duet.on(name, ({ entry }) => entry.kind === "send" && this.#changedOutbox(entry.to));
    }
    duet.on("failed", ({ entry }) => entry.kind !== "send" && this.#dropRefused().catch(() => {})); // `live` tries again
    duet.on("edited", ({ conversation, seq, text, revision, edited_at }) =>
      this.#changed(conversation, seq, { text, revision, edited_at }));
    duet.on("deleted", ({ conversation, seq, revision }) =>
      this.#changed(conversation, seq, { text: "", revision, deleted: true }));
    duet.on("erased", (frame) => this.#erased(frame));
    duet.on("receipt", (frame) => this.#receipt(frame));
    duet.on("typing", ({ from, active }) => this.#typing(this.#of(from), active));
    duet.on("presence", ({ user, online, last_seen }) => {
      const conversation = this.#of(user);
      conversation.online = online;
      conversation.lastSeen = last_seen ?? conversation.lastSeen;
      if (!online) this.#typing(conversation, false);
      this.#emit("list");
      this.#emit("person", conversation);
    });
    duet.on("changed", ({ what }) => {
      if (what === "blocks") this.loadBlocked().catch(() => {}); // the next connection asks again
    });
  }

  async #live(fresh) {
    if (fresh) {
      for (const conversation of this.conversations.values()) conversation.forgetPast();
      this.isReloading ||= this.isListed;
      this.isListed = false;
      this.#next = null;
    }
    if (this.me === null) this.loadOwn().catch(() => {});
    try {
      await Promise.all([this.refresh(), this.loadBlocked()]);
      await this.#dropRefused();
    } catch (error) {
      this.isReloading = false;
      if (!error.retryable) throw error; // the next connection asks again
    }
    if (fresh) this.#emit("reset");
    this.loadRest().catch(() => {}); // the next connection goes on
  }

  /** Also what an earlier page, or another tab, has left. */
  async #dropRefused() {
    for (const entry of this.#duet.outbox()) {
      if (entry.kind === "send" || !entry.failed) continue;
      const conversation = await this.#byConversationId(entry.conversation);
      const isDropped = await this.#duet.discard(entry.id).catch(() => true); // the store fails; the text is here
      if (isDropped) this.#emit("refused", { conversation, entry });
    }
  }

  async #byConversationId(id) {
    if (!this.#byConversation.has(id) && !this.isListed) await this.refresh();
    if (!this.#byConversation.has(id)) await this.loadRest();
    return this.#byConversation.get(id);
  }

  async #loadPages() {
    while (this.#next !== null) await this.#loadList(this.#next);
  }

  /** Load one page of the list. Returns where the next one begins. */
  async #loadList(after) {
    const limit = after === null ? LIST_PAGE : REST_PAGE;
    const { items, next = null } = await this.#duet.conversations({ after: after ?? undefined, limit });
    if (after !== null && after !== this.#next) return; // meanwhile the list is read from its top again
    for (const item of items) this.#takeItem(item);
    if (after !== null || !this.isListed) this.#next = next;
    this.isListed = true;
    this.isReloading = false;
    this.#emit("list");
    return next;
  }

  #takeItem(item) {
    const conversation = this.#of(item.peer.id);
    this.#setConversationId(conversation, item.conversation);
    conversation.username = item.peer.username ?? conversation.username;
    conversation.isGone = item.peer.username === undefined && conversation.username === null;
    conversation.online = item.peer.online ?? false;
    conversation.lastSeen = item.peer.last_seen ?? null;
    const isBehind = conversation.last !== null && item.last_message.seq < conversation.last.seq;
    if (isBehind) this.refresh().catch(() => {}); // messages were told while it was on its way
    else conversation.last = item.last_message;
    if (!isBehind && item.read >= conversation.read) {
      conversation.unread = item.unread;
      conversation.isMiscounted = false;
    }
    conversation.read = Math.max(conversation.read, item.read);
    conversation.peerReceived = Math.max(conversation.peerReceived, item.peer_received);
    conversation.peerRead = Math.max(conversation.peerRead, item.peer_read ?? 0);
    if (item.last_message.seq > item.received && item.last_message.from === item.peer.id) {
      this.#duet.markReceived(item.conversation, item.last_message.seq);
    }
    this.#emit("person", conversation);
  }

  #message(frame) {
    const mine = frame.from === this.ownId;
    const conversation = this.#of(mine ? frame.to : frame.from);
    this.#setConversationId(conversation, frame.conversation);
    conversation.thread.add(frame);
    if (!conversation.last || frame.seq > conversation.last.seq) conversation.last = frame;
    if (!mine) {
      if (frame.seq > conversation.read) conversation.unread += 1;
      this.#typing(conversation, false);
      if (!frame.deleted) this.#emit("message", { conversation, message: frame });
    }
    if (conversation.username === null) this.refresh().catch(() => {});
    this.#emit("thread", conversation);
    this.#emit("list");
  }

  #acked(entry, ack) {
    if (entry.kind !== "send") {
      const change =
        entry.kind === "edit"
          ? { text: entry.text, edited_at: new Date().toISOString() }
          : { text: "", deleted: true };
      return this.#changed(ack.conversation, ack.seq, { ...change, revision: ack.revision ?? 0 });
    }
    const conversation = this.#of(entry.to);
    this.#setConversationId(conversation, ack.conversation);
    const message = {
      conversation: ack.conversation,
      seq: ack.seq,
      from: this.ownId,
      to: entry.to,
      text: entry.text,
      sent_at: ack.sent_at,
      id: entry.id,
    };
    conversation.thread.add(message);
    if (!conversation.last || message.seq > conversation.last.seq) conversation.last = message;
    this.#emit("thread", conversation);
    this.#emit("list");
  }

  #changedOutbox(peerId) {
    const conversation = this.#of(peerId);
    if (conversation.username === null) this.refresh().catch(() => {});
    this.#emit("thread", conversation);
    this.#emit("list");
  }

  #changed(conversationId, seq, change) {
    const conversation = this.#byConversation.get(conversationId);
    if (!conversation) return;
    conversation.thread.change(seq, change);
    const { last } = conversation;
    if (last?.seq === seq && change.revision > (last.revision ?? 0)) {
      conversation.last = { ...last, ...change };
    }
    this.#emit("thread", conversation);
    this.#emit("list");
  }

  #erased({ conversation: id, user }) {
    const conversation = this.#byConversation.get(id);
    if (!conversation) return;
    conversation.isGone = user === conversation.peerId;
    conversation.thread.erase(user);
    if (conversation.last?.from === user) {
      conversation.last = { ...conversation.last, text: "", deleted: true };
    }
    this.#emit("thread", conversation);
    this.#emit("person", conversation);
    this.#emit("list");
  }

  #receipt({ conversation: id, user, received, read }) {
    const conversation = this.#byConversation.get(id);
    if (!conversation) return;
    if (user === this.ownId) {
      if (read > conversation.read) {
        conversation.read = read;
        this.#recount(conversation);
      }
      if (conversation.isMiscounted && read >= conversation.read) this.#countAnew(conversation).catch(() => {});
      return;
    }
    conversation.peerReceived = Math.max(conversation.peerReceived, received);
    conversation.peerRead = Math.max(conversation.peerRead, read ?? 0);
    this.#emit("thread", conversation);
    this.#emit("list");
  }

  #recount(conversation) {
    const { thread, read, last } = conversation;
    const loaded = thread.countAfter(read, conversation.peerId);
    const unread = loaded ?? (!last || read >= last.seq ? 0 : null);
    conversation.isMiscounted = unread === null; // until the server has the mark, and counts
    if (unread !== null) conversation.unread = unread;
    this.#emit("list");
  }

  /** Only the server can count: read the list again, to its end if the conversation is not at its top. */
  async #countAnew(conversation) {
    const next = await this.refresh();
    if (!conversation.isMiscounted) return;
    this.#next = next;
    await this.loadRest();
  }

  #typing(conversation, active) {
    clearTimeout(conversation.typingTimer);
    const was = conversation.isTyping;
    conversation.typingTimer = active
      ? setTimeout(() => this.#typing(conversation, false), TYPING_MS)
      : null;
    if (was === active) return;
    this.#emit("person", conversation);
    this.#emit("list");
  }

  /* ---- Public profiles: asked for one by one, a few at once ---- */

  /** The conversation is shown. */
  wantProfile({ username }) {
    if (!username || this.#profiles.has(username)) return;
    this.#profiles.add(username);
    this.#wantedProfiles.push(username);
    this.#loadProfiles();
  }

  /** Read somebody's public profile again. */
  async loadProfile(conversation) {
    if (conversation.username) this.#takeProfile(await this.#account.user(conversation.username));
  }

  async #loadProfiles() {
    if (this.#loadingProfiles >= PROFILES_AT_ONCE) return;
    const username = this.#wantedProfiles.shift();
    if (username === undefined) return;
    this.#loadingProfiles += 1;
    try {
      this.#takeProfile(await this.#account.user(username));
    } catch {
      this.#profiles.delete(username); // asked again when it is drawn anew
    }
    this.#loadingProfiles -= 1;
    this.#loadProfiles();
  }

  #takeProfile(user) {
    this.#profiles.add(user.username);
    const conversation = this.#of(user.id);
    conversation.profile = user;
    conversation.username = user.username;
    this.#emit("person", conversation);
    this.#emit("list");
  }
}
