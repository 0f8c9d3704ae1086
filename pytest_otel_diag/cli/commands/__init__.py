"""The commands of ``otel-diag``, one module each."""
