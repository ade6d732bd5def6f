"""The service that knows who people are: users, passwords, sessions, tokens and their keys."""
