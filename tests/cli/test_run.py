"""``otel-diag run``: its exit codes, and how signals end it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading

import pytest

from pytest_otel_diag.cli.commands import run as run_command
from pytest_otel_diag.cli.interruption import Stop
from pytest_otel_diag.config.options import resolve
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.model.diagnosis import Diagnosis
from tests.sessions.session_fakes import scenario
from tests.support import fake_system


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder where the fake system is installed, which knows two scenarios."""
    fake_system.install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    known = tuple(scenario("paymentFailure=50%", id=name) for name in ("one", "two"))
    monkeypatch.setattr(fake_system.System, "scenarios", lambda _: known)
    return tmp_path


def run(**options: object) -> tuple[int, list[str]]:
    given = {"target": "fake", "analyzer": f"{__name__}:healthy", **options}
    settings = Settings.of(resolve({f"otel_diag_{name}": value for name, value in given.items()}, {}, {}))
    lines: list[str] = []
    return run_command.run(settings, (), True, lambda line: lines.append(str(line))), lines


async def healthy(_investigation: object) -> Diagnosis:
    return Diagnosis(detected=False)


async def stopped(_investigation: object) -> Diagnosis:
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(60)
    return Diagnosis(detected=False)


def kept(place) -> list[dict]:
    (file,) = place.glob("reports/*/sessions.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_run_goes_through_every_scenario(place) -> None:
    code, lines = run()
    assert code in (11, 13) and [session["scenario"]["id"] for session in kept(place)] == ["one", "two"]
    assert any("gate: " in line for line in lines)


def test_sigterm_ends_it_in_order(place) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        code, lines = run(analyzer=f"{__name__}:stopped")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert code == 143
    (session,) = kept(place)
    assert session["reason"] == "terminated by SIGTERM during investigate"
    assert session["cleanup"]["verified"]
    assert any("gate: INTERRUPTED" in line for line in lines)


def test_a_run_that_only_sets_up_judges_nothing(place) -> None:
    code, lines = run(setup_only="true")
    assert code == 0 and {session["status"] for session in kept(place)} == {"skipped"}
    assert not any("gate:" in line for line in lines)


def test_it_stops_after_the_session_that_left_its_fault_on(place) -> None:
    code, lines = run(skip_cleanup="true", target="fake:exclusive")
    assert code == 2 and len(kept(place)) == 1
    assert lines[-1].startswith("LEFT ON, as requested") and "otel-diag heal" in lines[-1]


def test_without_a_main_thread_signals_are_left_alone() -> None:
    codes: list[int] = []

    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    thread = threading.Thread(target=lambda: codes.append(Stop().run(work)))
    thread.start()
    thread.join(10)
    assert codes == [7]


def test_ctrl_c_has_its_own_exit_code() -> None:
    async def work() -> int:
        raise KeyboardInterrupt

    stop = Stop()
    assert stop.run(work) == 2 and stop.reason == "Ctrl-C"
