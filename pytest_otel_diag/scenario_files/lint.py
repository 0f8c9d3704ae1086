"""Finds mistakes in scenario files without a target: format and catalog."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path

from pytest_otel_diag import catalog
from pytest_otel_diag.catalog.hints import wrong_hints
from pytest_otel_diag.errors import OtelDiagError, nearest
from pytest_otel_diag.model.scenario import Expectation, Scenario, scenario_mistakes
from pytest_otel_diag.scenario_files.documents import ScenarioFileError
from pytest_otel_diag.scenario_files.knowledge import scenario_of, unknown_targets
from pytest_otel_diag.scenario_files.loading import Case, load_cases
from pytest_otel_diag.scenario_files.schema import Check, Expect


def lint(path: Path, targets: Collection[str]) -> list[str]:
    """Return every mistake in a file, with its line; *targets* are the kinds of target that exist.

    Scenarios for targets other than ``shop`` and ``live`` are checked for their format only, since their
    flags are not in the catalog.
    """
    try:
        cases = load_cases(path)
    except ScenarioFileError as error:
        return str(error).splitlines()
    found = []
    for case in cases:
        found += [case.at(mistake, "targets") for mistake in unknown_targets(case.entry.targets, targets)]
        found += [case.at(mistake) for mistake in _of_any_target(case)]
        found += _wrong_hints(case)
        if _has_catalogued_flags(case, targets):
            found += _against_catalog(case)
    return list(dict.fromkeys(found))  # a matrix repeats them


def _of_any_target(case: Case) -> list[str]:
    """Return what every target would refuse; the scenario of a target is not known here."""
    entry = case.entry
    return [] if entry.scenario is not None else scenario_mistakes(_scenario(case))


def _scenario(case: Case) -> Scenario:
    """Return the scenario of the case as far as it is known without a target."""
    entry = case.entry
    known = scenario_of(entry.faults, entry.environment.demo or catalog.DEFAULT_DEMO)
    answer = Expectation(healthy=entry.control is not None)
    plain = Scenario(id=case.id, faults=entry.faults, expectation=answer)
    return case.scenario(known or plain)


def _wrong_hints(case: Case) -> Iterator[str]:
    entry, scenario = case.entry, _scenario(case)
    wrong = wrong_hints(
        entry.investigation_path,
        flags=[*(fault.flag for fault in entry.faults), *_flag_names()],
        variants=[
            variant
            for fault in entry.faults
            for variant in (fault.variant, *(step.variant for step in fault.steps))
            if variant is not None
        ],
        culprits=[cause.service for cause in scenario.expectation.root_causes],
        control=scenario.control,
    )
    for number, mistake in wrong:
        yield case.at(mistake, "investigation_path", number, "hint")


@cache
def _flag_names() -> tuple[str, ...]:
    return tuple(name for flag in catalog.load().flags for name in (*flag.names, *flag.aliases))


def _has_catalogued_flags(case: Case, targets: Collection[str]) -> bool:
    # A misspelt target must not turn the other checks off.
    known = set(case.entry.targets) & set(targets)
    return case.entry.scenario is None and (not known or bool({"shop", "live"} & known))


def _against_catalog(case: Case) -> Iterator[str]:
    demo = case.entry.environment.demo or catalog.DEFAULT_DEMO
    try:
        catalog.generation(demo)
    except OtelDiagError as error:
        yield case.at(str(error), "environment", "demo")
        return
    for number, fault in enumerate(case.entry.faults):
        yield from _wrong_fault(case, number, demo)
        for step, change in enumerate(fault.steps):
            yield from _wrong_variant(case, (fault.flag, change.variant), demo, number, "steps", step)
    known = [name for name, service in catalog.generation(demo).services.items() for name in (name, service)]
    for service, place in _services(case):
        if service not in known and catalog.service(service, demo) not in known:
            yield case.at(f"demo {demo} has no service {service!r}{nearest(service, known)}", *place)


def _wrong_fault(case: Case, number: int, demo: str) -> Iterator[str]:
    fault = case.entry.faults[number]
    try:
        catalog.flag(fault.flag, demo)
    except OtelDiagError as error:
        yield case.at(str(error), "faults", number, "flag")
        return
    if fault.variant is not None:
        yield from _wrong_variant(case, (fault.flag, fault.variant), demo, number)


def _wrong_variant(
    case: Case, named: tuple[str, str], demo: str, number: int, *place: str | int
) -> Iterator[str]:
    flag, variant = named
    try:
        catalog.load().variant(flag, variant, demo)
    except OtelDiagError as error:
        yield case.at(str(error), "faults", number, *place, "variant")


def _services(case: Case) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """Yield every service that the case names, with its place."""
    for number, disturbance in enumerate(case.entry.disturbances):
        for key in ("service", "accuses"):
            if (service := getattr(disturbance, key)) is not None:
                yield service, ("disturbances", number, key)
    for number, step in enumerate(case.entry.investigation_path):
        for service in step.services:
            yield service, ("investigation_path", number, "services")
    for place, services in (*_expected(case.entry.expect), *_asserted(case.entry.assertions)):
        for service in services:
            yield service, place


def _expected(expect: Expect) -> Iterator[tuple[tuple[str | int, ...], Sequence[str]]]:
    for number, anomaly in enumerate(expect.anomalies or ()):
        yield ("expect", "anomalies", number, "service"), [anomaly.service]
    for number, cause in enumerate(expect.root_causes or ()):
        yield ("expect", "root_causes", number, "service"), [cause.service]
    for number, path in enumerate(expect.paths or ()):
        yield ("expect", "paths", number), path
    for number, herring in enumerate(expect.red_herrings or ()):
        yield ("expect", "red_herrings", number), [herring]


def _asserted(checks: Sequence[Check]) -> Iterator[tuple[tuple[str | int, ...], Sequence[str]]]:
    for number, check in enumerate(checks):
        named = [part.service for part in (check.anomaly, check.root_cause, check.not_blamed) if part]
        yield ("assert", number, check.name), (*named, *(check.path or ()))
