"""Guarded flags over a real file and a real flagd: guardian, deadline, healing, external changes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_otel_diag.errors import FlagError, Occupied, RestoreFailed
from pytest_otel_diag.flags.access import open_flags
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.model.flags import FlagChange, FlagDocument
from pytest_otel_diag.testing.flag_contract import FlagControllerContract
from pytest_otel_diag.undo.heal import HealOutcome, heal
from pytest_otel_diag.undo.journal import Entry, Journal, State
from pytest_otel_diag.undo.lease import Lease
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.processes import Process
from pytest_otel_diag.undo.session import GuardedFlags, guarded
from pytest_otel_diag.undo.settings import UndoSettings
from pytest_otel_diag.undo.verify import RestoreLimits
from tests.support.deadlines import deadline_s
from tests.support.flagd import Flagd
from tests.undo import samples
from tests.undo.cells import until

ON = FlagChange(key="a", variant="on")


@pytest.fixture(scope="module")
def flagd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flagd]:
    folder = tmp_path_factory.mktemp("undo")
    document = folder / "demo.flagd.json"
    document.write_bytes(samples.document(a="off", b="off"))
    with Flagd(document, folder / "flagd.log") as running:
        running.document = document
        yield running


@pytest.fixture
async def inner(flagd: Flagd) -> AsyncIterator[SurfaceFlags]:
    original = samples.document(a="off", b="off")
    access = FlagAddress(control=f"file:{flagd.document}", served=f"ofrep:{flagd.ofrep}")
    flags = open_flags(access, now=time.time_ns)
    await flags.restore(FlagDocument(raw=original, flags={}))
    for key in "ab":
        await served(flags, key, "off")
    yield flags
    await flags.aclose()


async def served(flags: SurfaceFlags | GuardedFlags, key: str, variant: str) -> None:
    """Wait until flagd serves the variant."""
    async with asyncio.timeout(deadline_s(20)):
        while (await flags.served(key, {})).variant != variant:  # noqa: ASYNC110 - flagd has no event for it
            await asyncio.sleep(0.02)


class Place:
    """The flags, state folder and messages of a test's sessions."""

    def __init__(self, inner: SurfaceFlags, state: Path) -> None:
        self.inner = inner
        self.state = state
        self.messages: list[str] = []
        self.journal = Journal(state)
        self.original = samples.document(a="off", b="off")

    def session(
        self, owner: Owner | None = None, **settings: object
    ) -> AbstractAsyncContextManager[GuardedFlags]:
        return guarded(
            self.inner,
            owner=owner or Owner.here(now_ns=time.time_ns()),
            state_dir=self.state,
            settings=replace(UndoSettings(lease_wait_s=0.2), **settings),
            notify=self.messages.append,
        )

    @property
    def raw(self) -> bytes:
        return Path(self.inner.identity).read_bytes()

    def left(self, **update: object) -> Entry:
        """Leave a fault on as a dead run does; return its entry."""
        update = {"identity": self.inner.identity, "access": self.inner.access, "previous": self.raw} | update
        entry = samples.entry("left", **update)
        self.journal.write(entry)
        return entry

    async def fault(self) -> None:
        await self.inner.apply(ON)
        await served(self.inner, "a", "on")


@pytest.fixture
def place(inner: SurfaceFlags, tmp_path: Path) -> Place:
    return Place(inner, tmp_path / "state")


class TestContract(FlagControllerContract):
    """Guarded flags fulfil the contract of flag controllers."""

    @pytest.fixture
    async def controller(self, place: Place) -> AsyncIterator[SettledFlags]:
        async with place.session() as flags:
            yield SettledFlags(flags)

    @pytest.fixture
    def flag(self) -> str:
        return "a"


class SettledFlags:
    """Waits until flagd has loaded a change, since the contract evaluates at once."""

    def __init__(self, flags: GuardedFlags) -> None:
        self._flags = flags
        self.document, self.restore, self.served = flags.document, flags.restore, flags.served

    async def apply(self, change: FlagChange) -> None:
        await self._flags.apply(change)
        await served(self._flags, change.key, change.variant)


