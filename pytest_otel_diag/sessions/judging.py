"""Judges a diagnosis: collects the facts that the judge needs beside it and limits its time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from pytest_otel_diag.errors import nearest
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.scenario import Expectation
from pytest_otel_diag.model.session import Blame, Status
from pytest_otel_diag.model.telemetry import CallEdge
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.ports import JudgeFacts
from pytest_otel_diag.scoring.grounding.grounded import ground
from pytest_otel_diag.scoring.grounding.path import path_coverage
from pytest_otel_diag.scoring.names import ServiceNames
from pytest_otel_diag.sessions.context import SessionContext
from pytest_otel_diag.sessions.ending import SessionStopped, describe
from pytest_otel_diag.sessions.exhibits.facts import edges_in, known_windows, service_windows, services_in
from pytest_otel_diag.sessions.investigation.guidance import Guide, Hints, hints_of, messages_of
from pytest_otel_diag.sessions.investigation.threads import both
from pytest_otel_diag.sessions.settings import Judge

_GROUNDING_S = 60.0
"""Limit of checking the evidence, which takes milliseconds on an embedded store."""


async def judge_diagnosis(
    context: SessionContext,
    judge: Judge,
    diagnosis: Diagnosis,
    *,
    edges: Sequence[CallEdge],
    elapsed_s: float,
) -> Verdict:
    """Return the verdict of *judge*; whatever it raises is an infrastructure error (SessionStopped).

    *edges* are the calls of the baseline where they are known, *elapsed_s* the wall time the analyzer took.
    """
    verdict, facts = await _judged(context, judge, diagnosis, edges=edges, elapsed_s=elapsed_s)
    for note in _never_seen(context.scenario.expectation, facts.known_services):
        context.log.note(note)
    return await _grounded(context, diagnosis, verdict, facts)


async def _judged(
    context: SessionContext,
    judge: Judge,
    diagnosis: Diagnosis,
    *,
    edges: Sequence[CallEdge],
    elapsed_s: float,
) -> tuple[Verdict, JudgeFacts]:
    try:
        async with asyncio.timeout(context.settings.judge_timeout_s):
            facts = await _facts(context, edges, elapsed_s)
            verdict = await judge(diagnosis, context.scenario, facts)
            if not isinstance(verdict, Verdict):
                raise TypeError(f"returned {type(verdict).__name__}, not a Verdict")
    except Exception as error:
        raise SessionStopped(Status.ERROR, f"judge: {describe(error)}", Blame.INFRASTRUCTURE) from error
    return verdict, facts


def guide_of(context: SessionContext, judge: Judge, edges: Sequence[CallEdge]) -> Guide:
    """Return the guidance of the session: a person, or as many of the scenario's hints as the settings allow.

    Attempts are judged as diagnoses are, except for their query, which does not run.
    """
    settings, monotonic = context.settings, context.settings.wall.monotonic

    async def right(attempt: Diagnosis) -> bool | None:
        plain = attempt.model_copy(update={"query": None})
        try:
            verdict, _ = await _judged(context, judge, plain, edges=edges, elapsed_s=0.0)
        except SessionStopped as stopped:
            context.log.note(f"an attempt was not judged, so it got no hint: {stopped.reason}")
            return None
        return verdict.solved

    if settings.person is not None:
        return Guide(messages_of(settings.person), monotonic=monotonic)
    return Guide(Hints(hints_of(context.scenario, settings.hints), right), monotonic=monotonic)


async def _grounded(
    context: SessionContext, diagnosis: Diagnosis, verdict: Verdict, facts: JudgeFacts
) -> Verdict:
    """Return the verdict with what telemetry says of the evidence; where that fails, the verdict stands."""
    scenario = context.scenario
    expected = [cause.service for cause in scenario.expectation.root_causes]
    path = path_coverage(scenario.investigation_path, facts.queries, facts.sightings)
    grounding = None
    try:
        async with asyncio.timeout(min(_GROUNDING_S, context.settings.judge_timeout_s)):
            grounding = await ground(diagnosis, verdict, facts, expected)
    except Exception as error:
        context.log.note(f"whether the evidence is real is unknown: {describe(error)}")
    return verdict.model_copy(update={"grounding": grounding, "path": path})


def _never_seen(expectation: Expectation, known: Sequence[str]) -> Iterator[str]:
    """Yield a warning for each expected root cause that telemetry does not know: it may be misspelt."""
    names = ServiceNames(known)
    for service in dict.fromkeys(cause.service for cause in expectation.root_causes):
        if known and names.resolve(service) is None:
            hint = nearest(service, known)
            yield f"the expected root cause {service!r} is in no telemetry of the session{hint}"


async def _facts(context: SessionContext, known: Sequence[CallEdge], elapsed_s: float) -> JudgeFacts:
    telemetry, log = context.system.telemetry, context.log
    unknown = known_windows(log.windows)[1 if known else 0 :]
    edges, services = await both(
        lambda: edges_in(telemetry, unknown, known),
        lambda: services_in(telemetry, service_windows(log.windows)),
    )
    callers_and_callees = {name for edge in edges for name in (edge.caller, edge.callee)}
    return JudgeFacts(
        telemetry=telemetry,
        queries=log.queries,
        sightings=log.sightings,
        impact=log.impact,
        time_to_diagnosis_s=elapsed_s,
        known_services=tuple(sorted({*services, *callers_and_callees})),
        edges=edges,
        windows=log.windows,
    )
