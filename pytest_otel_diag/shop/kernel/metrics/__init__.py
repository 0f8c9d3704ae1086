"""Metrics of a simulated process: its runtime's own, and those that the collector's receivers read."""
