"""Suites for simulated, recorded and live systems; installed as ``pytest_otel_diag.suites``."""
