"""Runs that signals end, in separate processes; and runs that leave faults on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_otel_diag.plugin.termination import Terminated, Termination
from pytest_otel_diag.plugin.xdist import Spool, WorkerSpool
from tests.support import fake_system
from tests.support.deadlines import deadline_s, eventually
from tests.support.plugins import NO_HYPOTHESIS

TESTS = """
    import asyncio
    import pytest

    FAULT = pytest.mark.otel_flag("paymentFailure", variant="50%")
    EXPECT = pytest.mark.otel_expect(root_cause="payment")

    @FAULT
    @EXPECT
    def test_quick(diagnosis):
        diagnosis.assert_detected()

    @FAULT
    @EXPECT
    def test_hangs(diagnose):
        diagnose(["paymentFailure=50%"], analyzer="hanging:hang").result()

    @pytest.mark.asyncio
    async def test_hangs_async(diagnose):
        await diagnose(["paymentFailure=50%"], analyzer="hanging:hang")
"""
HANGING = """
import asyncio, os, pathlib
from pytest_otel_diag.model.diagnosis import Diagnosis, RootCause

async def quick(investigation):
    return Diagnosis(detected=True, root_causes=(RootCause(service="payment", score=1.0),), confidence=0.9)

async def hang(investigation):
    pathlib.Path(f"hanging-{os.getpid()}").touch()
    await asyncio.sleep(3600)
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(pytester: pytest.Pytester):
    """Start pytest over the fake system and wait until *hanging* analyzers hang."""
    pytester.makepyfile(test_it=TESTS, hanging=HANGING)
    fake_system.install(pytester.path)
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, hanging: int = 1) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *NO_HYPOTHESIS]
        path = os.pathsep.join([str(pytester.path), str(ROOT), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [*command, "--otel-diag-target=fake", "--otel-diag-analyzer=hanging:quick", *arguments],
            cwd=pytester.path,
            env={**os.environ, "PYTHONPATH": path},
            stdout=(pytester.path / "out.txt").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A run in the background (nohup) ignores Ctrl-C, and its children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread
        )
        started.append(process)

        def hangs() -> bool:
            return len(list(pytester.path.glob("hanging-*"))) >= hanging

        assert eventually(lambda: process.poll() is not None or hangs(), 60), printed(pytester)
        assert process.poll() is None, printed(pytester)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(deadline_s(30))


def printed(pytester: pytest.Pytester) -> str:
    return (pytester.path / "out.txt").read_text(encoding="utf-8")


def kept(pytester: pytest.Pytester) -> dict[str, dict]:
    """Return the sessions of the one run by the name of their test."""
    (file,) = pytester.path.glob("reports/*/sessions.jsonl")
    lines = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {line["test_id"].rpartition("::")[2]: line for line in lines}


def flags_are_back(pytester: pytest.Pytester) -> bool:
    files = list(pytester.path.glob("flags-*.json"))
    return bool(files) and all(json.loads(file.read_bytes())["paymentFailure"] == "off" for file in files)


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        (signal.SIGTERM, 143, "terminated by SIGTERM during investigate"),
        (signal.SIGHUP, 129, "terminated by SIGHUP during investigate"),
        (signal.SIGINT, 2, "cancelled during investigate"),
    ],
)
def test_a_signal_ends_the_run_in_order(pytester, run, number, code, reason) -> None:
    process = run("--otel-diag-gate", "-k", "quick or test_hangs")
    process.send_signal(number)
    assert process.wait(deadline_s(60)) == code, printed(pytester)
    sessions = kept(pytester)
    assert sessions["test_quick"]["status"] == "scored"
    assert sessions["test_hangs"]["reason"] == reason
    assert sessions["test_hangs"]["cleanup"]["verified"] and flags_are_back(pytester)
    assert "gate: INTERRUPTED" in printed(pytester) and "gate: FAIL" not in printed(pytester)
    (run_file,) = pytester.path.glob("reports/*/run.json")
    assert json.loads(run_file.read_text())["interrupted"].startswith("interrupted (")


def test_an_async_test_ends_in_order_too(pytester, run) -> None:
    process = run("-k", "async")
    process.send_signal(signal.SIGTERM)
    assert process.wait(deadline_s(60)) == 143, printed(pytester)
    assert kept(pytester)["test_hangs_async"]["reason"] == "terminated by SIGTERM during investigate"
    assert flags_are_back(pytester)


@pytest.mark.parametrize("whom", ["controller", "worker", "group"])
def test_workers_end_in_order(pytester, run, whom) -> None:
    workers = 1 if whom == "worker" else 2  # pytest-xdist lets the others finish their tests
    process = run("-n", str(workers), "--otel-diag-gate", "-k", "hangs", hanging=workers)
    if whom == "controller":
        process.send_signal(signal.SIGTERM)
    elif whom == "group":
        os.killpg(process.pid, signal.SIGINT)
    else:
        pid = int(next(pytester.path.glob("hanging-*")).name.partition("-")[2])
        os.kill(pid, signal.SIGTERM)
    assert process.wait(deadline_s(60)) == (143 if whom == "controller" else 2), printed(pytester)
    sessions = kept(pytester)
    assert len(sessions) == workers, printed(pytester)
    assert all(session["cleanup"]["verified"] for session in sessions.values())
    assert flags_are_back(pytester)
    reasons = {session["reason"] for session in sessions.values()}
    assert "terminated by SIGTERM during investigate" in reasons or whom == "group"
    assert "gate: INTERRUPTED" in printed(pytester)


