-- depends: 0001.conversations

-- SQLite keeps here whether words of removed texts are still to be taken from its search index.
-- PostgreSQL's index has none.
SELECT 1;
