"""The one door to pyarrow, which is imported on first use and belongs to the ``embedded`` extra."""

from __future__ import annotations

import importlib
from typing import Any

from pytest_otel_diag.errors import RecordingError


def _load(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RecordingError(
            f"reading and writing recordings needs pyarrow, which cannot be imported ({error}); "
            "install it with: pip install 'pytest-otel-diag[embedded]'"
        ) from error


def arrow() -> Any:
    """Return the module ``pyarrow``; raises RecordingError when it is not installed."""
    return _load("pyarrow")


def compute() -> Any:
    """Return the module ``pyarrow.compute``; raises RecordingError when it is not installed."""
    return _load("pyarrow.compute")


def parquet() -> Any:
    """Return the module ``pyarrow.parquet``; raises RecordingError when it is not installed."""
    return _load("pyarrow.parquet")
