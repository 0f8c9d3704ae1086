"""How an analyzer ended, as text: written down where it ran, read where the session waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_otel_diag.daemon import ForeignExit
from pytest_otel_diag.errors import (
    AnalyzerError,
    BudgetExceeded,
    ConfigurationError,
    ModelUnavailable,
    OtelDiagError,
    SpendingLimitReached,
)
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.sessions.ending import AnalyzerCrashed, writable
from pytest_otel_diag.sessions.investigation.answer import written
from pytest_otel_diag.sessions.investigation.closed_line import Ended
from pytest_otel_diag.sessions.investigation.crash import crashed, shortened

_CRASH = "crash"
_ENDINGS: Mapping[str, type[OtelDiagError]] = {
    "budget": BudgetExceeded,
    "refused": AnalyzerError,
    "unavailable": ModelUnavailable,
    "configuration": ConfigurationError,
    "spent": SpendingLimitReached,
}
"""Errors that keep their type on the way to the session, and so who is to blame; all others are crashes."""


def ending_of(call: Callable[[], Ended]) -> Ended:
    """Return how *call*, which runs an analyzer, ended, whatever it raised."""
    try:
        return call()
    except BaseException as error:
        try:
            return _reported(error)
        except BaseException as other:  # of code that the error runs when it is shown
            kind, second = type(error).__name__, type(other).__name__
            return Ended(kind=_CRASH, reason=f"the analyzer raised {kind}, showing it raised {second}")


def _reported(error: BaseException) -> Ended:
    if isinstance(error, AnalyzerCrashed):  # in a process of its own, which has reported it
        return Ended(kind=_CRASH, reason=shortened(writable(str(error))), trace=writable(error.trace))
    kind = next((name for name, kept in _ENDINGS.items() if isinstance(error, kept)), None)
    if kind is not None:
        return Ended(kind=kind, reason=shortened(writable(str(error))))
    if not isinstance(error, Exception):  # SystemExit of third-party code must not end this process
        exit_ = ForeignExit(f"{type(error).__name__}: {error}")
        error = exit_.with_traceback(error.__traceback__)
    report = crashed(error)
    return Ended(kind=_CRASH, reason=str(report), trace=report.trace)


def diagnosis_of(ended: Ended) -> Diagnosis:
    """Return the diagnosis that was written down.

    Raises the error that was: one of the errors of ``_ENDINGS``, or AnalyzerCrashed.
    """
    if ended.kind == _CRASH:
        raise AnalyzerCrashed(ended.reason, ended.trace)
    if ended.kind:
        raise _ENDINGS[ended.kind](ended.reason)
    return written(ended.answer)
