-- depends:

-- The log is `messages` and `revisions`: every event has a position, given in commit order, and a
-- cursor is a position. It is the truth; other tables follow it, some events behind.

-- One row. `epoch` names the life of this database: a restored backup gets another, so that cursors
-- of the old one are noticed. `settled` and `indexed` are the positions up to which what follows the
-- log (places, inbox and members; search) has caught up with it.
CREATE TABLE life (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0,
    indexed INTEGER NOT NULL DEFAULT 0,
    feed_event_id TEXT
) STRICT;
INSERT INTO life (id, epoch) VALUES (1, lower(hex(randomblob(6))));

-- Small integers in place of the public ids: every index of messages is a third of the size.
CREATE TABLE users (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    last_seen_ms INTEGER,
    shares_reads INTEGER NOT NULL DEFAULT 1,
    shares_presence INTEGER NOT NULL DEFAULT 1
) STRICT;

CREATE TABLE conversations (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    low INTEGER NOT NULL REFERENCES users (key),
    high INTEGER NOT NULL REFERENCES users (key)
) STRICT;

-- In commit order: storing a batch appends to the end of this table and (nearly) of its one index,
-- and touches few pages however many conversations it is for (ADR 3). `low_count` counts the
-- messages of the conversation's `low` up to this one, so that the number of unread messages between
-- any two rows is a subtraction.
CREATE TABLE messages (
    position INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    sender INTEGER NOT NULL,
    low_count INTEGER NOT NULL,
    client_id TEXT NOT NULL,
    sent_at_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    changed_at_ms INTEGER,
    deleted INTEGER NOT NULL,
    text TEXT NOT NULL
) STRICT;

-- What makes a retry safe. Client id first: ids that grow with time (UUIDv7) then go to the end of
-- the index and touch one page for a whole batch, where random ones touch a page each.
CREATE UNIQUE INDEX messages_by_client_id ON messages (client_id, sender);

-- The other events, in the same order of positions. `kind` is an EventKind; `message` is the
-- position of the message it is about, or nothing for ERASED, which is about all of `actor`'s.
CREATE TABLE revisions (
    position INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL,
    message INTEGER,
    kind INTEGER NOT NULL,
    actor INTEGER NOT NULL
) STRICT;

-- Follows the log: where the messages of a conversation are.
CREATE TABLE places (
    conversation INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (conversation, seq)
) STRICT, WITHOUT ROWID;

-- What makes repeating an edit or a deletion safe; `revision` is what it made of the message.
CREATE TABLE changes (
    request_id TEXT NOT NULL,
    author INTEGER NOT NULL,
    position INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (request_id, author)
) STRICT, WITHOUT ROWID;

-- Follows the log: which positions concern a user.
CREATE TABLE inbox (
    user INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (user, position)
) STRICT, WITHOUT ROWID;

-- A person's side of a conversation. `last_position` and `last_seq` follow the log; the other two
-- positions are where the log stood when the marks, or `received` alone, moved last: the peer must
-- not even notice that a private `read` moved.
CREATE TABLE members (
    user INTEGER NOT NULL,
    conversation INTEGER NOT NULL,
    peer INTEGER NOT NULL,
    last_position INTEGER NOT NULL DEFAULT 0,
    last_seq INTEGER NOT NULL DEFAULT 0,
    received INTEGER NOT NULL DEFAULT 0,
    read INTEGER NOT NULL DEFAULT 0,
    marks_position INTEGER NOT NULL DEFAULT 0,
    received_position INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user, conversation)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_by_recency ON members (user, last_position);

-- When marks moved, and when a message first went out to its recipient: for tracing.
CREATE TABLE marks (
    conversation INTEGER NOT NULL,
    user INTEGER NOT NULL,
    read INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (conversation, user, read, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE deliveries (
    position INTEGER PRIMARY KEY,
    connections INTEGER NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;

-- People who deleted their account and whose messages still have text somewhere.
CREATE TABLE erasures (
    user_id TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE blocks (
    blocker INTEGER NOT NULL,
    blocked INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (blocker, blocked)
) STRICT, WITHOUT ROWID;

-- Search follows the log too. Both people's keys are words of the index (u1 u2), so that a search in
-- one's own conversations never walks through other people's matches.
CREATE VIEW searchable AS
SELECT messages.position AS position,
       'u' || conversations.low || ' u' || conversations.high AS people,
       messages.text AS text
FROM messages JOIN conversations ON conversations.key = messages.conversation
WHERE NOT messages.deleted;
CREATE VIRTUAL TABLE search USING fts5 (
    people, text, content = 'searchable', content_rowid = 'position',
    tokenize = 'unicode61 remove_diacritics 2'
);
