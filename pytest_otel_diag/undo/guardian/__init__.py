"""The guardian: a small process that restores flags when the run no longer can."""
