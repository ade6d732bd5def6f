-- depends: 0006.search-apart

-- When marks moved, in the order in which they did, until a conversation's are brought into `marks`
-- together: each in its place at once was a page for each.
CREATE TABLE recent_marks (
    key INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL,
    user INTEGER NOT NULL,
    read INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;
