"""The built-in analyzer keeps the contract that ships for everybody's analyzers."""

import pytest

from pytest_otel_diag.analyzers.builtin import BuiltinAnalyzer
from pytest_otel_diag.testing.analyzer_contract import AnalyzerContract


class TestBuiltinAnalyzer(AnalyzerContract):
    """Every test of the contract."""

    @pytest.fixture
    def analyzer(self) -> BuiltinAnalyzer:
        return BuiltinAnalyzer()
