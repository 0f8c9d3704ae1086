"""Builders of sessions, verdicts and diagnoses."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from pytest_otel_diag.model.diagnosis import (
    Anomaly,
    CriticalPath,
    Diagnosis,
    PathEdge,
    PathMetrics,
    RootCause,
)
from pytest_otel_diag.model.scenario import Expectation, ExpectedRootCause, Fault, Scenario
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.model.verdict import Verdict

SECOND = 1_000_000_000


def path(*services: str) -> CriticalPath:
    return CriticalPath(
        id="-".join(services),
        name=" to ".join(services),
        services=services,
        startService=services[0],
        endService=services[-1],
        edges=tuple(PathEdge(source=a, target=b) for a, b in pairwise(services)),
        metrics=PathMetrics(requestCount=10, avgLatency=5.0, errorRate=0.1, p99Latency=50.0),
        priority="high",
        severity=0.7,
    )


def cause(service: str, **fields: Any) -> RootCause:
    return RootCause(service=service, **fields)


def anomaly(service: str, signal: str, **fields: Any) -> Anomaly:
    return Anomaly(service=service, signal=signal, **fields)


def faulty(name: str = "payment-down", *services: str, **fields: Any) -> Scenario:
    culprits = services or ("payment",)
    expectation = {"root_causes": tuple(ExpectedRootCause(service=service) for service in culprits)}
    tags = fields.pop("tags", ())
    expectation |= fields
    return Scenario(
        id=name, faults=(Fault(flag="paymentFailure"),), expectation=Expectation(**expectation), tags=tags
    )


def quiet(name: str = "nothing-on", **fields: Any) -> Scenario:
    return Scenario(id=name, expectation=Expectation(healthy=True), **fields)


def session(scenario: Scenario, verdict: Verdict | None = None, **fields: Any) -> SessionResult:
    defaults: dict[str, Any] = {
        "session_id": f"s-{scenario.id}-{fields.get('repeat', 0)}",
        "run_id": "run",
        "target": "shop",
        "analyzer": "builtin",
        "status": "scored" if verdict is not None else "error",
        "started_at_ns": 1_700_000_000 * SECOND,
        "wall_s": 2.0,
    }
    return SessionResult(scenario=scenario, verdict=verdict, **(defaults | fields))


def solved(name: str, **fields: Any) -> SessionResult:
    """A fault that was detected and named first."""
    return ranked(name, 1, **fields)


def ranked(name: str, rank: int | None, *, detected: bool = True, **fields: Any) -> SessionResult:
    """A fault whose root cause was named at *rank*."""
    verdict = Verdict(
        fault_present=True,
        detected=detected,
        service_rank=rank,
        causes_expected=1,
        causes_named=int(rank is not None),
        candidates=4,
        known_services=("cart", "checkout", "frontend", "payment"),
        confidence=fields.pop("confidence", 0.8),
        time_to_diagnosis_s=1.5,
        **fields.pop("verdict", {}),
    )
    others = ["cart", "checkout", "frontend"]
    order = others if rank is None else [*others[: rank - 1], "payment", *others[rank - 1 :]]
    diagnosis = Diagnosis(detected=detected, root_causes=tuple(map(cause, order)), confidence=0.8)
    scenario = faulty(name, tags=fields.pop("tags", ()))
    return session(scenario, verdict, **({"diagnosis": diagnosis} | fields))


def control(name: str, *, alarm: bool = False, **fields: Any) -> SessionResult:
    """A quiet window, with a false alarm or without."""
    verdict = Verdict(fault_present=False, detected=alarm, candidates=4)
    diagnosis = Diagnosis(detected=alarm, root_causes=(cause("cart"),) if alarm else ())
    scenario = quiet(name, tags=fields.pop("tags", ()))
    return session(scenario, verdict, **({"diagnosis": diagnosis} | fields))
