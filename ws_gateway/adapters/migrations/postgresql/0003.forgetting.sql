-- depends: 0001.conversations

-- SQLite keeps here whether words of removed texts are still to be taken from its search index.
-- PostgreSQL has no such work for a gateway: VACUUM removes them (docs/operations.md).
