"""Collection: one item for each recorded incident and repeat, and all markers validated together."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable

import pytest

from pytest_otel_diag.errors import OtelDiagError, ScenarioRejected
from pytest_otel_diag.model.scenario import Fault, Scenario
from pytest_otel_diag.plugin import scenarios
from pytest_otel_diag.plugin.markers import (
    MARKERS,
    OtelEnvironment,
    OtelFlag,
    OtelRecorded,
    OtelTarget,
    label_name,
    markers_of,
    parse,
    register_label,
)
from pytest_otel_diag.plugin.runtime import runtime_of, settings_of
from pytest_otel_diag.plugin.scenarios import NO_SCENARIO, REPEAT_ARGUMENT, SCENARIO_ARGUMENT
from pytest_otel_diag.plugin.settings import is_worker
from pytest_otel_diag.plugin.yaml_files import ScenarioItem
from pytest_otel_diag.runs.entry_points import known_targets
from pytest_otel_diag.scenario_files.knowledge import other_release_only, unknown_targets

ASYNC_MARKS = frozenset({"anyio", "asyncio", "trio", "tornado", "twisted"})
"""Marks by which plugins know the async tests that they run."""

_DIAGNOSING = frozenset({"diagnosis", "diagnose"})
"""Fixtures that ask the analyzer."""

_RUN_NO_UNMARKED = frozenset({"python", "otel_diag", "asyncio", "anyio"})
"""Plugins with a hook for calls of tests that run no async test without a mark."""


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Multiply a test by the recorded incidents it asks for, and by the repeats."""
    recorded = list(metafunc.definition.iter_markers(OtelRecorded.name))
    if recorded and SCENARIO_ARGUMENT in metafunc.fixturenames and not foreign(metafunc.definition):
        found, mistakes = parse(recorded)
        if not mistakes:
            kinds = {mark.kind for mark in found if isinstance(mark, OtelRecorded)}
            metafunc.parametrize(SCENARIO_ARGUMENT, _recorded(metafunc.config, kinds), indirect=True)
    if REPEAT_ARGUMENT in metafunc.fixturenames:
        repeats = settings_of(metafunc.config).repeat
        if repeats > 1:
            ids = [f"repeat{number}" for number in range(repeats)]
            metafunc.parametrize(REPEAT_ARGUMENT, range(repeats), indirect=True, ids=ids)


def _recorded(config: pytest.Config, kinds: set[str]) -> list[object]:
    try:
        target = runtime_of(config).target
        if target.seeded:
            reason = f"the target {target.name} has no recorded incidents; --otel-diag-target=replay:PATH has"
            return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="no-recording")]
        known = scenarios.scenarios_by_id(target)
    except (OtelDiagError, pytest.UsageError) as error:
        raise pytest.Collector.CollectError(f"otel-diag: {error}") from None
    chosen = [
        scenario for scenario in known.values() if ("controls" if scenario.control else "incidents") in kinds
    ]
    return [pytest.param(scenario.id, marks=_marks(config, scenario), id=scenario.id) for scenario in chosen]


def _marks(config: pytest.Config, scenario: Scenario) -> list[pytest.MarkDecorator]:
    names = {label_name(value).lower(): key for key, value in scenario.tags if label_name(value)}
    for name, key in names.items():
        register_label(config, name, f"{key} of the recorded incident")
    marks = [getattr(pytest.mark, name) for name in names]
    return [*marks, pytest.mark.otel_scenario(scenario.id)]


def foreign(item: pytest.Item) -> str:
    """Return why the item does not fit the target of the run; empty when it does.

    A test may ask for other kinds of target, or for flags that only another release of the demo has.
    A flag that no release has is a mistake and no reason to skip.
    """
    kind = settings_of(item.config).target.partition(":")[0]
    for kinds in _targets(item):
        if kind and kind not in kinds:
            return f"needs target {' or '.join(kinds)}, this run has {kind}"
    return _other_release(item) if kind in {"shop", "live"} else ""


def _targets(item: pytest.Item) -> list[tuple[str, ...]]:
    """Return the kinds of target that each marker of the item names."""
    marks, _ = parse(item.iter_markers(OtelTarget.name))
    return [mark.each() for mark in marks if isinstance(mark, OtelTarget)]


def _misspelt_targets(item: pytest.Item, known: Collection[str]) -> list[str]:
    """Return a mistake for each kind of target that does not exist: no run would ever fit it."""
    mistakes = unknown_targets((kind for kinds in _targets(item) for kind in kinds), known)
    if isinstance(item, ScenarioItem):
        return [item.case.at(mistake, "targets") for mistake in mistakes]
    return mistakes


def _other_release(item: pytest.Item) -> str:
    """Return which flag of the item the demo's release lacks; empty where the item names its release."""
    if isinstance(item, ScenarioItem):
        faults, named = item.case.entry.faults, item.case.entry.environment.demo is not None
    else:
        marks, _ = markers_of(item)
        faults = tuple(Fault(flag=m.key, variant=m.variant) for m in marks if isinstance(m, OtelFlag))
        named = any(m.demo is not None for m in marks if isinstance(m, OtelEnvironment))
    if not faults or named:
        return ""
    demo = runtime_of(item.config).describe().get("demo", "")
    for fault in faults:
        if releases := other_release_only(fault, demo):
            return f"demo {demo} has no {fault}; it is in {releases}"
    return ""


