/** The loaded stretch of one conversation: messages whose `seq` follow each other without a gap. */

const MARGIN = 300;
const MAX_EARLY = 200;
const MAX_CHANGES = 200;

export class Thread {
  #reachedEnd = false;

  constructor() {
    this.messages = [];
    this.isLoaded = false;
    this.hasOlder = false;
    /** What arrived before its predecessors were loaded; by seq. A page may be older than it. */
    this.early = new Map();
    /** Up to this `seq`, what arrived early may have been dropped: it is loaded in its turn. */
    this.droppedTo = 0;
    /** The latest revision that was told of a message, in case an older one is loaded later. */
    this.changes = new Map();
  }

  get atEnd() {
    return this.#reachedEnd && this.hi >= this.droppedTo;
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
    this.#reachedEnd = atEnd;
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
    this.#reachedEnd = atEnd;
    this.#absorb();
  }

  /** Forget what is far from the messages from `from` to `to`: it can be loaded again. */
  keepNear(from, to) {
    const [lowest, highest] = [from - MARGIN, to + MARGIN];
    if (this.lo < lowest) {
      this.messages.splice(0, lowest - this.lo);
      this.hasOlder = true;
    }
    if (this.hi > highest) {
      this.messages.splice(highest + 1 - this.lo);
      this.#reachedEnd = false;
    }
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
    this.changes.delete(seq);
    this.changes.set(seq, change);
    if (this.changes.size > MAX_CHANGES) this.changes.delete(this.changes.keys().next().value);
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
    if (this.isLoaded) for (const seq of this.early.keys()) if (seq <= this.hi) this.early.delete(seq);
    if (this.isLoaded && this.atEnd) {
      for (let seq = this.hi + 1; this.early.has(seq); seq++) {
        this.messages.push(this.#latest(this.early.get(seq)));
        this.early.delete(seq);
      }
    }
    const excess = this.early.size - MAX_EARLY;
    if (excess <= 0) return;
    for (const seq of [...this.early.keys()].sort((one, other) => one - other).slice(0, excess)) {
      this.early.delete(seq);
      this.droppedTo = Math.max(this.droppedTo, seq);
    }
  }
}
