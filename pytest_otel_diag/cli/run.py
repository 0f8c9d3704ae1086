"""``otel-diag run``: every scenario of a target, without pytest."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pytest_otel_diag.cli.stopping import Stop
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import SessionResult, Status
from pytest_otel_diag.ports import Target
from pytest_otel_diag.runs import composition
from pytest_otel_diag.runs.run import Run

Echo = Callable[[str], object]


def run(settings: Settings, wanted: Sequence[str], controls: bool, echo: Echo) -> int:
    """Run the scenarios whose id holds one of *wanted* (all without any); return the exit code.

    That is the gate's, 2 for a run broken off by Ctrl-C, 128 and the number of the signal that ended it
    otherwise; 0 for one that only sets up its faults, once each is served. Raises ConfigurationError when
    nothing is left to run.
    """
    # Without pytest a run has no other verdict than the gate's.
    settings = replace(settings, gate=not settings.setup_only)
    with composition.opened(settings, "main") as target:
        chosen = chosen_scenarios(target, wanted, controls)
        stop = Stop()
        return stop.run(lambda: _run(settings, target, chosen, echo, stop))


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


async def _run(settings: Settings, target: Target, chosen: Sequence[Scenario], echo: Echo, stop: Stop) -> int:
    analyzer = composition.open_analyzer(settings.analyzer)
    kept = Run(settings, Path.cwd(), target.describe(), time.time_ns)
    ended: list[SessionResult] = []

    def end(result: SessionResult) -> None:
        ended.append(result)
        kept.add(result)
        echo(_line(result))

    engine = composition.engine(settings, target, analyzer, end)
    run_id = secrets.token_hex(4)
    interrupted = ""
    try:
        for scenario, repeat in ((one, turn) for one in chosen for turn in range(settings.repeat)):
            if _left_on(ended):
                interrupted = "stopped after the session that left its fault on"
                break
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
    except asyncio.CancelledError:
        interrupted = f"interrupted ({stop.reason})"
        raise
    finally:
        code = kept.finish([composition.identity(settings.analyzer, analyzer)], interrupted)
        for line in ("", *kept.summary(shutil.get_terminal_size().columns), *kept.alarms):
            echo(line)
    if settings.setup_only and all(result.status is Status.SKIPPED for result in ended):
        return 0
    return code


def _left_on(ended: Sequence[SessionResult]) -> bool:
    return any(result.cleanup is not None and result.cleanup.left_on for result in ended)


def _line(result: SessionResult) -> str:
    return f"{result.scenario.id}  {result.outcome}  ({result.wall_s:.1f} s)"
