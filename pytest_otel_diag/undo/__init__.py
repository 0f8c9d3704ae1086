"""The undo that cannot be lost: journal on disk, lease, guardian process, and what heals after all died."""
