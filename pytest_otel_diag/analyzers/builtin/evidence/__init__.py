"""Evidence: deviations of traces, logs and metrics from quiet time."""
