"""Subjects of the self-test: scenarios of the catalog and of files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_otel_diag import catalog
from pytest_otel_diag.errors import OtelDiagError, ScenarioError, nearest
from pytest_otel_diag.model.scenario import Expectation, Fault, Scenario
from pytest_otel_diag.scenario_files.knowledge import scenario_of
from pytest_otel_diag.scenario_files.loading import Case, find_files, load_cases


@dataclass(frozen=True)
class Subject:
    """A scenario, and the residual effect that the catalog declares after its faults (empty: none)."""

    scenario: Scenario
    residue: str = ""


def of_catalog(demo: str) -> list[Subject]:
    """Return the scenarios and controls of a release; raises ConfigurationError for an unknown release."""
    known = (*catalog.scenarios(demo), *catalog.controls(demo))
    return [Subject(scenario, residue_of(scenario.faults)) for scenario in known]


def of_files(paths: Iterable[Path], demo: str) -> list[Subject]:
    """Return the cases of scenario files; raises ScenarioFileError, and ScenarioError for unknown faults.

    Cases that refer to a scenario of their target are left out, since the target defines their oracle.
    """
    cases = [case for path in find_files(paths) for case in load_cases(path)]
    scenarios = [_of_case(case, demo) for case in cases if case.entry.scenario is None]
    return [Subject(scenario, residue_of(scenario.faults)) for scenario in scenarios]


def chosen(subjects: Iterable[Subject], wanted: Iterable[str]) -> list[Subject]:
    """Return subjects with one of *wanted* in their id, all for none; raises ScenarioError if none match."""
    every, texts = list(subjects), tuple(wanted)
    kept = [one for one in every if not texts or any(text in one.scenario.id for text in texts)]
    if not kept:
        known = [one.scenario.id for one in every]
        hint = nearest(texts[0], known) if len(texts) == 1 else ""
        raise ScenarioError(
            f"no scenario has {' or '.join(map(repr, texts))} in its id{hint}; choose from {', '.join(known)}"
        )
    return kept


def residue_of(faults: Iterable[Fault]) -> str:
    """Return the residual effect that the catalog declares after the faults are off."""
    return "; ".join(_residues(faults))


def _residues(faults: Iterable[Fault]) -> Iterator[str]:
    for fault in faults:
        try:
            cleanup = catalog.flag(fault.flag).cleanup
        except OtelDiagError:
            continue
        if cleanup is not None:
            yield f"{fault.flag}: {cleanup.residue}"


def _of_case(case: Case, demo: str) -> Scenario:
    if case.entry.control:
        return case.scenario(Scenario(id=case.id, expectation=Expectation(healthy=True)))
    base = scenario_of(case.entry.faults, case.entry.environment.demo or demo)
    if base is None:
        base = Scenario(id=case.id, faults=case.entry.faults, expectation=Expectation())
    scenario = case.scenario(base)
    if not (scenario.expectation.root_causes or scenario.expectation.healthy):
        raise ScenarioError(case.at("the catalog does not know these faults and the file expects nothing"))
    return scenario
