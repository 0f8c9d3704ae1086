"""Hypothesis strategies for scenarios, so that analyzers can be tested by property. Needs ``hypothesis``.

All are drawn from the catalog: what they give is valid for the release of the demo, with its right answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_otel_diag import catalog
from pytest_otel_diag.catalog.entries import Category, FlagEntry, Severity
from pytest_otel_diag.errors import ScenarioError
from pytest_otel_diag.model.scenario import (
    Disturbance,
    Environment,
    Expectation,
    Fault,
    FaultStep,
    Scenario,
    Timing,
)
from pytest_otel_diag.scenario_files.knowledge import scenario_of

try:
    from hypothesis import strategies as st
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "pytest_otel_diag.testing.strategies needs hypothesis; run: pip install hypothesis", name="hypothesis"
    ) from None

LATEST_ONSET_S = 60.0
USERS = (5, 500)
"""Users that the simulated shop takes."""


def variants(flag: str, demo: str = catalog.DEFAULT_DEMO) -> st.SearchStrategy[str]:
    """Variants that make the flag's fault happen visibly: not its default, none that the catalog excludes.

    Raises ScenarioError for an unknown flag.
    """
    entry = catalog.flag(flag, demo)
    return st.sampled_from(_visible(entry, demo))


def faults(
    demo: str = catalog.DEFAULT_DEMO, *, category: Category | None = None, severity: Severity | None = None
) -> st.SearchStrategy[Fault]:
    """Faults that can be diagnosed from telemetry, by category and severity where given.

    Raises ScenarioError where the release has none of that kind.
    """
    pairs = [
        catalog.fault(entry.key, variant, demo)
        for entry in _diagnosable(demo)
        if category in (None, entry.category) and severity in (None, entry.severity)
        for variant in _visible(entry, demo)
    ]
    if not pairs:
        raise ScenarioError(f"demo {demo} has no fault of category {category} and severity {severity}")
    return st.sampled_from(pairs)


def schedules(
    of: st.SearchStrategy[Fault] | None = None, demo: str = catalog.DEFAULT_DEMO
) -> st.SearchStrategy[Fault]:
    """Faults that come late, end by themselves, flap, or change their variant on the way.

    *of* are the faults that get a schedule, of the release *demo*.
    """
    return (faults(demo) if of is None else of).flatmap(lambda fault: _scheduled(fault, demo))


def environments(
    demo: str = catalog.DEFAULT_DEMO, *, users: tuple[int, int] = (5, 50)
) -> st.SearchStrategy[Environment]:
    """Shops of one release: users from *users* (both included), a seed, and with or without jitter."""
    return st.builds(
        Environment,
        demo=st.just(demo),
        users=st.integers(max(users[0], 1), min(users[1], USERS[1])),
        seed=st.integers(0, 2**31 - 1),
        jitter=st.booleans(),
    )


def disturbances(demo: str = catalog.DEFAULT_DEMO) -> st.SearchStrategy[Disturbance]:
    """Harmless changes: up to twice the load, a deployment, a collection of garbage."""
    onset = st.floats(0, LATEST_ONSET_S)
    restarted = [catalog.service(name, demo) for name in ("ad", "recommendation", "payment", "shipping")]
    collecting = [catalog.service(name, demo) for name in ("ad", "fraud-detection")]
    return st.one_of(
        st.builds(Disturbance, kind=st.just("load"), factor=st.floats(1.1, 2.0), at_s=onset),
        st.builds(Disturbance, kind=st.just("restart"), service=st.sampled_from(restarted), at_s=onset),
        st.builds(Disturbance, kind=st.just("gc"), service=st.sampled_from(collecting), at_s=onset),
    )


def scenarios(
    demo: str = catalog.DEFAULT_DEMO,
    *,
    severity: Severity | None = None,
    category: Category | None = None,
    users: tuple[int, int] | None = None,
    scheduled: bool = False,
    disturbed: bool = False,
) -> st.SearchStrategy[Scenario]:
    """Scenarios of one fault, with the catalog's expectation and times.

    *users* bounds the load; without it the catalog says how many a fault needs. *scheduled* draws a
    schedule, *disturbed* harmless changes beside the fault.
    """
    one = faults(demo, category=category, severity=severity)
    beside = st.lists(disturbances(demo), max_size=2 if disturbed else 0)
    return st.builds(
        _scenario,
        fault=schedules(one, demo) if scheduled else one,
        environment=environments(demo, users=users or (5, 5)),
        disturbances=beside,
        loaded=st.just(users is not None),
    )


def _scenario(
    fault: Fault, environment: Environment, disturbances: Sequence[Disturbance], loaded: bool
) -> Scenario:
    base = scenario_of([fault], environment.demo or catalog.DEFAULT_DEMO)
    assert base is not None, f"{fault} comes from the catalog"
    keep = {"browser_users": base.environment.browser_users}
    if not loaded:
        keep["users"] = base.environment.users
    wanted = environment.model_copy(update=keep)
    return base.model_copy(update={"environment": wanted, "disturbances": tuple(disturbances)})


@st.composite
def controls(
    draw: st.DrawFn, demo: str = catalog.DEFAULT_DEMO, *, users: tuple[int, int] = (5, 50)
) -> Scenario:
    """Scenarios without a fault, quiet or with harmless changes: nothing is wrong."""
    return Scenario(
        id="control",
        disturbances=tuple(draw(st.lists(disturbances(demo), max_size=2))),
        environment=draw(environments(demo, users=users)),
        expectation=Expectation(healthy=True),
        timing=Timing(baseline_s=300.0, observe_s=180.0),
    )


@st.composite
def _scheduled(draw: st.DrawFn, fault: Fault, demo: str) -> Fault:
    at_s = draw(st.floats(0, LATEST_ONSET_S))
    lasts_s = draw(st.none() | st.floats(30, 120))
    if lasts_s is None:
        steps: Sequence[FaultStep] = ()
        others = [name for name in _visible(catalog.flag(fault.flag), demo) if name != fault.variant]
        change = draw(st.none() | st.sampled_from(others)) if others else None
        if change is not None:
            steps = (FaultStep(at_s=draw(st.floats(10, 60)), variant=change),)
        return fault.model_copy(update={"at_s": at_s, "steps": tuple(steps)})
    every_s = draw(st.none() | st.floats(lasts_s + 10, lasts_s + 120))
    return fault.model_copy(update={"at_s": at_s, "until_s": at_s + lasts_s, "every_s": every_s})


def _diagnosable(demo: str) -> list[FlagEntry]:
    entries = [catalog.flag(key) for key in catalog.generation(demo).flags]
    return [entry for entry in entries if entry.kind == "fault" and entry.diagnosable.answer]


def _visible(entry: FlagEntry, demo: str) -> list[str]:
    period = catalog.load().period(entry, demo)
    hidden = {note.variant for note in entry.variants if note.ungated}
    return [name for name in period.variants if name != period.default and name not in hidden]
