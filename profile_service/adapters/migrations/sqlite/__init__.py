"""The schema of `users.db`, one numbered step a file."""
