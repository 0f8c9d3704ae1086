"""Telemetry on its way from a simulated service to the store: buffers, instruments, readers, rows."""
