"""Duet on one machine: both services, started and stopped together."""
