"""``otel-diag run``: every scenario of a target, without pytest."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_otel_diag import composition
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.ports import Target
from pytest_otel_diag.runs import Run, outcome

Echo = Callable[[str], object]


def run(settings: Settings, wanted: Sequence[str], controls: bool, echo: Echo) -> int:
    """Run the scenarios whose id holds one of *wanted* (all without any); return the gate's exit code.

    Raises ConfigurationError when nothing is left to run.
    """
    settings = settings.model_copy(update={"gate": True})  # without pytest a run has no other verdict
    with composition.opened(settings, "main") as target:
        chosen = chosen_scenarios(target, wanted, controls)
        return asyncio.run(_run(settings, target, chosen, echo))


def chosen_scenarios(target: Target, wanted: Sequence[str], controls: bool) -> list[Scenario]:
    """Return the target's scenarios whose id holds one of *wanted* (all without any).

    Raises ConfigurationError when none is left.
    """
    known = target.scenarios()
    kept = [scenario for scenario in known if controls or not scenario.control]
    chosen = [s for s in kept if not wanted or any(text in s.id for text in wanted)]
    if not chosen:
        raise ConfigurationError(
            f"no scenario to run: target {target.name} has {len(known)}, none with "
            f"{' or '.join(repr(text) for text in wanted) or 'a fault'} in its id"
        )
    return chosen


async def _run(settings: Settings, target: Target, chosen: Sequence[Scenario], echo: Echo) -> int:
    analyzer = composition.open_analyzer(settings.analyzer)
    kept = Run(settings, Path.cwd(), target.describe(), time.time_ns)

    def ended(result: SessionResult) -> None:
        kept.add(result)
        echo(_line(result))

    engine = composition.engine(settings, target, analyzer, ended)
    run_id = secrets.token_hex(4)
    try:
        for scenario in chosen:
            for repeat in range(settings.repeat):
                await engine.run(
                    composition.plan(
                        composition.prepared(scenario, settings, target, repeat),
                        settings,
                        run_id=run_id,
                        test_id="",
                        repeat=repeat,
                        analyzer=settings.analyzer,
                    )
                )
    finally:
        code = kept.finish([composition.identity(settings.analyzer, analyzer)])
        for line in ("", *kept.summary(shutil.get_terminal_size().columns)):
            echo(line)
    return code


def _line(result: SessionResult) -> str:
    return f"{result.scenario.id}  {outcome(result)}  ({result.wall_s:.1f} s)"
