-- depends:

-- The life of this database: another after a backup was restored, so that old cursors are noticed.
CREATE TABLE life (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL
) STRICT;
INSERT INTO life VALUES (1, lower(hex(randomblob(6))));

-- Small integers in place of the public ids: every index of messages is a third of the size.
CREATE TABLE users (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE conversations (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    low INTEGER NOT NULL REFERENCES users (key),
    high INTEGER NOT NULL REFERENCES users (key)
) STRICT;

-- Clustered by conversation: history is one range, and the next seq is the last row's plus one.
CREATE TABLE messages (
    conversation INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    position INTEGER NOT NULL,
    sender INTEGER NOT NULL,
    client_id TEXT NOT NULL,
    sent_at_ms INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (conversation, seq)
) STRICT, WITHOUT ROWID;

-- What makes a retry safe. Client id first: ids that grow with time (UUIDv7) then go to the end of
-- the index and touch one page for a whole batch, where random ones touch a page each (ADR 3).
CREATE UNIQUE INDEX messages_by_client_id ON messages (client_id, sender);

-- Every event in commit order; a cursor is a position in it.
CREATE TABLE log (
    position INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL,
    seq INTEGER NOT NULL
) STRICT;
