"""Judges diagnoses, aggregates verdicts, and applies the statistical gate."""
