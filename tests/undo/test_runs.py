"""Whole runs on one system: taking turns, faults left on by request, a hanging run, emergency stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deadlines import deadline_s
from tests.undo.cells import FLAG, VARIANT, Cell, cell, until


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Cell]:
    with cell(tmp_path / "cell") as found:
        yield found


def test_two_runs_take_turns_and_the_second_names_the_first(place: Cell):
    first = place.start(point="impact wait", run="first")
    place.reached(first)
    messages = place.folder / "messages"
    second = place.start("--otel-diag-lease-wait-s=60", run="second", output="second")
    assert until(lambda: messages.exists() and "run first" in messages.read_text(), 60)
    assert f"process {first.pid}" in messages.read_text()
    assert second.poll() is None
    place.go_on()
    assert first.wait(60) == 0, place.output
    assert second.wait(60) == 0, place.printed("second")
    assert place.as_before()


def test_a_run_that_may_not_wait_is_refused_with_the_owner(place: Cell):
    first = place.start(point="impact wait", run="first")
    try:
        place.reached(first)
        second = place.start("--otel-diag-lease-wait-s=0.1", output="second")
        assert second.wait(60) != 0
        printed = " ".join(place.printed("second").split())
        assert f"process {first.pid}, run first" in printed
        assert "--otel-diag-lease-wait-s" in printed
    finally:
        place.go_on()
        first.wait(60)
    assert place.as_before()


def test_heal_takes_over_a_stopped_run_only_by_force_and_the_run_reports_it(place: Cell):
    run = place.start(point="impact wait")
    place.reached(run)
    os.kill(run.pid, signal.SIGSTOP)
    try:
        gentle = place.command("heal")
        assert gentle.returncode == 1 and "OWNER ALIVE" in gentle.stdout and str(run.pid) in gentle.stdout
        assert place.document.read_bytes() != place.original
        forced = place.command("heal", "--force")
        assert forced.returncode == 0, forced.stdout + forced.stderr
        assert until(place.as_before, 20)
        place.go_on()
    finally:
        os.kill(run.pid, signal.SIGCONT)
    assert run.wait(60) != 0
    assert "was restored from outside" in " ".join(place.output.split())
    assert place.as_before()


def test_the_fault_of_a_stopped_run_ends_at_its_deadline_and_the_run_reports_it(place: Cell):
    place.deadline_s = 2.0
    run = place.start(point="impact wait")
    place.reached(run)
    os.kill(run.pid, signal.SIGSTOP)
    try:
        assert until(lambda: place.document.read_bytes() == place.original, 30)
        assert until(lambda: place.served() == place.variants, 10)
        assert until(lambda: '"returned"' in place.entries[0].read_text(), 10)
        place.go_on()
    finally:
        os.kill(run.pid, signal.SIGCONT)
    assert run.wait(60) != 0
    assert "exceeded its deadline" in " ".join(place.output.split())
    assert place.as_before()


def test_emergency_stop_ends_runs_and_undoes_their_faults(place: Cell):
    run = place.start(point="impact wait")
    place.reached(run)
    flags = ("--flags", f"file:{place.document}", "--flagd", f"ofrep:{place.flagd.ofrep}")
    stopping = place.popen("emergency-stop", "--all-off", *flags, output="stopping")
    assert until(lambda: "asked to end" in place.printed("stopping"), 60)
    place.go_on()
    assert stopping.wait(deadline_s(60)) == 0, place.printed("stopping")
    printed = place.printed("stopping")
    assert f"process {run.pid} asked to end" in printed
    assert "no fault of ours is on" in printed
    run.wait(60)
    variants = place.served()
    assert variants[FLAG] == "off" and not place.entries


def test_a_fault_left_on_as_asked_stays_until_it_is_healed(place: Cell):
    run = place.start("--otel-diag-skip-cleanup")
    run.wait(60)
    assert place.served()[FLAG] == VARIANT, place.output
    (entry,) = place.entries
    assert '"kept"' in entry.read_text()
    shown = place.command("heal", "--dry-run")
    assert shown.returncode == 0 and "WOULD RESTORE" in shown.stdout and f"{FLAG}={VARIANT}" in shown.stdout
    assert place.command("heal").returncode == 0
    assert until(place.as_before, 20)


def test_an_entry_without_a_guardian_and_half_written_files_are_healed_by_the_next_run(place: Cell):
    """As after a power loss: no process is left, and a file beside the entry was being written."""
    run = place.start(point="impact wait")
    there = place.reached(run)
    os.kill(there["guardian"], signal.SIGKILL)
    os.kill(run.pid, signal.SIGKILL)
    run.wait(60)
    (entry,) = place.entries
    entry.with_name("other.unfinished").write_bytes(entry.read_bytes()[:100])
    place.again()
    following = place.start()
    assert following.wait(60) == 0, place.output
    assert place.as_before()
    assert "restored" in (place.folder / "messages").read_text()
