"""The flags of a system as data: names, variants, behaviour and right answers, by release.

The shipped data describe the OpenTelemetry Demo. :func:`load` reads and checks them once; the other functions
query that catalog.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from pytest_otel_diag.catalog import loading
from pytest_otel_diag.catalog import scenarios as _scenarios
from pytest_otel_diag.catalog.catalog import DEFAULT_DEMO, Catalog
from pytest_otel_diag.catalog.entries import FlagEntry
from pytest_otel_diag.catalog.system import Generation
from pytest_otel_diag.model.scenario import Expectation, Fault, Scenario

__all__ = [
    "DEFAULT_DEMO",
    "Catalog",
    "FlagEntry",
    "Generation",
    "controls",
    "demo_document",
    "expectation",
    "fault",
    "flag",
    "generation",
    "load",
    "scenario",
    "scenarios",
    "service",
    "together",
]


@cache
def load() -> Catalog:
    """Return the shipped catalog, read and checked once."""
    return Catalog(loading.shipped())


def flag(name: str, demo: str | None = None) -> FlagEntry:
    """Return the flag by any of its names; raises ScenarioError, also for one that *demo* does not have."""
    return load().flag(name, demo)


def generation(demo: str = DEFAULT_DEMO) -> Generation:
    """Return the flags and services of a release; raises ConfigurationError for an unknown one."""
    return load().generation(demo)


def service(name: str, demo: str = DEFAULT_DEMO) -> str:
    """Return the service's name in a release; an unknown name is returned unchanged."""
    return load().service(name, demo)


def fault(name: str, variant: str | None = None, demo: str = DEFAULT_DEMO) -> Fault:
    """Return the fault that sets the flag, with its evaluation context; raises ScenarioError."""
    return load().fault(name, variant, demo)


def expectation(name: str, variant: str | None = None, demo: str = DEFAULT_DEMO) -> Expectation:
    """Return the right answer to the fault; raises ScenarioError."""
    return load().expectation(name, variant, demo)


def scenario(name: str, variant: str | None = None, demo: str = DEFAULT_DEMO) -> Scenario:
    """Return the scenario of one flag and variant; raises ScenarioError."""
    return _scenarios.scenario(load(), name, variant, demo)


def together(faults: Sequence[Fault], demo: str = DEFAULT_DEMO) -> Scenario:
    """Return the scenario of one or several faults at once, their schedules kept; raises ScenarioError."""
    return _scenarios.together(load(), faults, demo)


def scenarios(demo: str = DEFAULT_DEMO) -> tuple[Scenario, ...]:
    """Return one scenario for each flag of the release, with its suggested variant."""
    return _scenarios.scenarios(load(), demo)


def controls(demo: str = DEFAULT_DEMO) -> tuple[Scenario, ...]:
    """Return scenarios without a fault: quiet, more load, a deployment, a garbage collection."""
    return _scenarios.controls(load(), demo)


def demo_document(demo: str = DEFAULT_DEMO) -> bytes:
    """Return the whole flagd document of a release, every flag at its default."""
    return load().demo_document(demo)
