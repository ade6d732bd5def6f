-- depends: 0001.conversations

-- SQLite keeps here whether words of removed texts are still to be taken from its search index.
-- PostgreSQL has no such work for a gateway: VACUUM removes the rows, and REINDEX the words that stay
-- in the index of the search without a message (ADR 16).
