"""Errors of this package. Messages say what happened, the value, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pytest_otel_diag.secret import cleaned


class OtelDiagError(Exception):
    """Base of all errors of this package. Their texts never contain a credential that an option holds."""

    def __str__(self) -> str:
        return cleaned(super().__str__())


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
    """The statement is not allowed: not read-only, more than one statement, foreign tables, bad window."""


class QueryFailed(TelemetryError):
    """The engine refused or aborted the statement; ``code`` is ClickHouse's error code."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class QueryLimitExceeded(QueryFailed):
    """The statement exceeded a limit of time, rows or memory."""


class BudgetExceeded(OtelDiagError):
    """The analyzer exceeded its budget of time, queries or cost."""


class NotReady(OtelDiagError):
    """The system under fault is not ready for a session: no telemetry, stale telemetry, no traffic."""


class AnalyzerError(OtelDiagError):
    """The analyzer raised an error, or returned something that is not a diagnosis."""


class ModelUnavailable(OtelDiagError):
    """The provider of a language model does not answer usably; no failure of the analyzer that asked it.

    The text has the provider's words.
    """


class SpendingLimitReached(OtelDiagError):
    """The run may not spend what the next call of a model can cost; says nothing about the analyzer."""


class FlagError(OtelDiagError):
    """A flag cannot be read, written, witnessed or restored."""


class LostUpdate(FlagError):
    """Another client wrote the flags between the read and the write of this process."""


class Occupied(FlagError):
    """Another run holds the system under fault; the message names its user, host and start."""


class RestoreFailed(FlagError):
    """The undo failed, so a fault may still be on. Never suppressed."""


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.5) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known spelling, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