async def test_journal_and_guardian_are_there_before_the_first_write(place: Place):
    async with place.session() as flags:
        assert flags.entry is None and flags.guardian.pid is None
        seen = []

        async def write(raw: bytes, *, expected: bytes) -> None:
            (entry,) = place.journal.entries()
            assert isinstance(entry, Entry)
            seen.append((entry.previous, entry.faults, Process.of(flags.guardian.pid or 0).alive))
            await real(raw, expected=expected)

        real, place.inner.surface.write = place.inner.surface.write, write
        await flags.apply(ON)
        assert seen == [(place.original, "a=on", True)]
        await served(flags, "a", "on")
        await flags.apply(FlagChange(key="b", variant="on"))
        await flags.apply(FlagChange(key="a", variant="off"))
        (entry,) = place.journal.entries()
        assert isinstance(entry, Entry)
        assert {change.key: change.variants for change in entry.changes} == {"b": ("on",), "a": ("on", "off")}
        assert entry.deadline_ns - entry.started_ns == 3600 * 10**9
        guardian = Process.of(flags.guardian.pid or 0)
    assert place.raw == place.original and not list(place.journal.entries())
    assert guardian.alive is False
    assert not place.messages


async def test_a_fault_that_an_exception_leaves_on_is_undone_on_exit(place: Place):
    with pytest.raises(LookupError):
        async with place.session() as flags:
            await flags.apply(ON)
            raise LookupError
    assert place.raw == place.original
    assert (await place.inner.served("a", {})).variant == "off"


async def test_a_guardian_that_dies_or_hangs_is_replaced_before_anything_else_happens(place: Place):
    async with place.session() as flags:
        await flags.apply(ON)
        first = flags.guardian.pid or 0
        os.kill(first, signal.SIGKILL)
        assert await asyncio.to_thread(until, lambda: not flags.guardian.running, 10)
        await flags.served("a", {})
        second = flags.guardian.pid or 0
        assert second != first and flags.guardian.running
    assert place.raw == place.original


async def test_signals_to_the_group_and_to_itself_do_not_end_a_guardian(place: Place):
    async with place.session() as flags:
        await flags.apply(ON)
        pid = flags.guardian.pid or 0
        assert os.getsid(pid) == pid, "a separate process session"
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.kill(pid, number)
        await asyncio.sleep(0.2)
        await flags.apply(ON)
        assert flags.guardian.pid == pid


async def test_a_deadline_that_passes_ends_the_fault_and_the_session_hears_of_it(place: Place):
    async with place.session(deadline_s=deadline_s(1.0)) as flags:
        await flags.apply(ON)
        await served(place.inner, "a", "off")
        assert place.raw == place.original

        def returned() -> bool:
            return any(isinstance(e, Entry) and e.state is State.RETURNED for e in place.journal.entries())

        assert await asyncio.to_thread(until, returned, 20)
        for call in (flags.document(), flags.served("a", {}), flags.apply(ON)):
            with pytest.raises(FlagError, match=r"exceeded its deadline.*restored a=on"):
                await call
        assert place.raw == place.original
        await flags.restore(FlagDocument(raw=place.original, flags={}))
    assert not list(place.journal.entries())
    assert "exceeded its deadline" in (place.state / "guardian.log").read_text()


async def test_a_write_after_an_external_restore_is_undone_too(place: Place):
    async with place.session() as flags:
        await flags.apply(ON)
        entry = flags.entry
        assert entry is not None

        async def late(change: FlagChange) -> None:
            place.journal.close(entry)  # as emergency-stop does, while the write is under way
            await real(change)

        real, place.inner.apply = place.inner.apply, late
        with pytest.raises(FlagError, match="restored from outside"):
            await flags.apply(FlagChange(key="b", variant="on"))
        assert place.raw == place.original
    assert place.raw == place.original


