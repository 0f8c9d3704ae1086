"""Undo that cannot be lost: journal, lease, guardian, heal."""
