-- depends: 0001.conversations

-- The search index keeps the words of removed texts until its parts are merged. Whether that is to
-- be done: 0 no; 1 texts were removed; 2 it is being done; 3 it is, and more were removed since.
ALTER TABLE life ADD COLUMN forgetting INTEGER NOT NULL DEFAULT 0;

-- An earlier version may have left words behind.
UPDATE life SET forgetting = 1 WHERE EXISTS (SELECT 1 FROM revisions);
