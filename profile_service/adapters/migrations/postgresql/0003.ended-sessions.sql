-- Nothing here: one index has all sessions of a user, from the start.
-- depends: 0002.external-identities

DO $$ BEGIN END $$;
