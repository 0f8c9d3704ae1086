"""One run at a time, and a waiting run learns who holds the lease."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextvars import copy_context
from pathlib import Path

import pytest

from pytest_otel_diag import ports
from pytest_otel_diag.errors import FlagError, Occupied
from pytest_otel_diag.undo import lease
from pytest_otel_diag.undo.lease import Lease
from pytest_otel_diag.undo.owner import Owner, dead_here
from pytest_otel_diag.undo.processes import Process
from pytest_otel_diag.undo.remote_lease import hold_remote_lease
from tests.support.deadlines import eventually_async
from tests.undo import samples
from tests.undo.cells import until

HOLDER = """
import sys, time
from pathlib import Path
from pytest_otel_diag.undo.lease import Lease, Lease
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.remote_lease import hold_remote_lease
held = Lease.take(Path(sys.argv[1]), "env", Owner.here(now_ns=1, run_id="run-1"))
print("held" if held else "free", flush=True)
time.sleep(60)
"""


def here() -> Owner:
    return Owner.here(now_ns=time.time_ns())


def another(state: Path) -> subprocess.Popen[str]:
    """Start a process that holds the lease of ``env``."""
    command = [sys.executable, "-c", HOLDER, str(state)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_lease_has_one_holder_until_it_is_released(tmp_path: Path):
    first = lease.Lease.take(tmp_path, "env", here())
    assert first is not None
    assert lease.Lease.take(tmp_path, "env", here()) is None
    other = lease.Lease.take(tmp_path, "other", here())
    assert other is not None
    assert {owner.process for owner in lease.lease_holders(tmp_path)} == {Process.this()}
    first.release()
    other.release()
    assert list(lease.lease_holders(tmp_path)) == []
    again = lease.Lease.take(tmp_path, "env", here())
    assert again is not None
    again.release()


async def test_a_waiting_run_learns_the_holder_and_is_refused_in_the_end(tmp_path: Path):
    process = another(tmp_path)
    messages: list[str] = []
    shown: list[str] = []
    try:
        context = copy_context()
        context.run(ports.waiting.set, shown.append)
        waiting = asyncio.get_running_loop().create_task(
            lease.wait_for(tmp_path, "env", here(), wait_s=0.3, notify=messages.append), context=context
        )
        with pytest.raises(Occupied, match=rf"process {process.pid}, run run-1.*--otel-diag-lease-wait-s"):
            await waiting
        assert len(messages) == 1 and f"process {process.pid}" in messages[0]
        assert shown[-1] == "" and "is held by" in shown[0]
        process.kill()
        process.wait()
        got = await lease.wait_for(tmp_path, "env", here(), wait_s=10, notify=messages.append)
        got.release()
    finally:
        process.kill()
        process.communicate()


def test_a_child_that_inherits_the_lease_holds_it_until_it_ends(tmp_path: Path):
    mine = lease.Lease.take(tmp_path, "env", samples.owner())
    assert mine is not None
    with subprocess.Popen(["sleep", "60"], pass_fds=(mine.descriptor,)) as child:
        mine.leave()
        assert lease.Lease.take(tmp_path, "env", here()) is None
        assert "its guardian is restoring the flags" in lease.describe_holder(
            lease.lease_path(tmp_path, "env")
        )
        child.kill()
    taken = lease.Lease.take(tmp_path, "env", here())
    assert taken is not None
    taken.release()


def test_a_holder_that_has_not_signed_is_reported_as_such(tmp_path: Path):
    mine = lease.Lease.take(tmp_path, "env", here())
    assert mine is not None
    path = lease.lease_path(tmp_path, "env")
    path.write_text("{")
    assert "has not signed" in lease.describe_holder(path)
    assert list(lease.lease_holders(tmp_path)) == []
    mine.release()


def test_a_folder_that_is_no_use_is_named(tmp_path: Path):
    (tmp_path / "leases").write_text("")
    with pytest.raises(FlagError, match="--otel-diag-state"):
        lease.Lease.take(tmp_path, "env", here())


class Remote:
    """A remote lease, as a server stores it."""

    def __init__(self) -> None:
        self.owner = ""
        self.until_s = 0.0
        self.renewals = 0
        self.broken = False

    async def acquire(self, owner: str, *, seconds: float) -> str | None:
        if self.broken:
            raise FlagError("no connection")
        now = time.monotonic()
        if self.owner not in {"", owner} and now < self.until_s:
            return self.owner
        self.renewals += self.owner == owner
        self.owner, self.until_s = owner, now + seconds
        return None

    async def release(self, owner: str) -> None:
        if self.broken:
            raise FlagError("no connection")
        if self.owner == owner:
            self.owner = ""


async def test_a_remote_lease_is_renewed_and_released():
    remote, me = Remote(), here()
    async with hold_remote_lease(remote, me, wait_s=1, notify=print, seconds=0.15) as renewal:
        assert await eventually_async(lambda: remote.renewals >= 2)
        assert remote.owner == me.label and not renewal.lost
    assert remote.owner == ""
    async with hold_remote_lease(None, me, wait_s=1, notify=print) as renewal:
        assert not renewal.lost


async def test_a_remote_lease_that_is_kept_expires_by_itself():
    remote, me = Remote(), here()
    async with hold_remote_lease(remote, me, wait_s=1, notify=print) as renewal:
        renewal.keep = True
    assert remote.owner == me.label


async def test_a_remote_lease_is_waited_for_then_refused():
    remote, messages = Remote(), []
    await remote.acquire("bob@elsewhere/12/99", seconds=60)
    with pytest.raises(Occupied, match="bob@elsewhere/12/99"):
        async with hold_remote_lease(remote, here(), wait_s=0.05, notify=messages.append):
            raise AssertionError
    assert len(messages) == 1
    remote.until_s = 0.0
    async with hold_remote_lease(remote, here(), wait_s=0.05, notify=messages.append):
        assert remote.owner == here().label


async def test_the_lease_of_a_dead_run_of_this_machine_is_taken_over():
    remote, messages = Remote(), []
    await remote.acquire(samples.owner().label, seconds=60)
    async with hold_remote_lease(remote, here(), wait_s=0, notify=messages.append):
        assert remote.owner == here().label
    assert messages == [f"taking over the lease of {samples.owner().label}, which has ended"]


async def test_a_lost_remote_lease_is_noticed():
    remote, messages = Remote(), []
    async with hold_remote_lease(remote, here(), wait_s=0, notify=messages.append, seconds=0.1) as renewal:
        remote.owner, remote.until_s = "bob", time.monotonic() + 60
        assert await asyncio.to_thread(until, lambda: renewal.lost, 10)
        assert renewal.lost == "bob"
        remote.owner = ""
        assert await asyncio.to_thread(until, lambda: not renewal.lost, 10)
        remote.broken = True
        assert await asyncio.to_thread(until, lambda: renewal.lost, 10)
        assert "could not be renewed" in renewal.lost
    assert "could not be released (no connection)" in messages[-1]


@pytest.mark.parametrize(
    "text", ["", "bob", "bob@elsewhere/12/99", "bob@{host}/x/1", "bob@{host}/12/", "{me}"]
)
def test_labels_that_do_not_prove_a_death(text: str):
    me = here()
    assert not dead_here(text.format(host=me.process.host, me=me.label))


def test_processes_are_distinguished_from_later_ones_with_the_same_id():
    with subprocess.Popen(["sleep", "60"]) as child:
        process = Process.of(child.pid)
        assert process.alive is True and process.here
        assert Process(process.host, process.boot, process.namespace, process.pid, "0").alive is False
        assert Process("elsewhere", process.boot, process.namespace, child.pid, process.started).alive is None
        assert Process(process.host, process.boot, "pid:[1]", child.pid, process.started).alive is None
        assert Process(process.host, "before", process.namespace, child.pid, process.started).alive is False
        os.kill(child.pid, signal.SIGKILL)
        assert until(lambda: process.alive is False, 10), "a process that waits to be collected has ended"
    assert not process.send(signal.SIGTERM)
    assert Process.of(child.pid).started == ""


def test_an_owner_says_who_and_what_without_passwords(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["/bin/pytest", "--store=clickhouse://u:secret@host/db"])
    me = Owner.here(now_ns=1_700_000_000 * 10**9, run_id="r", worker="gw1")
    assert "secret" not in me.sentence and "pytest --store=clickhouse://***@host/db" in me.sentence
    assert "2023-11-14 22:13:20 UTC" in me.sentence
    monkeypatch.setattr(sys, "argv", ["/site-packages/pytest/__main__.py", "-q"])
    assert Owner.here(now_ns=1).command == "pytest -q"
    assert me.parent is not None and me.parent.pid == os.getppid()
    assert Owner.here(now_ns=1).parent is None


def test_a_forked_child_does_not_hold_the_lock_and_cannot_give_it_back(tmp_path):
    lease = Lease.take(tmp_path, "env", Owner.here(now_ns=1))
    assert lease is not None
    source, other = os.pipe()
    child = os.fork()
    if child == 0:
        lease.release()
        lease.leave()
        os.write(other, str(lease.descriptor).encode())
        time.sleep(60)
        os._exit(0)
    try:
        assert os.read(source, 9) == b"-1"
        assert Lease.take(tmp_path, "env", Owner.here(now_ns=1)) is None, "still the run's"
        lease.leave()
        again = Lease.take(tmp_path, "env", Owner.here(now_ns=1))
        assert again is not None, "the child holds nothing"
        again.release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(source)
        os.close(other)
