"""What the ports are made of in production: SQLite."""
