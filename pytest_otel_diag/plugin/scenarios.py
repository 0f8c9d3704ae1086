"""Builds scenarios from markers and calls, and reports every mistake in them before any flag is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import pytest
from pydantic import ValidationError

from pytest_otel_diag.errors import ScenarioError, ScenarioRejected, nearest
from pytest_otel_diag.model.diagnosis import Mechanism
from pytest_otel_diag.model.scenario import (
    Disturbance,
    Environment,
    Expectation,
    ExpectedRootCause,
    Fault,
    FaultStep,
    Scenario,
    Timing,
)
from pytest_otel_diag.plugin.markers import (
    Marker,
    OtelControl,
    OtelDisturb,
    OtelEnvironment,
    OtelExpect,
    OtelFlag,
    OtelRecorded,
    OtelScenario,
    OtelTarget,
    OtelTiming,
    OtelUngated,
    markers_of,
)
from pytest_otel_diag.plugin.runtime import runtime_of
from pytest_otel_diag.ports import Target
from pytest_otel_diag.runs.runner import PreparedScenario

NO_SCENARIO = (
    "the test names no scenario; mark it with otel_flag(key, variant), "
    "otel_control(), otel_scenario(id) or otel_recorded(kind)"
)

SCENARIO_ARGUMENT = "_otel_diag_scenario"
REPEAT_ARGUMENT = "_otel_diag_repeat"
"""Fixtures by which collection parametrizes a test."""

PREPARED: pytest.StashKey[PreparedScenario | None] = pytest.StashKey()
"""On an item: the scenario of its markers, ready to run; None where no marker names one."""

M = TypeVar("M")
T = TypeVar("T")


def prepared_of(item: pytest.Item) -> PreparedScenario | None:
    """Return the scenario of the item's markers, validated once and kept on the item; None without one.

    Raises ScenarioRejected with every mistake.
    """
    if PREPARED not in item.stash:
        runtime = runtime_of(item.config)
        found, mistakes = markers_of(item)
        scenario = None
        if not mistakes:
            scenario, mistakes = from_markers(found, item.nodeid, runtime.target)
        if mistakes:
            raise ScenarioRejected(mistakes)
        item.stash[PREPARED] = (
            None
            if scenario is None
            else runtime.prepare(scenario, repeat=repeat_of(item), test_id=item.nodeid)
        )
    return item.stash[PREPARED]


def repeat_of(item: pytest.Item) -> int:
    """Return the number of the item's repeat, from 0."""
    callspec = getattr(item, "callspec", None)
    return int(callspec.params.get(REPEAT_ARGUMENT, 0)) if callspec is not None else 0


def from_markers(found: Sequence[Marker], test_id: str, target: Target) -> tuple[Scenario | None, list[str]]:
    """Return the scenario that *found* describe for the test *test_id*, and the mistakes in them."""
    flags, chosen = _of(OtelFlag, found), _of(OtelScenario, found)
    controls = _of(OtelControl, found)
    kinds = [name for name, marks in (("flag", flags), ("scenario", chosen), ("control", controls)) if marks]
    if len(kinds) > 1 or len(chosen) > 1:
        names = " and ".join(f"otel_{kind}" for kind in kinds)
        return None, [f"{names} contradict each other; a test runs one scenario, keep one of them"]
    if not kinds:
        lost = [mark.name for mark in found if not isinstance(mark, OtelRecorded | OtelTarget)]
        if lost:
            return None, [
                f"{', '.join(lost)} without a scenario; add otel_flag, otel_control or otel_scenario"
            ]
        return None, []
    if chosen:
        known = scenarios_by_id(target)
        if chosen[0].id not in known:
            hint = nearest(chosen[0].id, known)
            return None, [f"target {target.name} has no scenario {chosen[0].id!r}{hint}; it has {len(known)}"]
        base = known[chosen[0].id]
    else:
        faults, mistakes = _made(_fault, flags)
        if mistakes:
            return None, mistakes
        base = for_faults(faults, test_id, target)
    return _changed(base, found)


def for_faults(faults: Sequence[Fault], scenario_id: str, target: Target) -> Scenario:
    """Return a scenario for the faults, with the target's own knowledge of them where it has any."""
    known = target.scenario_for(faults)
    if known is not None:
        return known if faults else known.model_copy(update={"id": scenario_id})
    expectation = Expectation(healthy=not faults, flags=tuple(sorted(fault.flag for fault in faults)))
    return Scenario(id=scenario_id, faults=tuple(faults), expectation=expectation)


