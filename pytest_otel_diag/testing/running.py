"""Runs one scenario in a plain function, without pytest's fixtures: for property tests and notebooks."""

from __future__ import annotations

import asyncio
import atexit
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ScenarioError
from pytest_otel_diag.model.scenario import Fault, Scenario
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.ports import Target
from pytest_otel_diag.runs.runner import Runner
from pytest_otel_diag.sessions.investigation.loading import as_analyzer
from pytest_otel_diag.targets.shop.target import ShopTarget


def run_scenario(
    scenario: Scenario | str, analyzer: object = "builtin", *, target: Target | None = None, seed: int = 0
) -> SessionResult:
    """Run one session and return its result, however it ended; check its ``status`` first.

    *scenario* is a Scenario, the id of one that the target knows, or a fault such as
    ``"paymentFailure=50%"``. *analyzer* is a function of the investigation, an object or class with
    ``diagnose``, or a registered name. *target* defaults to the simulated shop. *seed* draws another incident
    of the same kind. Works with and without a running event loop. Raises ScenarioError for a scenario that
    the target does not have.
    """
    name = analyzer if isinstance(analyzer, str) else getattr(analyzer, "__name__", type(analyzer).__name__)
    given = {} if isinstance(analyzer, str) else {name: as_analyzer(analyzer)}
    runner = Runner(Settings(seed=seed), target=target or shop(), analyzers=given)
    prepared = runner.prepare(_scenario(scenario, runner.target))
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="otel-diag scenario") as pool:
        return pool.submit(asyncio.run, runner.run(prepared, analyzer=name)).result()


@cache
def shop() -> Target:
    """Return the simulated shop of this process, with its telemetry in memory."""
    target = ShopTarget.from_settings("", settings=Settings(), worker="")
    atexit.register(target.close)
    return target


def _scenario(scenario: Scenario | str, target: Target) -> Scenario:
    if isinstance(scenario, Scenario):
        return scenario
    known = {own.id: own for own in target.scenarios()}
    if scenario in known:
        return known[scenario]
    flag, separator, variant = scenario.partition("=")
    found = target.scenario_for([Fault(flag=flag, variant=variant if separator else None)])
    if found is None:
        raise ScenarioError(
            f"the target {target.name} has no scenario {scenario!r}; choose from {', '.join(known)}"
        )
    return found
