"""The schema in SQLite, one numbered step a file."""
