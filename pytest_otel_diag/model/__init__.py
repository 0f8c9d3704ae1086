"""Frozen values shared by all layers: no I/O, no clock."""
