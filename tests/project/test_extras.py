"""Errors about missing packages name extras that exist."""

from importlib import metadata
from typing import get_args

import pytest

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.extras import Extra, require


def test_every_extra_that_errors_may_name_is_declared() -> None:
    declared = set(metadata.metadata("pytest-otel-diag").get_all("Provides-Extra") or ())
    assert set(get_args(Extra)) <= declared


def test_a_missing_module_is_reported_with_one_command() -> None:
    with pytest.raises(ConfigurationError) as caught:
        require("no_such_package", "otlp", "receiving telemetry", alternative="use a ClickHouse server")
    assert str(caught.value) == (
        "receiving telemetry needs no_such_package, which cannot be imported (No module named "
        "'no_such_package'); run: pip install \"pytest-otel-diag[otlp]\", or use a ClickHouse server"
    )
