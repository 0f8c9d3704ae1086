"""One scenario in a plain function, without pytest's fixtures: for property tests and notebooks."""

from __future__ import annotations

import asyncio
import atexit
import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ScenarioError
from pytest_otel_diag.model.scenario import Fault, Scenario
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.ports import Target
from pytest_otel_diag.runs import composition
from pytest_otel_diag.sessions.investigation.loading import as_analyzer
from pytest_otel_diag.targets.shop.target import ShopTarget


def run_scenario(
    scenario: Scenario | str, analyzer: object = "builtin", *, target: Target | None = None, seed: int = 0
) -> SessionResult:
    """Run one session and return its result, whatever became of it; look at its ``status`` first.

    *scenario* is one, the id of one that the target knows, or a fault such as ``"paymentFailure=50%"``.
    *analyzer* is a function of the investigation, an object or class with ``diagnose``, or a registered
    name. *target* is the simulated shop unless given. *seed* draws another incident of the same kind.
    Works with and without a running event loop. Raises ScenarioError for a scenario that the target does
    not have.
    """
    target = target or shop()
    chosen = _scenario(scenario, target)
    if mistakes := target.validate(chosen):
        raise ScenarioError("; ".join(mistakes))
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="otel-diag scenario") as pool:
        return pool.submit(asyncio.run, _run(chosen, analyzer, target, seed)).result()


@cache
def shop() -> Target:
    """Return the simulated shop of this process, with its telemetry in memory."""
    target = ShopTarget.from_spec("", store_dsn="", cache_dir=Path())
    atexit.register(target.close)
    return target


async def _run(scenario: Scenario, analyzer: object, target: Target, seed: int) -> SessionResult:
    settings = Settings(seed=seed)
    opened = composition.open_analyzer(analyzer) if isinstance(analyzer, str) else as_analyzer(analyzer)
    name = analyzer if isinstance(analyzer, str) else getattr(analyzer, "__name__", type(analyzer).__name__)
    engine = composition.engine(settings, target, opened, lambda _: None)
    prepared = composition.prepared(scenario, settings, target, 0)
    run_id = secrets.token_hex(4)
    return await engine.run(
        composition.plan(prepared, settings, run_id=run_id, test_id="", repeat=0, analyzer=name)
    )


def _scenario(scenario: Scenario | str, target: Target) -> Scenario:
    if isinstance(scenario, Scenario):
        return scenario
    known = {own.id: own for own in target.scenarios()}
    if scenario in known:
        return known[scenario]
    flag, separator, variant = scenario.partition("=")
    found = target.scenario_for([Fault(flag=flag, variant=variant if separator else None)])
    if found is None:
        raise ScenarioError(f"target {target.name} knows no scenario {scenario!r}; it has {', '.join(known)}")
    return found
