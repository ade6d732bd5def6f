-- depends: 0004.deliveries-together

-- Parts of the search index are merged a few pages at a time, each in a transaction of its own. Within
-- the transaction that adds to it, as FTS5 does it by itself, a batch of messages waited for 250 ms.
INSERT INTO search (search, rank) VALUES ('automerge', 0);
