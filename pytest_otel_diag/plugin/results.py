"""Puts sessions on pytest's reports, as text: they travel the same way with and without pytest-xdist.

Entries in the ``__dict__`` of a report, all made of strings:

``otel_diag_sessions``  session results as JSON, of the sessions that ended in this phase of the test
``otel_diag_failures``  messages with which the test failed in this phase, expected failures (xfail) aside
``otel_diag_unmet``     the same in one line each
``otel_diag_target``    what the target reports about itself
``otel_diag_analyzers`` identities of the analyzers of these sessions, as JSON
``otel_diag_missed``    a diagnosis that missed the expectation, left to the gate to judge
"""

from __future__ import annotations

from typing import Any

import pytest

from pytest_otel_diag.model.base import to_json
from pytest_otel_diag.plugin.fixtures import HELD, PROPERTY, RETAINED, SESSIONS
from pytest_otel_diag.plugin.runtime import runtime_of, settings_of
from pytest_otel_diag.plugin.settings import place_of
from pytest_otel_diag.runs.kept_telemetry import kept_folder, shell_command
from pytest_otel_diag.scoring.assertions import DiagnosisMissed, SessionNotScored
from pytest_otel_diag.scoring.text import one_line


def attach(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Put the sessions of the phase on its report; under the gate, a miss is no failed test."""
    runtime = runtime_of(item.config)
    ended = [result for result in item.stash.get(SESSIONS, []) if result.session_id in runtime.unreported]
    if ended:
        vars(report)["otel_diag_sessions"] = [to_json(result) for result in ended]
        for result in ended:  # only now: what could not be put on a report is kept at the end of the run
            del runtime.unreported[result.session_id]
        identities = [runtime.identity(name) for name in {result.analyzer for result in ended}]
        vars(report)["otel_diag_target"] = runtime.describe()
        vars(report)["otel_diag_analyzers"] = [identity.model_dump_json() for identity in identities]
    error = call.excinfo.value if call.excinfo else None
    without_score = unscored(error)
    if without_score is not None and report.failed:
        report.longrepr = _message(item, call, without_score)
    if not report.failed or without_score is not None:
        return
    message, line = _failure(error, report)
    vars(report)["otel_diag_failures"] = [message]
    vars(report)["otel_diag_unmet"] = [line]
    if item.stash.get(SESSIONS, []):
        for properties in (report.user_properties, item.user_properties):
            properties.append(("otel_diag.failure", line))
    if isinstance(error, DiagnosisMissed):
        report.longrepr = _message(item, call, error)
        if settings_of(item.config).gate:
            report.outcome = "skipped"  # as pytest does for an expected failure
            vars(report).update(wasxfail=f"missed, left to the gate: {line}", otel_diag_missed=message)


def begin_attempt(item: pytest.Item) -> None:
    """Forget what an earlier attempt of the same test left: plugins that retry use the item again."""
    keys: tuple[pytest.StashKey[Any], ...] = (SESSIONS, RETAINED, HELD)
    for key in keys:
        if key in item.stash:
            del item.stash[key]
    item.user_properties[:] = [one for one in item.user_properties if not one[0].startswith(PROPERTY)]


def _failure(error: BaseException | None, report: pytest.TestReport) -> tuple[str, str]:
    """Return the message with which a test failed, and its gist in one line."""
    if isinstance(error, DiagnosisMissed):
        return str(error), error.line
    if error is None:  # a strict xfail that passed
        return report.longreprtext, one_line(report.longreprtext)
    text = str(error).strip()
    if not isinstance(error, AssertionError | pytest.fail.Exception):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text or "an assertion failed", one_line(text.partition("\n")[0]) or "an assertion failed"


def unscored(error: BaseException | None) -> SessionNotScored | None:
    """Return the error by which a session has no score: the error itself, or the one it was raised over."""
    for found in (error, error.__context__ if error is not None else None):
        if isinstance(found, SessionNotScored):
            return found
    return None


def left_on(item: pytest.Item) -> str:
    """Return what the sessions of the item left on, as the user asked; empty for none."""
    cleanups = [result.cleanup for result in item.stash.get(SESSIONS, ()) if result.cleanup is not None]
    details = [cleanup.detail for cleanup in cleanups if cleanup.left_on]
    return details[-1] if details else ""


def _kept(item: pytest.Item) -> list[str]:
    """Return a line for each session of the item whose telemetry was kept: the command that opens it."""
    place = place_of(item.config)
    if place is None:
        return []
    ids = [session.session_id for session in item.stash.get(SESSIONS, [])]
    kept = [one for one in ids if kept_folder(place.directory, one).is_dir()]
    return [f"  telemetry {shell_command(place.directory, one)}" for one in kept]


def _message(item: pytest.Item, call: pytest.CallInfo[None], error: BaseException) -> Any:
    """Return the error's message with the line of the test; our own frames are of no use to a reader."""
    assert call.excinfo is not None
    shown: Any = call.excinfo.getrepr(style="value", chain=False)
    text = "\n".join([str(error), *_kept(item)])
    entries = [entry for entry in call.excinfo.traceback if entry.path == item.path]
    line = entries[-1].lineno if entries else item.location[1] or 0
    if entries:
        text = f"{item.location[0]}:{line + 1}: {str(entries[-1].statement).strip()}\n{text}"
    in_full = item.config.getoption("tbstyle", "auto") != "line"
    shown.reprtraceback.reprentries[0].lines[:] = text.splitlines() if in_full else []
    crash = shown.reprcrash
    if crash is not None:
        crash.path, crash.lineno, crash.message = str(item.path), line + 1, str(error).partition("\n")[0]
    return shown