async def test_external_changes_survive_the_undo(place: Place):
    async with place.session() as flags:
        before = await flags.document()
        await place.inner.apply(FlagChange(key="b", variant="on"))  # between preflight and first write
        await flags.apply(ON)
        await flags.restore(before)
        assert json.loads(place.raw)["flags"]["b"]["defaultVariant"] == "on"
        await flags.apply(ON)
        await place.inner.apply(FlagChange(key="b", variant="off"))
        await flags.restore(before)
        now = (await flags.document()).flags
        assert (now["a"].default_variant, now["b"].default_variant) == ("off", "off")
        await place.inner.apply(FlagChange(key="b", variant="on"))
        await flags.restore(before)
        assert json.loads(place.raw)["flags"]["b"]["defaultVariant"] == "on", "nothing of ours was on"
    assert [text for text in place.messages if "between the preflight and the first write" in text]
    assert [text for text in place.messages if "EXTERNAL CHANGES" in text and "flag b" in text]
    assert [text for text in place.messages if "left as it is" in text]


async def test_a_fault_that_is_kept_keeps_the_next_session_out_until_it_is_healed(place: Place):
    async with place.session(keep=True) as flags:
        await flags.apply(ON)
    assert place.raw != place.original and "otel-diag heal --state" in place.messages[-1]
    with pytest.raises(Occupied, match=r"left on intentionally by .*otel-diag heal"):
        async with place.session():
            raise AssertionError
    (healed,) = await heal(place.state)
    assert healed.gone and place.raw == place.original
    async with place.session():
        pass


async def test_what_a_dead_run_left_is_healed_before_anything_else(place: Place):
    place.left()
    await place.fault()
    async with place.session():
        assert place.raw == place.original
        assert not list(place.journal.entries())
    (messages,) = place.messages
    assert "restored a=on" in messages and "alice on" in messages


async def test_a_fault_of_a_dead_run_that_cannot_be_undone_keeps_sessions_out(place: Place):
    place.left(previous=b"not a document")
    with pytest.raises(RestoreFailed, match=r"A FAULT MAY STILL BE ON.*otel-diag heal --state"):
        async with place.session():
            raise AssertionError
    assert list(place.journal.entries())


@pytest.mark.parametrize(
    ("process", "message"),
    [
        ({"host": "elsewhere", "boot": "other"}, "may still run"),
        ({"pid": os.getppid(), "started": Process.of(os.getppid()).started}, "may still run"),
    ],
)
async def test_owners_that_may_live_are_left_alone(place: Place, process: dict[str, str], message: str):
    place.left(owner=samples.owner(**process))
    with pytest.raises(Occupied, match=message):
        async with place.session():
            raise AssertionError


async def test_damaged_entries_are_reported_and_stop_sessions_of_their_environment(place: Place):
    entry = place.left()
    path = place.journal.path(entry.id)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FlagError, match="cannot be used"):
        async with place.session():
            raise AssertionError
    path.write_bytes(b"")
    async with place.session():
        pass
    assert "it is empty" in place.messages[0] and path.exists()


async def test_entries_of_other_environments_are_ignored(place: Place):
    place.left(identity="/another")
    async with place.session() as flags:
        await flags.apply(ON)
    assert [entry.identity for entry in place.journal.entries() if isinstance(entry, Entry)] == ["/another"]


async def test_a_restore_that_fails_is_loud_and_left_to_the_guardian(place: Place, flagd: Flagd):
    limits = RestoreLimits(served_timeout_s=0.3, read_timeout_s=0.5)
    with pytest.raises(RestoreFailed, match=r"A FAULT MAY STILL BE ON.*otel-diag heal --state"):
        async with place.session(limits=limits) as flags:
            await flags.apply(ON)
            await served(flags, "a", "on")
            flagd.stop()
    try:
        assert list(place.journal.entries())
        assert Lease.take(place.state, place.inner.identity, Owner.here(now_ns=1)) is None
    finally:
        flagd.start()
    assert await asyncio.to_thread(until, lambda: not list(place.journal.entries()), 60)
    assert place.raw == place.original
    async with place.session(lease_wait_s=20.0):
        pass


