"""OTLP into the telemetry store, over HTTP and gRPC, for systems that have no ClickHouse of their own."""
