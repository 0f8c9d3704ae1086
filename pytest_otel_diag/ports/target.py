"""The ports to a system under fault."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from pytest_otel_diag.model.scenario import Disturbance, Fault, Scenario
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports.clock import Clock
from pytest_otel_diag.ports.flags import FlagController
from pytest_otel_diag.ports.telemetry import TableExporter, Telemetry


class Traffic(Protocol):
    """Makes calls to the services of a target."""

    async def drive(self, services: Sequence[str], calls: int) -> int:
        """Cause about *calls* calls of the services; return how many will be tried, 0 where none can be."""
        ...

    def made(self) -> int:
        """Return how many calls were really made so far, by what answered them.

        A call that the system failed was made; one that was redirected or refused was not.
        """
        ...


@dataclass(frozen=True)
class TargetSession:
    """A system under fault, opened for one session and isolated from other sessions.

    ``reference`` are windows known to be quiet, in order of time. ``provenance`` goes into the result.
    ``disturb`` makes a harmless change of the scenario now; targets without it refuse scenarios with
    disturbances in :meth:`Target.validate`. ``normal`` maps flags to the variant that a healthy system serves
    although it is not ``off`` (a load generator that is switched on). ``residue`` is called once the faults
    are proven gone: it restarts what outlives a flag, where it can, and returns sentences about the effects
    that stay. ``restart`` restarts a service by its name in telemetry and returns why it could not ('' once
    it did); targets whose services are simulated or recorded have none. ``recovery_command`` is the shell
    command that turns off a fault which a failed undo left on. ``undo_timeout_s`` raises the engine's time
    limit of an undo. ``redacted`` says that ``telemetry`` hides evaluations of flags, as
    ``--otel-diag-leaks=redact`` asks.
    ``exporter`` returns an exporter of the visible telemetry for recordings; sessions of targets without it
    cannot be recorded.
    """

    clock: Clock
    flags: FlagController
    telemetry: Telemetry
    traffic: Traffic
    reference: tuple[Window, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    disturb: Callable[[Disturbance], Awaitable[None]] | None = None
    normal: Mapping[str, str] = field(default_factory=dict)
    residue: Callable[[Sequence[Fault]], Awaitable[tuple[str, ...]]] | None = None
    restart: Callable[[str], Awaitable[str]] | None = None
    recovery_command: str = ""
    undo_timeout_s: float = 0.0
    exporter: Callable[[], Awaitable[TableExporter]] | None = None
    redacted: bool = False


waiting: ContextVar[Callable[[str], None]] = ContextVar("otel_diag_waiting", default=lambda _: None)
"""Gets the reason why a target is not open yet; see :func:`report_waiting`."""


def report_waiting(text: str) -> None:
    """Report from within :meth:`Target.open` what it waits for; an empty text ends the wait.

    The wait counts against no time limit of the session, so the target has to limit it.
    """
    waiting.get()(text)


class Target(Protocol):
    """A system under fault: it opens sessions, and knows which scenarios it can run.

    ``exclusive`` targets hold one session at a time. ``seeded`` targets are simulated from
    ``scenario.environment.seed``: another seed is another incident.
    """

    name: str
    exclusive: bool
    seeded: bool

    @property
    def identity(self) -> object:
        """What makes two targets one system: the target itself, or the one that it delegates to.

        Sessions over targets of one identity share their queue and their state. Must be hashable and weakly
        referenceable.
        """
        ...

    def describe(self) -> Mapping[str, str]:
        """Return name, version and source of the system, for the manifest of the run."""
        ...

    def scenarios(self) -> Sequence[Scenario]:
        """Return the scenarios that come with the target, with their expectations."""
        ...

    def scenario_for(self, faults: Sequence[Fault]) -> Scenario | None:
        """Return a scenario with these faults: names resolved, timing, expectation; without faults a control.

        None where the target does not know what to expect of the faults; the caller then states it. Never
        raises: :meth:`validate` reports what is wrong with the faults.
        """
        ...

    def validate(self, scenario: Scenario) -> Sequence[str]:
        """Return every mistake in the scenario for this target, one sentence each."""
        ...

    def open(self, scenario: Scenario, session_id: str) -> AbstractAsyncContextManager[TargetSession]:
        """Open the target for one session; leaving the context releases what the session holds."""
        ...

    def close(self) -> None:
        """Release what the target holds beyond its sessions, such as a store; may do nothing."""
        ...
