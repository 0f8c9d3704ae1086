"""Scenarios as YAML files: format, loading, lint, and what the catalog adds."""
