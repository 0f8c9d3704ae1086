"""Public contract suites and helpers for tests of adapters."""
