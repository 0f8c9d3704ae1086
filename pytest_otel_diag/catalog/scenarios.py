"""Scenarios from the catalog: one flag at one variant, with suitable times and traffic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from pytest_otel_diag.catalog.catalog import DEFAULT_DEMO, Catalog
from pytest_otel_diag.catalog.entries import FlagEntry, Period
from pytest_otel_diag.model.scenario import (
    Disturbance,
    Environment,
    Expectation,
    Fault,
    InvestigationStep,
    Scenario,
    Timing,
)

DEFAULT_USERS = 5
"""Simulated users for which the numbers in the catalog hold."""

USERS = (5, 10, 25, 50)
"""Numbers of users that a scenario chooses from, as the load generator of 3.0 offers them."""

AFFECTED_PER_MINUTE = 2.0
"""Affected requests a minute that a scenario aims at: six in an observation of 180 s."""

BASELINE_S = 300.0
LEAST_IMPACT_TIMEOUT_S = 180.0


def scenario(catalog: Catalog, flag: str, variant: str | None = None, demo: str = DEFAULT_DEMO) -> Scenario:
    """Return the scenario of a flag and variant (None: the suggested one); raises ScenarioError."""
    entry = catalog.flag(flag, demo)
    period = catalog.period(entry, demo)
    fault = catalog.fault(flag, variant, demo)
    chosen = catalog.variant(entry, variant, demo)
    return Scenario(
        id=str(fault),
        faults=(fault,),
        environment=Environment(
            demo=catalog.generation(demo).demo,
            users=users(entry, period, chosen),
            browser_users=1 if entry.traffic.browser else None,
        ),
        ungated=ungated(entry, period, chosen),
        expectation=catalog.expectation(flag, chosen, demo),
        timing=timing(entry, period, chosen),
        require_impact=not entry.expectation.healthy,
        tags=(("category", entry.category), ("severity", entry.severity), ("flag", entry.key)),
        investigation_path=catalog.investigation_path(flag, chosen, demo),
    )


def together(catalog: Catalog, faults: Sequence[Fault], demo: str = DEFAULT_DEMO) -> Scenario:
    """Return the scenario of one or several faults at once, each under the release's name of its flag.

    The faults keep their schedules and contexts; a fault without a context gets the one in which its service
    evaluates the flag. Several faults get the longest times and the most users that one of them needs, and do
    not count in the gate when one of them does not. Raises ScenarioError.
    """
    parts = [scenario(catalog, fault.flag, fault.variant, demo) for fault in faults]
    named = tuple(_named(fault, part.faults[0]) for fault, part in zip(faults, parts, strict=True))
    if len(parts) == 1:
        return parts[0].model_copy(update={"faults": named})
    first, times = parts[0], [part.timing for part in parts]
    return first.model_copy(
        update={
            "id": "+".join(part.id for part in parts),
            "faults": named,
            "expectation": catalog.combined(named, demo),
            "environment": first.environment.model_copy(
                update={
                    "users": _most(part.environment.users for part in parts),
                    "browser_users": _most(part.environment.browser_users for part in parts),
                }
            ),
            "ungated": "; ".join(dict.fromkeys(part.ungated for part in parts if part.ungated)),
            "investigation_path": _in_turn(part.investigation_path for part in parts),
            "require_impact": any(part.require_impact for part in parts),
            "timing": first.timing.model_copy(
                update={
                    "baseline_s": max(one.baseline_s for one in times),
                    "impact_timeout_s": max(one.impact_timeout_s for one in times),
                    "observe_s": max(one.observe_s for one in times),
                }
            ),
        }
    )


def _named(fault: Fault, known: Fault) -> Fault:
    context = fault.context or known.context
    return fault.model_copy(update={"flag": known.flag, "variant": known.variant, "context": context})


def _in_turn(paths: Iterable[Sequence[InvestigationStep]]) -> tuple[InvestigationStep, ...]:
    """Return the steps of several faults from general to specific, each once."""
    rows = zip_longest(*paths)
    return tuple(dict.fromkeys(step for row in rows for step in row if step is not None))


def _most(numbers: Iterable[int | None]) -> int | None:
    return max((number for number in numbers if number is not None), default=None)


def scenarios(catalog: Catalog, demo: str = DEFAULT_DEMO) -> tuple[Scenario, ...]:
    """Return one scenario for each flag of the release, with its suggested variant."""
    return tuple(scenario(catalog, key, None, demo) for key in catalog.generation(demo).flags)


def controls(catalog: Catalog, demo: str = DEFAULT_DEMO) -> tuple[Scenario, ...]:
    """Return scenarios without a fault: quiet, more load, a deployment, a garbage collection.

    The last two are left out for a system without the service that they affect.
    """
    kinds: dict[str, tuple[Disturbance, ...]] = {
        "control-quiet": (),
        "control-load-doubled": (Disturbance(kind="load", factor=2.0),),
    }
    services = catalog.generation(demo).services
    if "recommendation" in services:
        restart = Disturbance(kind="restart", service=services["recommendation"])
        kinds["control-deployment"] = (restart,)
    if "ad" in services:
        kinds["control-garbage-collection"] = (Disturbance(kind="gc", service=services["ad"]),)
    return tuple(
        Scenario(
            id=name,
            disturbances=disturbances,
            environment=Environment(demo=catalog.generation(demo).demo),
            expectation=Expectation(healthy=True),
            timing=Timing(baseline_s=BASELINE_S, observe_s=180.0),
            tags=(("category", "control"), ("severity", "none")),
        )
        for name, disturbances in kinds.items()
    )


def users(entry: FlagEntry, period: Period, variant: str) -> int | None:
    """Return the number of users of a scenario, None for the target's own.

    Where requests are too rare for :data:`AFFECTED_PER_MINUTE`, the number rises in the steps of
    :data:`USERS`.
    """
    if entry.traffic.users is not None:
        return entry.traffic.users
    affected = affected_per_minute(entry, period, variant)
    if not affected or affected >= AFFECTED_PER_MINUTE:
        return None
    enough = (n for n in USERS if affected * n / DEFAULT_USERS >= AFFECTED_PER_MINUTE)
    return next(enough, USERS[-1])


def affected_per_minute(entry: FlagEntry, period: Period, variant: str) -> float:
    """Return how many requests a minute show the fault, at 5 users."""
    if entry.traffic.share != "variant":
        return entry.traffic.per_minute * entry.traffic.share
    value = period.variants[variant]
    return entry.traffic.per_minute * (min(1.0, float(value)) if isinstance(value, int | float) else 1.0)


def ungated(entry: FlagEntry, period: Period, variant: str) -> str:
    """Return why a session of this flag and variant should not count in the gate, empty when it should."""
    if period.broken:
        return period.broken
    if not entry.diagnosable.answer:
        return entry.diagnosable.why
    return next((note.ungated for note in entry.variants if note.variant == variant), "")


def timing(entry: FlagEntry, period: Period, variant: str) -> Timing:
    """Return times that suit the flag's traffic and time to impact; a control waits as long as a fault."""
    seconds = next(
        (note.seconds for note in entry.variants if note.variant == variant and note.seconds is not None),
        entry.visibility.seconds,
    )
    raised = (users(entry, period, variant) or DEFAULT_USERS) / DEFAULT_USERS
    return Timing(
        baseline_s=BASELINE_S,
        impact_timeout_s=max(LEAST_IMPACT_TIMEOUT_S, round(4 * seconds / raised)),
        observe_s=entry.observe_s,
    )
