"""The port to the diagnosis under test, and what an analyzer gets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.session import Budget
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports.clock import Clock
from pytest_otel_diag.ports.telemetry import Telemetry


class Guidance(Protocol):
    """Where an analyzer asks for help with an answer that may be wrong."""

    async def next(self, diagnosis: Diagnosis | None) -> str | None:
        """Return a hint if the attempt is wrong or missing, None if it is right or no hint is left.

        Each hint counts as a human prompt of the session. Raises AnalyzerError for what is no diagnosis, and
        BudgetExceeded once the investigation is over.
        """
        ...


Person = Callable[[Diagnosis | None], Awaitable[str | None]]
"""Somebody who reads an attempt of an analyzer and replies with a message, or None to accept it."""


class NoGuidance:
    """Guidance without hints."""

    async def next(self, diagnosis: Diagnosis | None) -> str | None:
        """Return None."""
        del diagnosis
        return None


class Transcript(Protocol):
    """The record of what an analyzer thinks, asks and reads, step by step, for people to follow."""

    async def add(self, kind: str, content: Mapping[str, Any]) -> None:
        """Append one entry; free of charge.

        *kind* is ``message``, ``tool_call``, ``tool_result``, ``usage``, ``hypothesis``, ``output`` or
        ``note``. *content* is JSON; what JSON cannot hold is written as its ``str()``, and long texts are
        cut. The session masks credentials, and drops what exceeds its limits. Raises an OtelDiagError for
        another kind, BudgetExceeded after the investigation.
        """
        ...


class NoTranscript:
    """Drops every entry."""

    async def add(self, kind: str, content: Mapping[str, Any]) -> None:
        """Drop the entry."""


asked_by: ContextVar[str] = ContextVar("otel_diag_asked_by", default="")
"""The tool that asks telemetry, which the session writes beside the query; '' for the analyzer itself."""


@dataclass(frozen=True)
class Investigation:
    """What an analyzer gets. It holds no expectation, no scenario id and no fault name.

    ``incident`` is the window to explain, ``baseline`` the time before it in the same session (None without
    telemetry), ``reference`` further windows known to be quiet, in order of time: anywhere, possibly none.
    ``seed`` makes randomised analyzers repeatable. ``guidance`` gives hints where the run allows them.
    ``transcript`` takes what the analyzer does, for people.
    """

    session_id: str
    incident: Window
    baseline: Window | None
    reference: tuple[Window, ...]
    telemetry: Telemetry
    clock: Clock
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    guidance: Guidance = field(default_factory=NoGuidance)
    transcript: Transcript = field(default_factory=NoTranscript)


@runtime_checkable
class Analyzer(Protocol):
    """The diagnosis under test."""

    async def diagnose(self, investigation: Investigation) -> Diagnosis:
        """Return what is wrong, or that nothing is; raise anything to fail the session."""
        ...


@runtime_checkable
class PreparedAnalyzer(Analyzer, Protocol):
    """An analyzer that depends on something which can be checked before a fault is turned on."""

    async def prepare(self) -> tuple[str, ...]:
        """Make sure that an investigation can begin; return remarks for the record of the session.

        Called before each session, in several processes of a run, on an event loop that it must not block.
        Raises ConfigurationError for what the user must change, ModelUnavailable for a provider that does not
        answer, and SpendingLimitReached where the run may not pay for the session.
        """
        ...


@runtime_checkable
class DescribedAnalyzer(Analyzer, Protocol):
    """An analyzer that names what its answers depend on, and holds something beyond an investigation."""

    def describe(self) -> Mapping[str, str]:
        """Return model, hash of the prompt, parameters, versions: a part of its identity in the manifest.

        Must be cheap, and must not contain credentials.
        """
        ...

    async def close(self) -> None:
        """Release what it holds once the run is over; may do nothing."""
        ...
