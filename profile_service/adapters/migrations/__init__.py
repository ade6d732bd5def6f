"""The schema of the profile service: the same numbered steps for each engine."""
