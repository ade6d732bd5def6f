-- Deleting an account takes the names of devices from sessions that have ended, and looked through
-- everybody's for them. Apart from the index of those that live: each log-in reads a user's there.
-- depends: 0002.external-identities

CREATE INDEX ended_sessions_by_user ON sessions (user_id) WHERE ended_at_ms IS NOT NULL;
