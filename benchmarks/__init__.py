"""Timings of the store, of the named statements and of whole analyses."""
