-- depends: 0003.forgetting

-- On SQLite, one row of `deliveries` stands for all that went out together. Here a message has a
-- number within its conversation only, and each keeps its row.
