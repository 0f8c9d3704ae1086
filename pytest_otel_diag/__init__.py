"""pytest plugin and suite framework that proves whether a diagnosis of OpenTelemetry systems works."""
