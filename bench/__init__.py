"""Measures Duet beside a bare relay that stores nothing; `python -m bench --help`."""