async def test_nothing_is_changed_without_a_guardian(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pytest_otel_diag.undo.guardian.client.sys.executable", "/bin/false")
    async with place.session() as flags:
        with pytest.raises(FlagError, match="the guardian did not answer"):
            await flags.apply(ON)
        monkeypatch.setattr("pytest_otel_diag.undo.guardian.client.sys.executable", "/nowhere")
        with pytest.raises(FlagError, match="no guardian could be started"):
            await flags.apply(ON)
        assert flags.entry is None and not list(place.journal.entries())
    assert place.raw == place.original


async def test_a_lease_lost_to_another_host_stops_changes(place: Place):
    async with place.session() as flags:
        flags._undo.renewal.lost = "bob@elsewhere"
        with pytest.raises(Occupied, match="was taken by bob@elsewhere"):
            await flags.apply(ON)
    assert place.raw == place.original


async def test_a_write_that_hangs_is_given_up(place: Place):
    async with place.session(limits=RestoreLimits(write_timeout_s=2.0)) as flags:

        async def hang(change: FlagChange) -> None:
            await asyncio.sleep(60)

        place.inner.apply = hang
        with pytest.raises(FlagError, match="could not be written"):
            await flags.apply(ON)


async def test_a_cancellation_waits_for_the_write_that_was_begun(place: Place):
    async with place.session() as flags:
        begun, go = asyncio.Event(), asyncio.Event()

        async def slow(change: FlagChange) -> None:
            begun.set()
            await go.wait()
            await real(change)

        real, place.inner.apply = place.inner.apply, slow
        task = asyncio.create_task(flags.apply(ON))
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert place.raw != place.original
    assert place.raw == place.original


async def test_healing_reports_what_it_leaves(place: Place):
    place.left()
    assert [one.outcome for one in await heal(place.state, dry_run=True)] == [HealOutcome.WOULD_RESTORE]
    held = Lease.take(place.state, place.inner.identity, Owner.here(now_ns=1))
    assert held is not None
    assert [one.outcome for one in await heal(place.state)] == [HealOutcome.ALIVE]
    held.release()
    place.left(owner=samples.owner(host="elsewhere", boot="other"))
    (other,) = await heal(place.state)
    assert other.outcome is HealOutcome.OTHER_HOST and "--force" in other.detail
    place.left(owner=samples.owner(pid=os.getppid(), started=Process.of(os.getppid()).started))
    assert [one.outcome for one in await heal(place.state)] == [HealOutcome.ALIVE]
    await place.fault()
    (forced,) = await heal(place.state, force=True)
    assert forced.gone and place.raw == place.original
    assert await heal(place.state) == []


async def test_a_deleted_state_folder_is_reported_and_created_again(place: Place):
    async with place.session() as flags:
        await flags.apply(ON)
        shutil.rmtree(place.state)
        await flags.served("a", {})
        assert [text for text in place.messages if "nobody closed it; it is written again" in text]
        assert list(place.journal.entries())
        shutil.rmtree(place.state)
    assert place.raw == place.original and not list(place.journal.entries())
    assert [text for text in place.messages if "was missing at the end" in text]


async def test_a_fork_of_the_run_changes_nothing_and_cleans_nothing_up(place: Place):
    async with place.session() as flags:
        await flags.apply(ON)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                flags.finish().send(None)
            except StopIteration as done:
                code = 2 if done.value else 1
            try:
                flags.served("a", {}).send(None)
            except FlagError:
                code += 5
            os._exit(code)
        ended = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(ended[1]) == 7
        assert flags.guardian.running and list(place.journal.entries())
    assert place.raw == place.original


async def test_a_wall_clock_that_is_set_does_not_move_the_guardians_deadline(place: Place):
    wall = [time.time_ns()]
    async with guarded(
        place.inner,
        owner=Owner.here(now_ns=wall[0]),
        state_dir=place.state,
        settings=UndoSettings(lease_wait_s=0.2, deadline_s=600.0),
        now=lambda: wall[0],
    ) as flags:
        await flags.apply(ON)
        wall[0] += 10**15
        await flags.apply(FlagChange(key="b", variant="on"))  # sends the guardian the time left again
        await asyncio.sleep(0.5)
        (entry,) = place.journal.entries()
        assert isinstance(entry, Entry) and entry.state is State.OPEN
        await flags.document()
    assert place.raw == place.original