def test_a_failed_restore_fails_the_run_and_raises_an_alarm(pytester, run_inside) -> None:
    result = run_inside("-k", "quick", "--tb=no", target="fake:stuck")
    assert result.ret != 0
    result.stdout.fnmatch_lines(
        ["*faults that are on*", "A FAULT MAY STILL BE ON*the disk is full*otel-diag heal*"]
    )
    (page,) = pytester.path.glob("reports/*/*.html")
    assert "A FAULT MAY STILL BE ON" in page.read_text(encoding="utf-8")
    (run_file,) = pytester.path.glob("reports/*/run.json")
    assert "the disk is full" in json.loads(run_file.read_text())["alarms"][0]


def test_a_failed_restore_fails_a_run_whose_tests_pass(pytester, run_inside) -> None:
    pytester.makepyfile(
        test_it="""
        import pytest

        def test_looks_away(diagnose):
            with pytest.raises(Exception, match="disk is full"):
                diagnose(["paymentFailure=50%"]).result()
        """
    )
    result = run_inside(target="fake:stuck")
    result.assert_outcomes(passed=1)
    assert result.ret == 12


def test_a_fault_left_on_as_requested_stops_the_run(pytester, run_inside) -> None:
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.otel_flag("paymentFailure", variant="50%")
        @pytest.mark.otel_expect(root_cause="payment")
        def test_one(diagnosis):
            diagnosis.assert_detected()

        test_two = test_one
        """
    )
    result = run_inside("--otel-diag-skip-cleanup", target="fake:exclusive")
    result.assert_outcomes(passed=1)
    assert result.ret == 2
    result.stdout.fnmatch_lines(
        ["*faults that are on*", "LEFT ON, as requested*paymentFailure=50%*otel-diag heal*"]
    )
    assert not flags_are_back(pytester)
    alone = run_inside("--otel-diag-skip-cleanup", "-k", "two", target="fake:exclusive")
    assert alone.ret == 0, "the last test has none after it that could be refused"


def test_setup_only_skips_the_test_with_what_was_found(pytester, run_inside) -> None:
    result = run_inside("-k", "quick", "--otel-diag-setup-only", "-rs")
    result.assert_outcomes(skipped=1, deselected=2)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*setup only: paymentFailure=50% is served; VISIBLE*"])
    assert kept(pytester)["test_quick"]["status"] == "skipped"


def test_a_test_that_holds_an_exclusive_target_cannot_start_a_session(pytester, run_inside) -> None:
    pytester.makepyfile(
        test_it="""
        def test_both(otel_flags, diagnose):
            otel_flags.set("adFailure", "on").result()
            diagnose(["paymentFailure=50%"])
        """
    )
    result = run_inside(target="fake:exclusive")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*holds the target fake by otel_flags or otel_telemetry*"])
    (file,) = pytester.path.glob("flags-*.json")
    assert json.loads(file.read_bytes())["adFailure"] == "off"


@pytest.fixture
def run_inside(pytester: pytest.Pytester):
    """Run pytest over the fake system inside this process."""
    pytester.makepyfile(test_it=TESTS, hanging=HANGING)
    fake_system.install(pytester.path)
    pytester.syspathinsert()

    def run(*arguments: str, target: str = "fake") -> pytest.RunResult:
        chosen = (f"--otel-diag-target={target}", "--otel-diag-analyzer=hanging:quick")
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *chosen, *arguments)

    return run


def test_sessions_of_a_worker_outlive_it(tmp_path) -> None:
    spool = Spool()
    spool.folder = tmp_path / "spool"
    assert list(spool.texts()) == [] and spool.workers() == {}
    worker = WorkerSpool(spool.folder, "gw0")
    worker.add("one")
    worker.add("two")
    with (spool.folder / "gw0.jsonl").open("a") as stream:
        stream.write("torn")
    assert list(spool.texts()) == ["one", "two"]
    assert set(spool.workers().values()) == {os.getpid()}
    (spool.folder / "gw1.pid").write_text("no number")
    worker.pytest_sessionfinish()
    assert spool.workers() == {}
    spool.end(timeout_s=deadline_s(5))
    spool.remove()
    assert not spool.folder.exists()


@pytest.mark.parametrize("others", [signal.SIG_DFL, lambda *_: None], ids=["none", "another-library"])
def test_handlers_are_replaced_and_restored(others) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGTERM, others)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals = Termination()
    try:
        signals.install()
        signals.install()
        assert signals.reason == "" and signals.exit_code is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, "nohup stays nohup"
        for _ in range(2):
            with pytest.raises(Terminated, match="terminated by SIGTERM"):
                signal.raise_signal(signal.SIGTERM)
        assert (signals.reason, signals.exit_code) == ("terminated by SIGTERM", 143)
        signals.restore()
        assert signal.getsignal(signal.SIGTERM) is others
    finally:
        signals.restore()
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_worker_that_ends_already_ignores_a_second_signal() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signals = Termination()
    try:
        signals.install(patient=True)
        signals.ending()
        signal.raise_signal(signal.SIGTERM)
        assert signals.exit_code is None
    finally:
        signals.restore()
        signal.signal(signal.SIGTERM, before)