def with_expectation(scenario: Scenario, expect: OtelExpect) -> tuple[Scenario, list[str]]:
    """Return the scenario with the expectation that a test spells out."""
    mechanisms, mistakes = _mechanisms(expect.mechanism)
    causes = tuple(
        ExpectedRootCause(service=service, operation=expect.operation, mechanisms=mechanisms)
        for service in _tuple(expect.root_cause)
    )
    update: dict[str, Any] = {"healthy": False if causes else scenario.expectation.healthy}
    if causes:
        update["root_causes"] = causes
    if expect.path:
        update["paths"] = (tuple(expect.path),)
    if expect.not_blamed:
        update["red_herrings"] = tuple(expect.not_blamed)
    expectation = scenario.expectation.model_copy(update=update)
    return scenario.expecting(expectation), mistakes


def timed(scenario: Scenario, given: Mapping[str, float]) -> Scenario:
    """Return the scenario with the given seconds of its timing; raises ScenarioError for what is wrong."""
    known = OtelTiming.__slots__
    try:
        marker = OtelTiming(**given)
        timing = Timing(**{**scenario.timing.model_dump(), **marker.given()})
    except TypeError:
        wrong = [name for name in given if name not in known]
        hint = nearest(wrong[0], known) if wrong else ""
        raise ScenarioError(f"timing={dict(given)!r}: choose from {', '.join(known)}{hint}") from None
    except ValidationError as error:
        raise ScenarioError("; ".join(f"timing {_what(detail)}" for detail in error.errors())) from None
    except ValueError as error:
        raise ScenarioError(f"timing: {error}") from None
    return scenario.model_copy(update={"timing": timing})


def scenarios_by_id(target: Target) -> Mapping[str, Scenario]:
    """Return the target's own scenarios by id."""
    return {scenario.id: scenario for scenario in target.scenarios()}


def _fault(mark: OtelFlag) -> Fault:
    return Fault(
        flag=mark.key,
        variant=mark.variant,
        at_s=mark.at_s,
        until_s=mark.until_s,
        every_s=mark.every_s,
        steps=tuple(FaultStep(at_s=at_s, variant=variant) for at_s, variant in mark.steps.items()),
    )


def _disturbance(mark: OtelDisturb) -> Disturbance:
    return Disturbance.model_validate({name: getattr(mark, name) for name in OtelDisturb.__slots__})


def _made(make: Callable[[M], T], marks: Sequence[M]) -> tuple[list[T], list[str]]:
    """Return what the marks stand for, and what is wrong with those that stand for nothing."""
    made: list[T] = []
    mistakes: list[str] = []
    for mark in marks:
        try:
            made.append(make(mark))
        except ValidationError as error:
            mistakes += [f"{mark}: {_what(detail)}" for detail in error.errors()]
    return made, mistakes


def _what(detail: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"{place}={detail['input']!r}: {message}" if place else message


def _surrounded(scenario: Scenario, found: Sequence[Marker]) -> tuple[Scenario, list[str]]:
    """Return the scenario with disturbances, environment and the reason not to count."""
    disturbances, mistakes = _made(_disturbance, _of(OtelDisturb, found))
    update: dict[str, Any] = {}
    if disturbances:
        update["disturbances"] = tuple(disturbances)
    asked: dict[str, Any] = {}
    for mark in reversed(_of(OtelEnvironment, found)):  # pytest lists the closest marker first; it wins
        asked |= mark.given()
    environments, wrong = _made(
        lambda given: Environment.model_validate({**scenario.environment.model_dump(), **given}), [asked]
    )
    if asked and environments:
        update["environment"] = environments[0]
    if reasons := _of(OtelUngated, found):
        update["ungated"] = reasons[0].reason
    return scenario.model_copy(update=update), mistakes + wrong


def _changed(scenario: Scenario, found: Sequence[Marker]) -> tuple[Scenario, list[str]]:
    scenario, mistakes = _surrounded(scenario, found)
    for expect in reversed(_of(OtelExpect, found)):  # pytest lists the closest marker first; it wins
        scenario, wrong = with_expectation(scenario, expect)
        mistakes += wrong
    given: dict[str, float] = {}
    for timing in reversed(_of(OtelTiming, found)):
        given |= timing.given()
    try:
        timing_now = Timing(**{**scenario.timing.model_dump(), **given})
    except ValidationError as error:
        mistakes += [f"otel_timing {_what(detail)}" for detail in error.errors()]
        return scenario, mistakes
    return scenario.model_copy(update={"timing": timing_now}), mistakes


def _mechanisms(names: str | tuple[str, ...]) -> tuple[tuple[Mechanism, ...], list[str]]:
    known = [mechanism.value for mechanism in Mechanism]
    wrong = [name for name in _tuple(names) if name not in known]
    mistakes = [
        f"mechanism {name!r} is not in the taxonomy{nearest(name, known)}; it has {', '.join(known)}"
        for name in wrong
    ]
    return tuple(Mechanism(name) for name in _tuple(names) if name in known), mistakes


def _tuple(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _of(kind: type[M], found: Sequence[Marker]) -> list[M]:
    return [mark for mark in found if isinstance(mark, kind)]
