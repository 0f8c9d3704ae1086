"""Imports pyarrow, of the extra ``embedded``, on first use."""

from __future__ import annotations

from typing import Any

from pytest_otel_diag.extras import require

_PURPOSE = "reading and writing telemetry as Arrow tables"


def arrow() -> Any:
    """Return the module ``pyarrow``; raises ConfigurationError when it is not installed."""
    return require("pyarrow", "embedded", _PURPOSE)


def compute() -> Any:
    """Return the module ``pyarrow.compute``; raises ConfigurationError when it is not installed."""
    return require("pyarrow.compute", "embedded", _PURPOSE)


def parquet() -> Any:
    """Return the module ``pyarrow.parquet``; raises ConfigurationError when it is not installed."""
    return require("pyarrow.parquet", "embedded", _PURPOSE)
