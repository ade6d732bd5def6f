-- depends:

-- Whose log this follows, and how far: messages up to the position `indexed`, and removals up to the
-- key `removed`. `forgetting` says whether words of removed texts are to be taken out of the index:
-- 0 no; 1 texts were removed; 2 it is being done; 3 it is, and more were removed since.
CREATE TABLE following (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    indexed INTEGER NOT NULL DEFAULT 0,
    removed INTEGER NOT NULL DEFAULT 0,
    forgetting INTEGER NOT NULL DEFAULT 0
) STRICT;

-- A row for each message, by its position. Both people's keys are words of it (u1 u2), so that a
-- search in one's own conversations never walks through other people's matches. The texts are not
-- kept here a second time.
CREATE VIRTUAL TABLE search USING fts5 (
    people, text, content = '', tokenize = 'unicode61 remove_diacritics 2'
);

-- Parts of the index are merged a few pages at a time, each in a transaction of its own.
INSERT INTO search (search, rank) VALUES ('automerge', 0);
