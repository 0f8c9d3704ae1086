"""Roles of services in a session (expected, named, red herring), in the spelling of telemetry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.scoring.names import ServiceNames

RANKS_SHOWN = 3


@dataclass(frozen=True)
class Roles:
    """Roles of services; ``named`` maps the first three named services to their rank from 1."""

    expected: tuple[str, ...]
    named: Mapping[str, int]
    herrings: tuple[str, ...]

    def words(self, service: str) -> tuple[str, ...]:
        """Return the description of a service's role, empty without one."""
        said = []
        if service in self.expected:
            said.append("★ expected")
        if service in self.named:
            said.append(f"named #{self.named[service]}")
        if service in self.herrings:
            said.append("red herring")
        return tuple(said)


def roles_of(session: SessionResult) -> Roles:
    """Return the roles of a session in the spelling of its exhibits."""
    names = ServiceNames(services_of(session))
    expectation = session.scenario.expectation
    causes = session.diagnosis.root_causes if session.diagnosis is not None else ()
    alarmed = session.diagnosis is not None and (session.diagnosis.detected or not session.scenario.control)
    ranked = list(dict.fromkeys(names.canonical(c.service) for c in causes))[:RANKS_SHOWN] if alarmed else []
    return Roles(
        expected=_as_in_telemetry(names, (cause.service for cause in expectation.root_causes)),
        named={service: rank for rank, service in enumerate(ranked, start=1)},
        herrings=_as_in_telemetry(names, expectation.red_herrings),
    )


def services_of(session: SessionResult) -> tuple[str, ...]:
    """Return the sorted services of a session's exhibits."""
    exhibits = session.exhibits
    if exhibits is None:
        return ()
    found = {name for call in exhibits.calls for name in (call.caller, call.callee)}
    if exhibits.timeline is not None:
        found |= {series.service for series in exhibits.timeline.services}
    if exhibits.trace is not None:
        found |= {span.service for span in exhibits.trace.spans}
    return tuple(sorted(found))


def _as_in_telemetry(names: ServiceNames, wanted: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names.canonical(name) for name in wanted))
