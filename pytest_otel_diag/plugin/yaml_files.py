"""Collects scenarios in ``*.scenario.yaml`` as tests that select, repeat and report like Python ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_otel_diag.errors import OtelDiagError, ScenarioRejected, nearest
from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.scenario import Expectation, Scenario
from pytest_otel_diag.plugin import scenarios
from pytest_otel_diag.plugin.fixtures import Diagnose
from pytest_otel_diag.plugin.markers import label_name, register_label
from pytest_otel_diag.plugin.runtime import runtime_of, settings_of
from pytest_otel_diag.ports import Target
from pytest_otel_diag.runs.runner import PreparedScenario
from pytest_otel_diag.scenario_files.knowledge import labels, scenario_of
from pytest_otel_diag.scenario_files.loading import Case, load_cases, overridden
from pytest_otel_diag.scenario_files.schema import Check
from pytest_otel_diag.scoring.assertions import DiagnosedSession, DiagnosisMissed, SessionNotScored


class ScenarioFile(pytest.File):
    """One file; its items are its scenarios times their matrix times the repeats of the run."""

    def collect(self) -> Iterator[ScenarioItem]:
        """Yield the items; raises CollectError with every mistake of the file."""
        try:
            cases = load_cases(self.path)
        except OtelDiagError as error:
            raise self.CollectError(f"otel-diag: {_relative(str(error), self.path)}") from None
        repeats = settings_of(self.config).repeat
        for case in cases:
            for repeat in range(repeats):
                name = f"{case.id}[repeat{repeat}]" if repeats > 1 else case.id
                yield ScenarioItem.from_parent(self, name=name, case=case, repeat=repeat)


class ScenarioItem(pytest.Item):
    """One session and its assertions. The session runs at set-up, as the ``diagnosis`` fixture does."""

    def __init__(self, *, case: Case, repeat: int, **given: Any) -> None:
        super().__init__(**given)
        self.case = case
        self._repeat = repeat
        self._diagnose: Diagnose | None = None
        self._diagnosis: DiagnosedSession | None = None
        self._prepared: PreparedScenario | None = None
        if case.entry.targets:
            self.add_marker(pytest.mark.otel_target(case.entry.targets))
        mark(self, (*case.entry.marks, *labels_of(case)))

    def prepared(self) -> PreparedScenario:
        """Return the scenario ready to run; raises ScenarioRejected with every mistake and its place."""
        if self._prepared is None:
            runtime = runtime_of(self.config)
            base, mistakes = _base(self.case, runtime.target)
            prepared = None
            if base is not None:
                try:
                    prepared = runtime.prepare(
                        self.case.scenario(base), repeat=self._repeat, test_id=self.nodeid
                    )
                except ScenarioRejected as rejected:
                    mistakes += rejected.mistakes
            if prepared is None or mistakes:
                raise ScenarioRejected(map(self._located, mistakes))
            self._prepared = prepared
        return self._prepared

    def setup(self) -> None:
        """Run the session; one that is not scored is an error of the set-up."""
        try:
            prepared = self.prepared()
        except ScenarioRejected as rejected:
            pytest.fail("\n".join(rejected.mistakes), pytrace=False)
        self._diagnose = Diagnose(self, self._repeat)
        try:
            self._diagnosis = self._diagnose.start(prepared).result()
        except SessionNotScored as unscored:
            pytest.fail(str(unscored), pytrace=False)

    def runtest(self) -> None:
        """Check every assertion; raises DiagnosisMissed that shows all that do not hold."""
        assert self._diagnosis is not None
        missed = list(_missed(self._diagnosis, self.case, self._place))
        if missed:
            shown = [f"{place}\n{miss}" for place, miss in missed]
            raise DiagnosisMissed("\n\n".join(shown), "; ".join(miss.line for _, miss in missed))

    def teardown(self) -> None:
        """Cancel a session that still runs."""
        if self._diagnose is not None:
            self._diagnose.close()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the message of our errors; only a bug shows a traceback."""
        if isinstance(excinfo.value, OtelDiagError | DiagnosisMissed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[os.PathLike[str], int | None, str]:
        """Return the place of the scenario in its file."""
        return self.path, self.case.line - 1, self.name

    def _located(self, mistake: str) -> str:
        return mistake if mistake.startswith(str(self.path)) else f"{self._place(self.case.line)}: {mistake}"

    def _place(self, line: int) -> str:
        return f"{self.location[0]}:{line}"


def mark(item: pytest.Item, names: Iterable[str]) -> None:
    """Mark the item with *names*, registered so that strict markers accept them."""
    for name in dict.fromkeys(map(label_name, names)):
        if name:
            register_label(item.config, name, "label of a scenario")
            item.add_marker(name)


def labels_of(case: Case) -> tuple[str, ...]:
    """Return the labels a case can be selected by: its kind, its flags, and the values of its tags."""
    flags = [fault.flag for fault in case.entry.faults]
    kind = ("control",) if case.entry.control else ()
    return (*kind, *labels(flags, case.entry.tags))


def _base(case: Case, target: Target) -> tuple[Scenario | None, list[str]]:
    """Return the scenario that the case builds on: the target's own, else the catalog's; and mistakes."""
    entry = case.entry
    if entry.control or entry.external:
        answer = Expectation(healthy=entry.control is not None)
        return Scenario(id=case.id, expectation=answer), []
    if entry.scenario is not None:
        known = scenarios.scenarios_by_id(target)
        if entry.scenario in known:
            return known[entry.scenario], []
        hint = nearest(entry.scenario, known)
        unknown = f"target {target.name} has no scenario {entry.scenario!r}{hint}; it has {len(known)}"
        return None, [case.at(unknown, "scenario")]
    base = scenario_of(entry.faults, entry.environment.demo) if entry.environment.demo else None
    base = base or scenarios.for_faults(entry.faults, case.id, target)
    answer = overridden(base.expectation, entry.expect)
    if not (answer.root_causes or answer.healthy) and any(check.expected for check in case.checks):
        flags = ", ".join(fault.flag for fault in entry.faults)
        return base, [
            case.at(f"the catalog has no expectation for {flags}; add one under expect or assert", "faults")
        ]
    return base, []


def _missed(diagnosis: DiagnosedSession, case: Case, place: Any) -> Iterator[tuple[str, DiagnosisMissed]]:
    for number, check in enumerate(case.checks):
        try:
            assert_that(diagnosis, check)
        except DiagnosisMissed as missed:
            yield f"{place(case.check_line(number))}: {check}", missed


def assert_that(diagnosis: DiagnosedSession, check: Check) -> None:
    """Make the assertion; raises DiagnosisMissed."""
    value = getattr(check, check.name)
    assertion = getattr(diagnosis, f"assert_{check.name}")
    if value is True:
        assertion()
    elif isinstance(value, Model):
        assertion(**{name: getattr(value, name) for name in value.model_fields_set})
    elif isinstance(value, str):
        assertion(value)
    else:
        assertion(*value)


def _relative(text: str, path: Path) -> str:
    """Return a message with the file's name for its path, which the node's id shows already."""
    return text.replace(f"{path}:", f"{path.name}:")
