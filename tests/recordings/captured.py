"""Sessions of the simulated shop, their recordings, and replays of these."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.ports import Target
from pytest_otel_diag.recordings.capture import Capture
from pytest_otel_diag.runs.runner import Runner
from pytest_otel_diag.targets.replay.target import ReplayTarget
from pytest_otel_diag.targets.shop.target import ShopTarget

SHORT = {"baseline_s": 120.0, "observe_s": 90.0, "impact_timeout_s": 120.0, "recover_timeout_s": 60.0}
FAULTS = ("paymentFailure=50%", "adHighCpu=on", "loadGeneratorTraffic=off")


@dataclass(frozen=True)
class Kept:
    """A session and its recording."""

    result: SessionResult
    folder: Path


async def run(target: Target, scenario: Scenario, capture: Capture | None = None) -> SessionResult:
    """Run one session with the built-in analyzer."""
    runner = Runner(Settings(target=target.name), target=target, capture=capture)
    # a control derives its length from the session id
    session_id = f"{zlib.crc32(scenario.id.encode()):08x}"
    return await runner.run(runner.prepare(scenario), session_id=session_id)


def capture_all(directory: Path, cache: Path) -> dict[str, Kept]:
    """Record a session of each fault and a control; return them by scenario."""
    target = ShopTarget.from_settings(
        "reference_s=60,settle_s=30", settings=Settings(cache=str(cache)), worker=""
    )
    known = {scenario.id: scenario for scenario in target.scenarios()}
    quiet = target.scenario_for(())
    assert quiet is not None
    capture = Capture(directory)
    found = {}
    try:
        for scenario in (*(known[name] for name in FAULTS), quiet):
            timing = scenario.timing.model_copy(update=SHORT)
            result = asyncio.run(run(target, scenario.model_copy(update={"timing": timing}), capture))
            kept = capture.kept[-1]
            assert (kept.session_id, kept.reason) == (result.session_id, ""), (result.reason, result.notes)
            assert kept.folder is not None
            found[scenario.id] = Kept(result, kept.folder)
    finally:
        target.close()
    return found


def replay_all(paths: Iterable[Path], cache: Path) -> dict[str, SessionResult]:
    """Replay every scenario of the recordings; return the results by id."""
    target = ReplayTarget(tuple(paths), store_dsn="chdb://memory", cache_dir=cache)
    try:
        return {scenario.id: asyncio.run(run(target, scenario)) for scenario in target.scenarios()}
    finally:
        target.close()


def verdict_of(result: SessionResult) -> dict[str, object]:
    """Return the parts of a verdict that depend on telemetry alone."""
    verdict = result.verdict
    assert verdict is not None, result.reason
    return {"status": result.status, **{name: getattr(verdict, name) for name in _TOLD}}


_TOLD = (
    "fault_present",
    "detected",
    "service_rank",
    "mechanism_rank",
    "named_flag",
)
