"""The schema in PostgreSQL, one numbered step a file: the same numbers as for SQLite."""
