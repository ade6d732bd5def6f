-- depends: 0004.deliveries-together

-- Nothing here: autovacuum merges what waits to be merged into the search index.
DO $$ BEGIN END $$;
