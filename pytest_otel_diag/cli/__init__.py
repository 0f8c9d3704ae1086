"""The otel-diag command."""
