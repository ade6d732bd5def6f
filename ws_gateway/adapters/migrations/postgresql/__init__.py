"""The schema in PostgreSQL, one numbered step a file."""
