"""From markers and calls to scenarios, with every mistake named before anything is touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import pytest
from pydantic import ValidationError

from pytest_otel_diag.errors import nearest
from pytest_otel_diag.model.diagnosis import Mechanism
from pytest_otel_diag.model.scenario import Expectation, ExpectedRootCause, Fault, Scenario, Timing
from pytest_otel_diag.plugin.markers import (
    Marker,
    OtelControl,
    OtelExpect,
    OtelFlag,
    OtelRecorded,
    OtelScenario,
    OtelTiming,
    parse,
)
from pytest_otel_diag.ports import Target

M = TypeVar("M")


def of_item(item: pytest.Item, target: Target) -> tuple[Scenario | None, list[str]]:
    """Return the scenario that an item's markers describe (None: no marker does), and all mistakes."""
    found, mistakes = parse(item.iter_markers())
    if mistakes:
        return None, mistakes
    scenario, mistakes = from_markers(found, item.nodeid, target)
    if scenario is not None and not mistakes:
        mistakes = list(target.validate(scenario))
    return scenario, mistakes


def from_markers(found: Sequence[Marker], test_id: str, target: Target) -> tuple[Scenario | None, list[str]]:
    """Return the scenario that *found* describe for the test *test_id*, and the mistakes in them."""
    flags, chosen = _of(OtelFlag, found), _of(OtelScenario, found)
    controls = _of(OtelControl, found)
    kinds = [name for name, marks in (("flag", flags), ("scenario", chosen), ("control", controls)) if marks]
    if len(kinds) > 1 or len(chosen) > 1:
        names = " and ".join(f"otel_{kind}" for kind in kinds)
        return None, [f"{names} contradict each other; a test runs one scenario, keep one of them"]
    if not kinds:
        lost = [mark.name for mark in found if not isinstance(mark, OtelRecorded)]
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
        base = for_faults([Fault(flag=mark.key, variant=mark.variant) for mark in flags], test_id, target)
    return _changed(base, found)


def for_faults(faults: Sequence[Fault], scenario_id: str, target: Target) -> Scenario:
    """Return a scenario for the faults, with the target's own knowledge of them where it has any."""
    known = target.scenario_for(faults) if faults else None
    if known is not None:
        return known
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
    return scenario.model_copy(update={"expectation": expectation}), mistakes


def scenarios_by_id(target: Target) -> Mapping[str, Scenario]:
    """Return the target's own scenarios by id."""
    return {scenario.id: scenario for scenario in target.scenarios()}


def _changed(scenario: Scenario, found: Sequence[Marker]) -> tuple[Scenario, list[str]]:
    mistakes: list[str] = []
    for expect in reversed(_of(OtelExpect, found)):  # pytest lists the closest marker first; it wins
        scenario, wrong = with_expectation(scenario, expect)
        mistakes += wrong
    given: dict[str, float] = {}
    for timing in reversed(_of(OtelTiming, found)):
        given |= timing.given()
    try:
        timing_now = Timing(**{**scenario.timing.model_dump(), **given})
    except ValidationError as error:
        mistakes += [f"otel_timing {e['loc'][0]}={e['input']!r}: {e['msg']}" for e in error.errors()]
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
