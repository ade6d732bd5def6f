/** The loaded stretch of one conversation: messages whose `seq` follow each other without a gap. */

export class Thread {
  constructor() {
    this.messages = [];
    this.isLoaded = false;
    this.hasOlder = false;
    this.atEnd = false;
    /** What arrived before its predecessors were loaded; by seq. A page may be older than it. */
    this.early = new Map();
    /** The latest revision that was told of a message, in case an older one is loaded later. */
    this.changes = new Map();
  }

  get lo() {
    return this.messages[0]?.seq ?? 0;
  }

  get hi() {
    return this.messages.at(-1)?.seq ?? 0;
  }

  find(seq) {
    return this.messages[seq - this.lo] ?? this.early.get(seq);
  }

  /** Start over with a page around some place. */
  replace(messages, { hasOlder, atEnd }) {
    const end = messages.at(-1)?.seq ?? 0;
    for (const message of this.messages) if (message.seq > end) this.early.set(message.seq, message);
    this.messages = messages.map((message) => this.#latest(message));
    this.isLoaded = true;
    this.hasOlder = hasOlder;
    this.atEnd = atEnd;
    this.#absorb();
  }

  prepend(messages, hasOlder) {
    const fresh = messages.filter((message) => this.lo === 0 || message.seq < this.lo);
    this.messages = [...fresh.map((message) => this.#latest(message)), ...this.messages];
    this.hasOlder = hasOlder;
  }

  append(messages, atEnd) {
    for (const message of messages) {
      if (message.seq === this.hi + 1) this.messages.push(this.#latest(message));
    }
    this.atEnd = atEnd;
    this.#absorb();
  }

  /** Take a message that has just been sent or received. */
  add(message) {
    if (this.isLoaded && message.seq <= this.hi) {
      const held = this.find(message.seq);
      if (held && message.id) held.id = message.id;
      return;
    }
    this.early.set(message.seq, message);
    this.#absorb();
  }

  /** Take an edit or a deletion; the highest revision is the truth. */
  change(seq, change) {
    const known = this.changes.get(seq);
    if (known && known.revision >= change.revision) return;
    this.changes.set(seq, change);
    const message = this.find(seq);
    if (message) Object.assign(message, this.#latest(message));
  }

  /** Somebody is gone, and so are their words. */
  erase(user) {
    for (const message of [...this.messages, ...this.early.values()]) {
      if (message.from === user) Object.assign(message, { text: "", deleted: true });
    }
  }

  /** Messages of `from` after `seq`, if they are all loaded; else null. */
  countAfter(seq, from) {
    if (!this.isLoaded || !this.atEnd || this.lo > seq + 1) return null;
    return this.messages.filter((message) => message.seq > seq && message.from === from).length;
  }

  #latest(message) {
    const change = this.changes.get(message.seq);
    return change && change.revision > (message.revision ?? 0) ? { ...message, ...change } : message;
  }

  #absorb() {
    if (!this.isLoaded) return;
    for (const seq of this.early.keys()) if (seq <= this.hi) this.early.delete(seq);
    if (!this.atEnd) return;
    for (let seq = this.hi + 1; this.early.has(seq); seq++) {
      this.messages.push(this.#latest(this.early.get(seq)));
      this.early.delete(seq);
    }
  }
}
