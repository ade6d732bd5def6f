-- Users, their sessions, what ended sessions, and what happened.
-- depends:

CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    username TEXT NOT NULL,
    canonical_username TEXT NOT NULL UNIQUE,
    password_hash TEXT,              -- NULL once deleted: the row stays, so the name stays taken
    token_version INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    profile TEXT NOT NULL,           -- JSON
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    deleted_at_ms INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    device_name TEXT,
    user_agent TEXT,
    generation INTEGER NOT NULL,
    confirmed_generation INTEGER NOT NULL,
    rotated_at_ms INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_user ON sessions (user_id, created_at_ms) WHERE ended_at_ms IS NULL;
CREATE INDEX sessions_by_expiry ON sessions (expires_at_ms);

CREATE TABLE revocations (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    nonce TEXT NOT NULL,             -- so that a position of a lost timeline is not mistaken for this
    at_ms INTEGER NOT NULL,
    event TEXT NOT NULL              -- JSON
) STRICT;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    user_id TEXT,
    session_id TEXT,
    address TEXT,
    detail TEXT
) STRICT;
CREATE INDEX audit_by_user ON audit (user_id, at_ms);
CREATE INDEX audit_by_time ON audit (at_ms);

CREATE TABLE epoch (value TEXT NOT NULL) STRICT;
INSERT INTO epoch (value) VALUES (lower(hex(randomblob(8))));
