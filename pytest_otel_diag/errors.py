"""Errors a user can meet. Each says what happened, which value, what was allowed and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OtelDiagError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigurationError(OtelDiagError):
    """A setting, marker or command-line value cannot be used."""


class ScenarioError(ConfigurationError):
    """A scenario names a fault, variant or expectation that the target does not have."""


class ScenarioRejected(ScenarioError):
    """A scenario cannot run; ``mistakes`` holds one sentence for each reason."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(self.mistakes))


class RecordingError(OtelDiagError):
    """A recording cannot be read; the message names file, column and row where known."""


class TelemetryError(OtelDiagError):
    """The telemetry store cannot answer."""


class TelemetryUnavailable(TelemetryError):
    """The store cannot be reached or opened (bad DSN, refused connection, locked path)."""


class SchemaError(TelemetryError):
    """A table or column that the question needs is missing."""


class QueryRejected(TelemetryError):
    """The statement is not allowed (not read-only, several statements, foreign tables, bad window)."""


class QueryFailed(TelemetryError):
    """The engine refused or broke off the statement; `code` is ClickHouse's error code."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class QueryLimitExceeded(QueryFailed):
    """A limit of time, rows or memory was hit."""


class BudgetExceeded(OtelDiagError):
    """The analyzer used up its budget of time, queries or cost."""


class NotReady(OtelDiagError):
    """The system under fault is not fit for a session: no telemetry, stale telemetry, no traffic."""


class AnalyzerError(OtelDiagError):
    """The analyzer raised, or returned something that is not a diagnosis."""


class FlagError(OtelDiagError):
    """A flag cannot be read, written, witnessed or restored."""


class LostUpdate(FlagError):
    """Somebody else wrote the flags between our read and our write."""


class Occupied(FlagError):
    """Another run holds the environment; the message names who, where and since when."""


class RestoreFailed(FlagError):
    """A fault may still be on: the undo did not go through. Never swallowed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``", did you mean 'x'?"`` for the closest known spelling, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {matches[0]!r}?" if matches else ""
