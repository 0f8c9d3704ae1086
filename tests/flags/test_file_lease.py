"""The lease beside a document: one holder at a time, followed by another when it expires."""

import asyncio
import json
import os
import subprocess
import sys

import pytest

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.surfaces import file_lease
from pytest_otel_diag.flags.surfaces.file_lease import FileLease


@pytest.fixture
def lease(tmp_path):
    return FileLease(tmp_path / "demo.flagd.json")


async def test_it_is_one_file_that_says_who_and_is_gone_afterwards(lease):
    assert await lease.acquire("alice@host", seconds=60) is None
    assert json.loads(lease.path.read_text())["owner"] == "alice@host"
    assert lease.path.name == ".demo.flagd.json.otel-diag-lease"
    await lease.release("bob@host")
    assert await lease.acquire("bob@host", seconds=60) == "alice@host"
    await lease.release("alice@host")
    await lease.release("alice@host")
    assert list(lease.path.parent.iterdir()) == []


def aged(path, seconds):
    moment_ns = path.stat().st_mtime_ns - round(seconds * 1e9)
    os.utime(path, ns=(moment_ns, moment_ns))


async def test_a_holder_that_died_is_followed_once_its_time_has_run_out(lease):
    await lease.acquire("dead", seconds=60)
    aged(lease.path, 50)
    assert await lease.acquire("next", seconds=60) == "dead"
    aged(lease.path, 11)
    assert await lease.acquire("next", seconds=60) is None
    assert await lease.acquire("dead", seconds=60) == "next"


async def test_renewing_starts_the_time_anew(lease):
    await lease.acquire("one", seconds=60)
    aged(lease.path, 59)
    assert await lease.acquire("one", seconds=60) is None
    aged(lease.path, 59)
    assert await lease.acquire("other", seconds=60) == "one"


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'{"owner": "x"}', b'{"owner": 1, "seconds": "?", "token": 2}']
)
async def test_a_lease_that_cannot_be_read_holds_for_a_minute(lease, raw):
    lease.path.write_bytes(raw)
    assert "unknown holder" in await lease.acquire("one", seconds=60)
    aged(lease.path, 61)
    assert await lease.acquire("one", seconds=60) is None


async def test_of_many_that_follow_at_once_one_gets_it(lease):
    for turn in range(20):
        await lease.acquire("dead", seconds=60)
        aged(lease.path, 61)
        leases = [FileLease(lease.path.parent / "demo.flagd.json") for _ in range(8)]
        found = await asyncio.gather(
            *(each.acquire(f"runner-{n}", seconds=60) for n, each in enumerate(leases))
        )
        holder = json.loads(lease.path.read_text())["owner"]
        winners = [f"runner-{n}" for n, other in enumerate(found) if other is None]
        assert winners == [holder], turn
        assert {other for other in found if other is not None} <= {holder, "dead"} | set(winners)
        await lease.release(holder)


CONTENDER = """
import asyncio, sys
from pathlib import Path
from pytest_otel_diag.flags.surfaces.file_lease import FileLease
async def main():
    lease, count = FileLease(Path(sys.argv[1])), Path(sys.argv[2])
    for turn in range(30):
        while await lease.acquire(sys.argv[3], seconds=60) is not None:
            await asyncio.sleep(0.001)
        number = int(count.read_text())
        await asyncio.sleep(0.001)
        count.write_text(str(number + 1))
        await lease.release(sys.argv[3])
asyncio.run(main())
"""


def test_processes_take_turns(tmp_path):
    """A counter that is read and written under the lease loses no step."""
    count = tmp_path / "count"
    count.write_text("0")
    command = [sys.executable, "-c", CONTENDER, str(tmp_path / "demo.flagd.json"), str(count)]
    running = [subprocess.Popen([*command, f"runner-{n}"]) for n in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert count.read_text() == "90"


async def test_a_lease_that_was_renewed_meanwhile_goes_back(lease, tmp_path):
    """It had expired when it was read, and its holder renewed it before it was removed."""
    await lease.acquire("slow", seconds=60)
    aged(lease.path, 61)
    expired = lease._held()
    await lease.acquire("slow", seconds=60)
    lease._set_aside(expired, tmp_path / "aside")
    assert lease._held().owner == "slow"
    lease.path.unlink()
    lease._set_aside(expired, tmp_path / "aside")
    assert lease._held() is None


async def test_the_wait_for_a_lock_that_is_never_released_is_bounded(lease, monkeypatch):
    monkeypatch.setattr(file_lease.folder_locked.__wrapped__, "__defaults__", (0.05,))
    with file_lease.folder_locked(lease.path.parent):
        assert await lease.acquire("one", seconds=60) is None


async def test_without_locks_it_works_all_the_same(lease, monkeypatch):
    def refuse(descriptor, how):
        raise OSError("no locks here")

    monkeypatch.setattr(file_lease.fcntl, "flock", refuse)
    assert await lease.acquire("one", seconds=60) is None
    assert await lease.acquire("two", seconds=60) == "one"


async def test_a_folder_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(FlagError, match=r"cannot be used.*runs on other hosts cannot be kept out"):
        await FileLease(tmp_path / "no" / "demo.flagd.json").acquire("one", seconds=1)
