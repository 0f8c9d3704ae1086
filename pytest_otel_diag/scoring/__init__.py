"""Judging a diagnosis, aggregating verdicts, and the statistical gate."""
