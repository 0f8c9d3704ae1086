"""Adds sessions to pytest-html's report: columns for each test, and the whole session below it.

Registered only together with pytest-html, in the process that writes its report. Imports pytest and the
standard library only until the first session arrives.
"""

from __future__ import annotations

import json
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


class Sessions:
    """Puts each ended session below its test: pictures, tables, query and phases."""

    def __init__(self) -> None:
        self._any = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Draw the sessions that travel on the report, before pytest-html reads it."""
        texts = getattr(report, "otel_diag_sessions", ())
        if not texts:
            return
        from pytest_otel_diag.model.session import SessionResult
        from pytest_otel_diag.reports.session_page import fragment

        self._any = True
        # The only quotes are around attributes; pytest-html escapes double quotes twice, 6 bytes each.
        drawn = [fragment(SessionResult.model_validate(json.loads(text))).replace('"', "'") for text in texts]
        extras = [
            {"name": None, "format_type": "html", "content": one, "mime_type": None, "extension": None}
            for one in drawn
        ]
        vars(report)["extras"] = [*getattr(report, "extras", ()), *extras]

    def pytest_html_results_summary(self, prefix: list[str]) -> None:
        """Add the style that all drawn sessions share, once."""
        if self._any:
            from pytest_otel_diag.reports.html import page_style

            prefix.append(f"<style>{page_style()}</style>")


def _texts(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str]:
    properties = getattr(report, "user_properties", ())  # reports of collection have none
    found = {name.removeprefix("otel_diag."): str(value) for name, value in properties}
    if "status" not in found:
        return "", "", ""
    return found.get("scenario", ""), found.get("verdict", ""), found.get("root_cause", "")
