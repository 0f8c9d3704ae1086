"""``--otel-diag-isolate``: runs an analyzer written in Python in a process of its own."""
