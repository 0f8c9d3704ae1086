"""How sessions end early: by which error, whose fault it is, and how it is worded."""

from __future__ import annotations

from pytest_otel_diag.errors import AnalyzerError, BudgetExceeded, ConfigurationError, OtelDiagError
from pytest_otel_diag.model.session import Blame, Status
from pytest_otel_diag.scoring.text import visible


class SessionStopped(OtelDiagError):
    """Ends the session with this status, reason and blame."""

    def __init__(self, status: Status, reason: str, blame: Blame | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.blame = blame


class AnalyzerCrashed(AnalyzerError):
    """The analyzer raised; ``trace`` is the traceback from its own code on."""

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message)
        self.trace = trace


def writable(text: str) -> str:
    """Return the text for the record: what UTF-8 cannot encode and what a terminal would obey is escaped."""
    return visible(text)


def describe(error: BaseException) -> str:
    """Return the message of the error; with its type for errors of other packages."""
    try:
        text = writable(str(error).strip())
    except Exception:
        text = "its message cannot be shown"
    if isinstance(error, OtelDiagError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def blame_for(error: BaseException) -> Blame:
    """Return who is to blame for an error, by its type."""
    if isinstance(error, ConfigurationError):
        return Blame.USER
    if isinstance(error, AnalyzerError | BudgetExceeded):
        return Blame.ANALYZER
    return Blame.INFRASTRUCTURE
