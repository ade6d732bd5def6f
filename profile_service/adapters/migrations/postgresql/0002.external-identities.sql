-- Users whom an embedder's identity provider vouches for. They have no password_hash.
-- depends: 0001.initial

CREATE TABLE external_identities (
    issuer text NOT NULL,
    subject text NOT NULL,
    user_id text COLLATE "C" NOT NULL REFERENCES users (id),
    created_at_ms bigint NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX external_identities_by_user ON external_identities (user_id);
