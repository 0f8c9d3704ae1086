"""Telemetry between simulated services and the store: buffers, instruments, span metrics, rows."""
