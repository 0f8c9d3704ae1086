"""Surfaces: the places where a flag document is stored."""
