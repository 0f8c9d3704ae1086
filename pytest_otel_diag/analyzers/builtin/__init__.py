"""The built-in analyzer: no training, no knowledge of any system."""

from pytest_otel_diag.analyzers.builtin.analyzer import BuiltinAnalyzer

__all__ = ["BuiltinAnalyzer"]
