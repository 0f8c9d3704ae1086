"""Named questions about telemetry and their SQL."""
