"""Columns for pytest-html: scenario, verdict and named root cause of each test; registered only beside it."""

from __future__ import annotations

from html import escape
from typing import Any

import pytest

COLUMNS = ("Scenario", "Diagnosis", "Root cause")


def pytest_html_results_table_header(cells: list[str]) -> None:
    """Add the columns after the test's name."""
    cells[2:2] = [f"<th>{name}</th>" for name in COLUMNS]


def pytest_html_results_table_row(report: Any, cells: list[str]) -> None:
    """Fill the columns from the test's properties."""
    cells[2:2] = [f"<td>{escape(text)}</td>" for text in _texts(report)]


def _texts(report: pytest.TestReport) -> tuple[str, str, str]:
    found = {name.removeprefix("otel_diag."): str(value) for name, value in report.user_properties}
    if "status" not in found:
        return "", "", ""
    status = found["status"]
    if status == "scored":
        status = "alarm" if found.get("detected") == "True" else "no alarm"
    elif "reason" in found:
        status = f"{status}: {found['reason']}"
    rank = found.get("root_cause_rank")
    named = found.get("root_cause", "")
    return found.get("scenario", ""), status, f"{named} (right one is number {rank})" if rank else named