def validate(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Check every marker of every item; raises UsageError that lists all mistakes.

    A worker of pytest-xdist cannot stop the run that way. There only the mistaken items stay, and each fails
    with its mistakes.
    """
    mistakes: dict[pytest.Item, list[str]] = {}
    known = known_targets()
    for item in items:
        if not _skipped(item) and (misspelt := _misspelt_targets(item, known)):
            mistakes[item] = misspelt
            continue
        if reason := foreign(item):
            item.add_marker(pytest.mark.skip(reason=reason))
        marked = any(mark.name.startswith("otel_") for mark in item.iter_markers())
        used = frozenset(getattr(item, "fixturenames", ()))
        used = used if SCENARIO_ARGUMENT in used else frozenset()
        if (marked or used or isinstance(item, ScenarioItem)) and not _skipped(item):
            try:
                mistakes[item] = _of_item(config, item, used)
            except (
                OtelDiagError,
                pytest.UsageError,
            ) as error:  # of target or analyzer: the same for every test
                mistakes[item] = [str(error)]
    mistakes = {item: found for item, found in mistakes.items() if found} or _unready(config, mistakes)
    if not mistakes:
        return
    if is_worker(config):
        config.pluginmanager.register(_MistakenItems(mistakes))
        items[:] = list(mistakes)
        return
    raise pytest.UsageError(_listed(mistakes))


def _unready(config: pytest.Config, items: Iterable[pytest.Item]) -> dict[pytest.Item, list[str]]:
    """Return the items that the analyzer cannot diagnose now, with the reason; asks it once a process."""
    diagnosed = [item for item in items if _is_diagnosed(item)]
    settings = settings_of(config)
    if not diagnosed or config.option.collectonly or settings.setup_only:
        return {}
    try:
        runtime_of(config).prepare_analyzer(settings.analyzer.reveal())
    except OtelDiagError as error:
        return {item: [str(error)] for item in diagnosed}
    return {}


def _is_diagnosed(item: pytest.Item) -> bool:
    return isinstance(item, ScenarioItem) or not _DIAGNOSING.isdisjoint(getattr(item, "fixturenames", ()))


class _MistakenItems:
    """Fails items instead of running them."""

    def __init__(self, mistakes: dict[pytest.Item, list[str]]) -> None:
        self._mistakes = mistakes

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Fail the item with its mistakes."""
        if item in self._mistakes:
            pytest.fail(f"mistake in markers: {'; '.join(self._mistakes[item])}", pytrace=False)


def _listed(mistakes: dict[pytest.Item, list[str]]) -> str:
    every = list(mistakes.values())
    if all(found == every[0] for found in every):
        tests = f"{len(every)} tests" if len(every) > 1 else next(iter(mistakes)).nodeid
        return f"otel-diag: {'; '.join(every[0])} ({tests})"
    lines = [f"{item.nodeid}: {mistake}" for item, found in mistakes.items() for mistake in found]
    shown = "\n  ".join(lines[:50])
    more = f"\n  ... and {len(lines) - 50} more" if len(lines) > 50 else ""
    return f"otel-diag: {len(lines)} mistakes in markers:\n  {shown}{more}"


def _of_item(config: pytest.Config, item: pytest.Item, used: frozenset[str]) -> list[str]:
    found, mistakes = markers_of(item)
    if mistakes:
        return mistakes
    runtime_of(config).analyzer(settings_of(config).analyzer.reveal())
    prepared = None
    try:
        prepared = item.prepared() if isinstance(item, ScenarioItem) else scenarios.prepared_of(item)
    except ScenarioRejected as rejected:
        mistakes = list(rejected.mistakes)
    if isinstance(item, ScenarioItem):
        return mistakes
    if used and _runs_nothing(item):
        mistakes.append(
            "the test is async and no plugin runs it: install pytest-asyncio, and mark the test with asyncio "
            "or set asyncio_mode=auto"
        )
    if prepared is None and not mistakes and "diagnosis" in used:
        return [NO_SCENARIO]
    if found and not used:
        names = ", ".join(sorted(MARKERS.keys() & {mark.name for mark in item.iter_markers()}))
        fixtures = "diagnosis, diagnose, otel_flags or otel_telemetry"
        mistakes.append(f"marked {names} but asks for none of the fixtures {fixtures}: nothing would run")
    return mistakes


def _runs_nothing(item: pytest.Item) -> bool:
    """Whether the item is an async test that only pytest itself would run, and pytest refuses to.

    Plugins for async tests collect them as items of their own kind, mark them, or run them by a hook.
    """
    if type(item) is not pytest.Function or not inspect.iscoroutinefunction(item.obj):
        return False
    marked = any(mark.name in ASYNC_MARKS for mark in item.iter_markers())
    marked = marked or "anyio_backend" in item.fixturenames
    runners = {found.plugin_name for found in item.config.hook.pytest_pyfunc_call.get_hookimpls()}
    return not marked and runners <= _RUN_NO_UNMARKED


def _skipped(item: pytest.Item) -> bool:
    return item.get_closest_marker("skip") is not None
