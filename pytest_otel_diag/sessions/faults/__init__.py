"""Faults of a session: schedule, injection, proof that flags are served, external changes."""
