-- depends: 0003.forgetting

-- A row stands for so many messages, from `position` on without a gap, that went out together: to as
-- many connections each, in the same millisecond. It was a row for each, a sixth of all rows.
ALTER TABLE deliveries ADD COLUMN messages INTEGER NOT NULL DEFAULT 1;
