"""The built-in analyzer, without training and without knowledge of a specific system."""

from pytest_otel_diag.analyzers.builtin.analyzer import BuiltinAnalyzer

__all__ = ["BuiltinAnalyzer"]
