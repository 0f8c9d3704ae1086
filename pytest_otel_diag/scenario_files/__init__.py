"""Scenarios as YAML files: the format, loading with every mistake named, and what the catalog adds."""
