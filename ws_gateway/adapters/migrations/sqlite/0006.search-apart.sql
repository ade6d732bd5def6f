-- depends: 0005.search-merges

-- Search has a file of its own (ADR 24), which the gateway makes from the log.
DROP TABLE search;
DROP VIEW searchable;
ALTER TABLE life DROP COLUMN indexed;
ALTER TABLE life DROP COLUMN forgetting;

-- Texts that an edit or a deletion removed, until search has forgotten them, which needs the words:
-- moments, but for when nothing can be written. A key is never given twice.
CREATE TABLE removals (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    position INTEGER NOT NULL,
    text TEXT NOT NULL
) STRICT;
CREATE INDEX removals_by_position ON removals (position, key);
