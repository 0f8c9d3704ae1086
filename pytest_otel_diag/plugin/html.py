"""Columns for pytest-html: scenario, verdict and named root cause of each test; registered only beside it."""

from __future__ import annotations

from html import escape
from typing import Any

import pytest

COLUMNS = ("Scenario", "Verdict", "Root cause named")


def pytest_html_results_table_header(cells: list[str]) -> None:
    """Add the columns after the test's name."""
    cells[2:2] = [f"<th>{name}</th>" for name in COLUMNS]


def pytest_html_results_table_row(report: Any, cells: list[str]) -> None:
    """Fill the columns from the test's properties."""
    cells[2:2] = [f"<td>{escape(text)}</td>" for text in _texts(report)]


def _texts(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str]:
    properties = getattr(report, "user_properties", ())  # reports of collection have none
    found = {name.removeprefix("otel_diag."): str(value) for name, value in properties}
    if "status" not in found:
        return "", "", ""
    return found.get("scenario", ""), found.get("verdict", ""), found.get("root_cause", "")
