"""Output and exit codes of ``otel-diag heal`` and ``otel-diag emergency-stop``."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pytest_otel_diag.cli.app import app
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.operations import emergency
from pytest_otel_diag.undo.guardian import restore
from pytest_otel_diag.undo.heal import heal
from pytest_otel_diag.undo.journal import Entry, Journal, State, encoded
from pytest_otel_diag.undo.lease import Lease
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.processes import Process
from pytest_otel_diag.undo.verify import RestoreLimits
from tests.support.flagd import Flagd
from tests.undo import samples

QUICK = RestoreLimits(served_timeout_s=0.2, read_timeout_s=0.3)
WHO = {"==": [{"var": "who"}, "x"]}
RULE = {"if": [WHO, "on", "off"]}


@pytest.fixture(scope="module")
def flagd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flagd]:
    folder = tmp_path_factory.mktemp("healing")
    document = folder / "demo.flagd.json"
    document.write_bytes(samples.document(a="off"))
    with Flagd(document, folder / "flagd.log") as running:
        running.document = document
        yield running


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def left(state: Path, flagd: Flagd, **update: object) -> Entry:
    """Leave ``a`` on."""
    original = samples.document(a="off")
    access = FlagAddress(control=f"file:{flagd.document}", served=f"ofrep:{flagd.ofrep}")
    entry = samples.entry(identity=str(flagd.document), access=access, previous=original, **update)
    Journal(state).write(entry)
    beside = flagd.document.with_name("new")
    beside.write_bytes(samples.document(a="on"))
    beside.rename(flagd.document)
    return entry


def test_nothing_to_heal(state: Path):
    code, shown = run("heal", "--state", str(state))
    assert code == 0 and "nothing to heal" in shown


def test_healing_by_hand(state: Path, flagd: Flagd):
    left(state, flagd)
    code, shown = run("heal", "--dry-run", "--state", str(state))
    assert code == 0 and "WOULD RESTORE" in shown and "a=on" in shown
    assert flagd.document.read_bytes() != samples.document(a="off")
    code, shown = run("heal", "--state", str(state))
    assert code == 0 and "RESTORED" in shown and "left by alice" in shown
    assert flagd.document.read_bytes() == samples.document(a="off")


def test_damaged_entries_fail_the_command_and_their_documents_are_copied(state: Path, flagd: Flagd):
    entry = left(state, flagd)
    path = Journal(state).path(entry.id)
    raw = encoded(entry).replace(b'"note": ""', b'"note": "x"')
    path.write_bytes(raw)
    code, shown = run("heal", "--dry-run", "--state", str(state))
    assert code == 1 and not (state / "saved").exists()
    code, shown = run("heal", "--state", str(state))
    assert code == 1 and "DAMAGED" in shown and "was copied to" in shown
    assert (state / "saved" / "one.json").read_bytes() == entry.previous
    assert path.read_bytes() == raw
    (state / "saved" / "one.json").unlink()
    (state / "saved").rmdir()
    (state / "saved").write_text("")
    assert "could not be copied" in run("heal", "--state", str(state))[1]


async def test_flags_that_nobody_serves_are_unproven_by_force_and_failed_without(state: Path, flagd: Flagd):
    entry = left(state, flagd)
    nobody = FlagAddress(control=entry.access.control, served="ofrep:http://127.0.0.1:9")
    Journal(state).write(entry.model_copy(update={"access": nobody}))
    (failed,) = await heal(state, limits=QUICK)
    assert failed.outcome == "failed" and "A FAULT MAY STILL BE ON" in failed.detail
    (forced,) = await heal(state, limits=QUICK, force=True)
    assert forced.outcome == "unproven" and not forced.gone
    assert flagd.document.read_bytes() == samples.document(a="off")
    assert await heal(state) == []


async def test_an_entry_that_cannot_be_opened_does_not_stop_the_others_from_being_healed(
    state: Path, flagd: Flagd
):
    good = left(state, flagd, started_ns=5)
    bad = FlagAddress(control="nothing:of-the-kind", served="ofrep:http://127.0.0.1:9")
    Journal(state).write(good.model_copy(update={"id": "bad", "access": bad, "started_ns": 1}))
    assert [one.outcome for one in await heal(state)] == ["failed", "restored"]


def test_a_state_folder_that_is_none_fails_every_entry(state: Path, flagd: Flagd):
    left(state, flagd)
    (state / "leases").write_text("")
    code, shown = run("heal", "--state", str(state))
    assert code == 1 and "--otel-diag-state" in shown
    assert flagd.document.read_bytes() != samples.document(a="off")


def test_a_failed_restore_of_the_guardian_is_reported_and_keeps_the_entry(state: Path, flagd: Flagd):
    opener = "pytest_otel_diag.flags.access:open_flags"
    entry = left(state, flagd)
    assert restore.restore_watched(state, "gone", opener=opener, gone=True) == ""
    bad = FlagAddress(control="nothing:x", served="ofrep:http://127.0.0.1:9")
    Journal(state).write(entry.model_copy(update={"access": bad}))
    assert "ConfigurationError" in restore.restore_watched(state, entry.id, opener=opener, gone=True)
    Journal(state).write(entry)
    assert restore.restore_watched(state, entry.id, opener=opener, gone=False) == ""
    marked = Journal(state).read(entry.id)
    assert marked is not None and marked.state is State.RETURNED and "restored a=on" in marked.note
    assert restore.restore_watched(state, entry.id, opener=opener, gone=True) == ""
    assert Journal(state).read(entry.id) is None
    Journal(state).write(entry.model_copy(update={"state": State.KEPT}))
    assert restore.restore_watched(state, entry.id, opener=opener, gone=True) == ""
    assert Journal(state).holds(entry.id), "left on intentionally"
    assert "restored" in (state / "guardian.log").read_text()


def test_emergency_stop_without_runs(state: Path, flagd: Flagd):
    left(state, flagd)
    code, shown = run("emergency-stop", "--state", str(state))
    assert code == 0 and "RESTORED" in shown and "no fault of ours is on" in shown
    assert flagd.document.read_bytes() == samples.document(a="off")


def test_emergency_stop_needs_to_know_the_flags_to_switch_all_off(state: Path):
    with pytest.raises(ConfigurationError, match="--flags"):
        run("emergency-stop", "--all-off", "--state", str(state))


def test_all_off(state: Path, flagd: Flagd):
    body = json.loads(samples.document(a="on", b="off", quiet="off", ruled="off", other="on"))
    body["flags"]["ruled"]["targeting"] = RULE
    body["flags"]["quiet"]["targeting"] = {"if": [{"==": [{"var": "who"}, "x"]}, "off", "off"]}
    body["flags"]["ruled"]["defaultVariant"] = "on"
    body["flags"]["otherwise"] = {**body["flags"]["ruled"], "targeting": {"if": [WHO, "off", "on"]}}
    body["flags"]["deferred"] = {**body["flags"]["ruled"], "targeting": {"if": [WHO, None, "off"]}}
    body["flags"]["other"]["variants"] = {"on": True, "full": True}
    body["flags"]["gone"] = {"state": "DISABLED", "variants": samples.OFF_ON, "defaultVariant": "on"}
    beside = flagd.document.with_name("new")
    beside.write_text(json.dumps(body))
    beside.rename(flagd.document)
    flags = ("--flags", f"file:{flagd.document}", "--flagd", f"ofrep:{flagd.ofrep}")
    code, shown = run("emergency-stop", "--all-off", "--state", str(state), *flags)
    assert code == 0, shown
    assert "a: switched off" in shown and "ruled: switched off" in shown and "b: switched" not in shown
    now = json.loads(flagd.document.read_bytes())["flags"]
    assert now["a"]["defaultVariant"] == "off" and now["ruled"]["targeting"]["if"][1] == "off"
    assert now["other"]["defaultVariant"] == "on", "it cannot be off"
    assert now["otherwise"]["targeting"]["if"][1:] == ["off", "off"]
    assert now["deferred"]["targeting"]["if"][1] is None and now["deferred"]["defaultVariant"] == "off"


def test_flags_that_do_not_go_off_are_reported(state: Path, flagd: Flagd, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(emergency, "_SERVED_S", 0.5)
    body = json.loads(samples.document(a="off", odd="off"))
    body["flags"]["a"]["targeting"] = {"if": [True, {"if": [True, "on"]}]}
    body["flags"]["odd"]["targeting"] = {"fractional": [{"var": "who"}, ["on", 50], ["off", 50]]}
    beside = flagd.document.with_name("new")
    beside.write_text(json.dumps(body))
    beside.rename(flagd.document)
    flags = ("--flags", f"file:{flagd.document}", "--flagd", f"ofrep:{flagd.ofrep}")
    code, shown = run("emergency-stop", "--all-off", "--state", str(state), *flags)
    assert code == 1 and "a: MAY BE ON" in shown and "A FAULT MAY STILL BE ON" in shown


async def test_runs_are_asked_to_end_and_those_that_do_not_are_named(state: Path):
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", deaf, stdout=subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    parent = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        there = Process.of(process.pid)
        owner = samples.owner().model_copy(update={"process": there, "parent": Process.of(parent.pid)})
        elsewhere = samples.owner(host="elsewhere", boot="other")
        held = Lease.take(state, "env", owner)
        mine = Lease.take(state, "mine", Owner.here(now_ns=time.time_ns()))
        assert held is not None and mine is not None
        Journal(state).write(samples.entry(owner=elsewhere))
        events = [event async for event in emergency.stop_runs(state, wait_s=0.5)]
        running = [event.owner for event in events if isinstance(event, emergency.StillRunning)]
        assert {one.process for one in running} == {there, elsewhere.process}
        assert await parent.wait() == -15
        asked = [event for event in events if isinstance(event, emergency.StopRequested)]
        assert [(event.pid, event.outcome) for event in asked] == [
            (parent.pid, "asked to end"),
            (process.pid, "asked to end"),
            (elsewhere.process.pid, "unreachable"),
        ]
        held.release()
        mine.release()
    finally:
        process.kill()
        await process.wait()
