"""What a judge gets beside the diagnosis."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_otel_diag.model.session import Impact, QueryRecord, SessionWindows
from pytest_otel_diag.model.telemetry import CallEdge
from pytest_otel_diag.ports.telemetry import Sightings, Telemetry


@dataclass(frozen=True)
class JudgeFacts:
    """What a judge gets beside the diagnosis.

    ``telemetry`` sees what the analyzer saw, without its budget. ``time_to_diagnosis_s`` is the wall time the
    analyzer took. ``known_services`` are the services that telemetry names in the session's windows,
    ``edges`` the calls between them in baseline and incident together; both are empty where telemetry cannot
    answer. ``sightings`` are what the queries read, None where that is unknown.
    """

    telemetry: Telemetry
    queries: tuple[QueryRecord, ...] = ()
    sightings: Sightings | None = None
    impact: Impact | None = None
    time_to_diagnosis_s: float | None = None
    known_services: tuple[str, ...] = ()
    edges: tuple[CallEdge, ...] = ()
    windows: SessionWindows = field(default_factory=SessionWindows)
