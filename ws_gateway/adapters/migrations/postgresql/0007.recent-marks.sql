-- depends: 0006.search-apart

-- Nothing here: on PostgreSQL a batch's marks are written in their place.
DO $$ BEGIN END $$;
