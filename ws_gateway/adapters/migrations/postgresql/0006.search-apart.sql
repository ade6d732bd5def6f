-- depends: 0005.search-merges

-- Nothing here: PostgreSQL indexes for search beside what is stored.
DO $$ BEGIN END $$;
