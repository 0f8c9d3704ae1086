"""The target ``live``: a running OpenTelemetry Demo."""
