"""The guardian process alone: what ends its watch, and what it does when a restore fails."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.undo import processes
from pytest_otel_diag.undo.guardian.client import OPENER, Guardian
from pytest_otel_diag.undo.guardian.process import Watch
from pytest_otel_diag.undo.journal import Journal
from pytest_otel_diag.undo.lease import Lease
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.processes import Process
from tests.support.deadlines import deadline_s
from tests.undo import samples
from tests.undo.cells import ROOT, until


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose death the guardian must notice."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def left(state: Path) -> None:
    """Leave a fault on in a place that cannot be opened."""
    nowhere = FlagAddress(control="nothing:x", served="ofrep:http://127.0.0.1:9")
    Journal(state).write(samples.entry(access=nowhere))


def config(state: Path, parent: int, **update: object) -> dict[str, object]:
    return {
        "state_dir": str(state),
        "watch": "one",
        "opener": OPENER,
        "import_path": [str(ROOT), *sys.path],
        "retry_s": 0.2,
        "parent": dataclasses.asdict(Process.of(parent)),
        "deadline_s": 60,
    } | update


def guardian(first: dict[str, object] | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pytest_otel_diag.undo.guardian.process"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    if first is not None:
        process.stdin.write(json.dumps(first).encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"watching": "one"}
    return process


def test_without_anything_to_watch_it_ends():
    process = guardian(None)
    process.communicate(timeout=deadline_s(20))
    assert process.returncode == 0


def test_a_death_is_noticed_while_another_process_holds_the_pipe(
    tmp_path: Path, parent: subprocess.Popen[bytes]
):
    """A child of the run may have inherited the pipe, so that its end never comes."""
    left(tmp_path)
    process = guardian(config(tmp_path, parent.pid))
    parent.kill()
    parent.wait()
    assert process.wait(deadline_s(20)) == 1
    log = (tmp_path / "guardian.log").read_text()
    assert "ConfigurationError" in log and "giving up on one" in log and "otel-diag heal" in log
    assert Journal(tmp_path).holds("one")


def test_an_entry_that_was_closed_elsewhere_needs_no_restore(tmp_path: Path, parent: subprocess.Popen[bytes]):
    process = guardian(config(tmp_path, parent.pid))
    process.communicate(timeout=deadline_s(20))  # closes its input
    assert process.returncode == 0


def test_a_deadline_that_passes_does_not_end_the_watch(tmp_path: Path, parent: subprocess.Popen[bytes]):
    left(tmp_path)
    process = guardian(config(tmp_path, parent.pid, deadline_s=0.1))
    assert until(lambda: "giving up" in _log(tmp_path), 20)
    assert process.poll() is None
    process.communicate(b'{"watch": "other", "deadline_s": 60}\n{"done": true}\n', timeout=deadline_s(20))
    assert process.returncode == 0


def _log(state: Path) -> str:
    path = state / "guardian.log"
    return path.read_text() if path.exists() else ""


def test_a_death_is_polled_for_where_the_system_has_no_pidfd(
    tmp_path: Path, parent: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    source, other = os.pipe()
    try:
        watch = Watch(config(tmp_path, parent.pid), source)
        os.write(other, b'{"watch": "two", "deadline_s": 60}\n{"do')
        assert watch.next() == {"watch": "two", "deadline_s": 60}
        os.write(other, b'ne": true}\n')
        assert watch.next() == {"done": True}
        watch.turn_to({"watch": "two", "deadline_s": 0.05})
        assert watch.next() == {"late": True}
        watch.turn_to({"watch": "two", "deadline_s": 60})
        parent.kill()
        parent.wait()
        assert watch.next() == {"gone": True}
    finally:
        os.close(source)
        os.close(other)


def test_a_process_that_got_the_number_of_a_dead_one_is_not_watched(tmp_path: Path):
    first = config(tmp_path, os.getpid())
    first["parent"] = dataclasses.asdict(Process.this()) | {"started": "0"}
    source, other = os.pipe()
    try:
        assert Watch(first, source).next() == {"gone": True}
    finally:
        os.close(source)
        os.close(other)


def test_a_guardian_that_does_not_answer_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lease = Lease.take(tmp_path, "env", Owner.here(now_ns=time.time_ns()))
    assert lease is not None
    mine = Guardian(tmp_path, lease)
    mine.hand_over()  # without a guardian
    mine.ensure("one", deadline_s=60)
    first = mine.pid or 0
    mine.ensure("two", deadline_s=60)
    assert mine.pid == first
    monkeypatch.setattr("pytest_otel_diag.undo.guardian.client.ANSWER_S", 0.3)
    os.kill(first, signal.SIGSTOP)
    mine.ensure("two", deadline_s=60)
    assert mine.pid not in {first, None}
    monkeypatch.setattr("pytest_otel_diag.undo.guardian.client._END_S", 0.3)
    second = Process.of(mine.pid or 0)
    os.kill(second.pid, signal.SIGSTOP)
    mine.dismiss()
    assert second.alive is False and not mine.running
    mine.dismiss()
    lease.release()


def test_without_proc_ps_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ps = tmp_path / "ps"
    ps.write_text(
        '#!/bin/sh\n[ "$4" = 1 ] && echo "Z    Mon Nov 23"; [ "$4" = 2 ] && echo "Ss   Mon  Nov 23"; exit 0\n'
    )
    ps.chmod(0o755)
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert [Process.of(pid).started for pid in (1, 2, 3)] == ["", "Mon Nov 23", ""]
    assert Process.of(2).alive is True and Process.of(2).here
    ps.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Process.of(2).started == ""


def test_a_user_without_a_name_is_shown_by_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_001)
    assert Owner.here(now_ns=1).user == "user 4000000001"


def test_a_signal_to_an_ended_or_foreign_process(monkeypatch: pytest.MonkeyPatch):
    def refuse(error: type[OSError]) -> None:
        def kill(pid: int, number: int) -> None:
            raise error

        monkeypatch.setattr(os, "kill", kill)

    refuse(ProcessLookupError)
    assert Process.this().send(signal.SIGTERM) is False
    refuse(PermissionError)
    with pytest.raises(PermissionError):
        Process.this().send(signal.SIGTERM)
