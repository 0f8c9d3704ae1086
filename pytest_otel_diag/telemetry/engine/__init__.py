"""The engine behind telemetry: connections, worker threads, translated failures."""
