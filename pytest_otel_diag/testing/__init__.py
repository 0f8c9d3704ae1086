"""Contract suites and helpers for testing analyzers, targets, flag controllers and telemetry stores."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pytest_otel_diag.testing.marks import each_variant

if TYPE_CHECKING:
    from pytest_otel_diag.testing.running import run_scenario

__all__ = ["each_variant", "run_scenario"]


def __getattr__(name: str) -> Any:
    """Import ``run_scenario`` on first use, since it loads the whole package and the marks do not."""
    if name != "run_scenario":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("pytest_otel_diag.testing.running").run_scenario
