"""Adds sessions to pytest-html's report: columns for each test, and the whole session below it.

Registered only together with pytest-html, in the process that writes its report. Imports pytest and the
standard library only until the first session arrives.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_otel_diag.model.session import SessionResult

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
        self._open: dict[str, list[SessionResult]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Draw the sessions of a test once it is over, before pytest-html reads the report."""
        if hasattr(report, "otel_diag_sessions"):
            from pytest_otel_diag.plugin.carried import sessions_on

            self._open.setdefault(report.nodeid, []).extend(sessions_on(report))
        if report.nodeid not in self._open:
            return
        from pytest_otel_diag.plugin.carried import RETRIED, failed_by
        from pytest_otel_diag.reports.session_page import fragment

        self._open[report.nodeid] = failed_by(report, self._open[report.nodeid])
        if report.when != "teardown" and report.outcome != RETRIED:
            return
        self._any = True
        # The only quotes are around attributes; pytest-html escapes double quotes twice, 6 bytes each.
        drawn = [fragment(session).replace('"', "'") for session in self._open.pop(report.nodeid)]
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
    verdict = found.get("failure") or found.get("verdict", "")
    return found.get("scenario", ""), verdict, found.get("root_cause", "")
