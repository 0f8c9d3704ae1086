"""Files that are replaced by pipes, devices, links and giants: nothing hangs, and nothing else is touched."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from pytest_otel_diag.errors import FlagError, OtelDiagError, RecordingError, RestoreFailed
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.flags.surfaces import file as flagd_file
from pytest_otel_diag.flags.surfaces.file import FileSurface
from pytest_otel_diag.flags.surfaces.file_lease import FileLease
from pytest_otel_diag.model.flags import FlagChange
from pytest_otel_diag.operations.emergency import stop_runs
from pytest_otel_diag.recordings.format.reader import read_recording
from pytest_otel_diag.undo import lease, trust
from pytest_otel_diag.undo.disk import Disk
from pytest_otel_diag.undo.guardian.log import LOG, log
from pytest_otel_diag.undo.guardian.restore import restore_watched
from pytest_otel_diag.undo.heal import Healed, HealOutcome, heal
from pytest_otel_diag.undo.journal import Foreign, Journal, encoded
from pytest_otel_diag.undo.lease import Lease, lease_path
from pytest_otel_diag.undo.restore import restore_entry
from pytest_otel_diag.undo.session import guarded
from pytest_otel_diag.undo.settings import UndoSettings
from pytest_otel_diag.undo.verify import RestoreLimits
from tests.undo import samples
from tests.undo.hostile import STATES, in_time, put

QUICK = RestoreLimits(served_timeout_s=0.1, read_timeout_s=5, settle_s=0.0, attempts=1)
PRECIOUS = b"root:x:0:0:root:/root:/bin/sh\n"
OTHER_USER = 12_345
every_state = pytest.mark.parametrize("state", STATES)


class FileReader(samples.MemoryReader):
    """Answers the fault until the file holds the original."""

    def __init__(self, path: Path) -> None:
        super().__init__(samples.MemorySurface())
        self._path = path

    async def served(self, key, context):
        self.surface.raw = self._path.read_bytes()
        return await super().served(key, context)


def flags_of(path: Path) -> SurfaceFlags:
    return SurfaceFlags(FileSurface(path, settle_s=0.05), FileReader(path), now=time.time_ns)


def left(state_dir: Path, flag_file: Path, **update: object):
    """Leave a journal entry of a dead run for the flag file."""
    access = FlagAddress(control=f"file:{flag_file}", served="ofrep:http://127.0.0.1:1")
    entry = samples.entry(identity=str(flag_file), access=access, **update)
    Journal(state_dir).write(entry)
    return entry


def healed(state_dir: Path, **options: object) -> Healed:
    def opener(access, *, now):
        return flags_of(Path(access.control.reveal().removeprefix("file:")))

    found = in_time(lambda: asyncio.run(heal(state_dir, opener=opener, limits=QUICK, **options)))
    assert isinstance(found, list), found
    (one,) = found
    return one


def foreign(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the file or folder belong to another user."""
    if os.geteuid() == 0:
        os.chown(path, OTHER_USER, OTHER_USER)
    else:
        monkeypatch.setattr(trust.os, "geteuid", lambda: OTHER_USER)


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith(".tmp")]


@every_state
def test_a_flag_file_that_is_no_file_fails_the_restore_and_stays(state: str, tmp_path: Path):
    flag_file = tmp_path / "demo.flagd.json"
    put(state, flag_file)
    before = flag_file.lstat()
    left(tmp_path / "state", flag_file)
    one = healed(tmp_path / "state")
    assert one.outcome is HealOutcome.FAILED and "A FAULT MAY STILL BE ON" in one.detail
    assert flag_file.lstat().st_ino == before.st_ino
    entry = samples.entry(identity=str(flag_file))
    flags = flags_of(flag_file)
    error = in_time(lambda: asyncio.run(restore_entry(entry, flags, limits=QUICK)))
    assert isinstance(error, RestoreFailed)
    assert not leftovers(tmp_path)


@every_state
def test_a_journal_entry_that_is_no_file_is_reported(state: str, tmp_path: Path):
    journal = Journal(tmp_path)
    put(state, journal.path("one"))
    assert healed(tmp_path).outcome is HealOutcome.DAMAGED
    assert isinstance(in_time(lambda: journal.read("one")), FlagError)
    kept = encoded(samples.entry(access=FlagAddress(control="class:x:y", served="ofrep:http://localhost:1")))
    opener = "tests.undo.test_hostile_states:no_flags"
    problem = in_time(lambda: restore_watched(tmp_path, "one", opener=opener, gone=True, copy=kept))
    assert problem == "one: FlagError: the guardian's own copy was used"


def no_flags(access, *, now):
    raise FlagError("the guardian's own copy was used")


@every_state
def test_a_journal_that_cannot_be_written_changes_no_flag(state: str, tmp_path: Path):
    journal = Journal(tmp_path)
    put(state, journal.path("one").with_suffix(".unfinished"))
    error = in_time(lambda: journal.write(samples.entry()))
    assert error is None if state == "sparse file" else isinstance(error, FlagError)
    put(state, tmp_path / LOG)
    error = in_time(lambda: log(tmp_path, "text"))
    assert error is None if state == "sparse file" else isinstance(error, OSError)


@every_state
def test_a_lease_that_is_no_file_is_an_error_that_names_it(state: str, tmp_path: Path):
    path = lease_path(tmp_path, "env")
    put(state, path)
    taken = in_time(lambda: Lease.take(tmp_path, "env", samples.owner()))
    if state == "sparse file":
        assert isinstance(taken, Lease) and path.stat().st_size < 10_000
        taken.release()
    else:
        assert isinstance(taken, FlagError) and str(path) in str(taken)
    put(state, path)
    assert in_time(lambda: lease.holder(path)) is None
    assert in_time(lambda: list(lease.lease_holders(tmp_path))) == []


@every_state
def test_a_lease_beside_the_flag_file_that_is_no_file(state: str, tmp_path: Path):
    remote = FileLease(tmp_path / "demo.flagd.json")
    put(state, remote.path)
    taken = in_time(lambda: asyncio.run(remote.acquire("me", seconds=5)))
    if state == "sparse file":
        assert "unknown holder" in str(taken)
    else:
        assert isinstance(taken, FlagError) and str(remote.path) in str(taken)
    released = in_time(lambda: asyncio.run(remote.release("me")))
    assert released is None or isinstance(released, FlagError)


@every_state
def test_a_manifest_of_a_recording_that_is_no_file(state: str, tmp_path: Path):
    put(state, tmp_path / "recording.json")
    error = in_time(lambda: read_recording(tmp_path))
    assert isinstance(error, RecordingError) and "recording.json" in str(error)


@pytest.mark.parametrize("age_s", [-1e6, 1e6])
async def test_a_lease_with_an_impossible_time_does_not_hold_for_ever(age_s: float, tmp_path: Path):
    remote = FileLease(tmp_path / "demo.flagd.json")
    remote.path.write_text('{"owner": "other", "seconds": Infinity, "token": "t"}')
    os.utime(remote.path, (time.time() - age_s, time.time() - age_s))
    assert await remote.acquire("me", seconds=5) is None


@pytest.mark.parametrize("raw", [PRECIOUS, b"[1]", b'{"name": "x"}', b"key: value\n", b"\x7fELF\x02\x01"])
@pytest.mark.parametrize("how", ["replaced", "linked"])
def test_what_is_no_flagd_document_is_never_replaced(raw: bytes, how: str, tmp_path: Path):
    flag_file, other = tmp_path / "demo.flagd.json", tmp_path / "precious"
    entry = left(tmp_path / "state", flag_file)
    if how == "linked":
        other.write_bytes(raw)
        flag_file.symlink_to(other)
    else:
        flag_file.write_bytes(raw)
    one = healed(tmp_path / "state", force=True)
    assert one.outcome is HealOutcome.FAILED
    assert "is no flagd document" in one.detail or "does not hold a flagd document" in one.detail
    assert flag_file.read_bytes() == raw
    assert Journal(tmp_path / "state").holds(entry.id)


def test_a_link_to_nothing_creates_nothing(tmp_path: Path):
    flag_file = tmp_path / "demo.flagd.json"
    left(tmp_path / "state", flag_file)
    flag_file.symlink_to(tmp_path / "cron.d")
    one = healed(tmp_path / "state")
    assert one.outcome is HealOutcome.FAILED and "is no flagd document" in one.detail
    assert not (tmp_path / "cron.d").exists()


@pytest.mark.parametrize(
    "damage", [b"", b"\0" * 512, b"{}", samples.document(a="on")[:40], b'\xef\xbb\xbf{"flags": {', b'{ "fl']
)
def test_a_damaged_document_is_replaced(damage: bytes, tmp_path: Path):
    flag_file = tmp_path / "demo.flagd.json"
    left(tmp_path / "state", flag_file)
    flag_file.write_bytes(damage)
    one = healed(tmp_path / "state")
    assert one.outcome is HealOutcome.RESTORED, one.detail
    assert flag_file.read_bytes() == samples.document(a="off")


def entry_with_code(tmp_path: Path):
    """Return an entry that would create a file if its command were run."""
    trap = tmp_path / "trap"
    access = FlagAddress(control=f"command:/usr/bin/touch {trap}", served="ofrep:http://127.0.0.1:1")
    return samples.entry(access=access), trap


@pytest.mark.parametrize("which", ["entry", "journal", "state"])
@pytest.mark.parametrize("force", [False, True])
def test_code_of_another_user_is_not_run(
    which: str, force: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    entry, trap = entry_with_code(tmp_path)
    journal = Journal(tmp_path / "state")
    journal.write(entry)
    place = {"entry": journal.path(entry.id), "journal": journal.folder, "state": tmp_path / "state"}[which]
    foreign(place, monkeypatch)
    (one,) = asyncio.run(heal(tmp_path / "state", force=force, limits=QUICK))
    assert one.outcome is HealOutcome.FOREIGN and not one.gone
    assert f"belongs to user {place.stat().st_uid}" in one.detail and "/usr/bin/touch" not in one.detail
    assert not trap.exists()


@pytest.mark.parametrize("which", ["entry", "journal", "state"])
@pytest.mark.parametrize("bit", [stat.S_IWGRP, stat.S_IWOTH])
def test_code_that_others_could_have_written_is_not_run(which: str, bit: int, tmp_path: Path):
    entry, trap = entry_with_code(tmp_path)
    journal = Journal(tmp_path / "state")
    journal.write(entry)
    place = {"entry": journal.path(entry.id), "journal": journal.folder, "state": tmp_path / "state"}[which]
    place.chmod(place.stat().st_mode | bit)
    (one,) = asyncio.run(heal(tmp_path / "state", force=True, limits=QUICK))
    assert one.outcome is HealOutcome.FOREIGN and f"chmod go-w {place}" in one.detail
    assert not trap.exists()
    with pytest.raises(FlagError, match=r"not trusted|cannot be written"):
        Journal(tmp_path / "state").read(entry.id) or Journal(tmp_path / "state").write(entry)


def test_a_journal_folder_or_entry_that_is_a_link_is_not_followed(tmp_path: Path):
    entry, trap = entry_with_code(tmp_path)
    elsewhere = Journal(tmp_path / "elsewhere")
    elsewhere.write(entry)
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "journal").symlink_to(elsewhere.folder)
    (one,) = asyncio.run(heal(state, limits=QUICK))
    assert one.outcome is HealOutcome.FOREIGN and "symbolic link" in one.detail
    (state / "journal").unlink()
    (state / "journal").mkdir(mode=0o700)
    (state / "journal" / "one.json").symlink_to(elsewhere.path(entry.id))
    (one,) = asyncio.run(heal(state, limits=QUICK))
    assert one.outcome is HealOutcome.DAMAGED and "symbolic link" in one.detail
    assert not trap.exists()


async def test_processes_that_another_user_named_get_no_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sent: list[int] = []
    monkeypatch.setattr("pytest_otel_diag.undo.processes.os.kill", lambda pid, number: sent.append(pid))
    alive = samples.owner(os.getppid(), started=lease.Process.of(os.getppid()).started)
    held = Lease.take(tmp_path, "env", alive)
    assert held is not None
    foreign(held.path, monkeypatch)
    assert [event async for event in stop_runs(tmp_path, wait_s=0.0)] == []
    held.release()
    assert sent == []


def test_a_state_folder_that_others_can_write_refuses_the_session(tmp_path: Path):
    flag_file, state = tmp_path / "demo.flagd.json", tmp_path / "state"
    flag_file.write_bytes(samples.document(a="off"))
    state.mkdir()
    state.chmod(0o777)

    async def session() -> None:
        async with guarded(flags_of(flag_file), owner=samples.owner(), state_dir=state) as flags:
            await flags.apply(FlagChange(key="a", variant="on"))

    with pytest.raises(FlagError, match=rf"chmod go-w {state}.*--otel-diag-state"):
        asyncio.run(session())
    assert flag_file.read_bytes() == samples.document(a="off")


class FullDisk(Disk):
    """A disk without space."""

    def write(self, path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_on_a_full_disk_flags_are_not_changed_and_entries_can_be_closed(tmp_path: Path):
    with pytest.raises(FlagError, match=r"No space left.*nothing was changed"):
        Journal(tmp_path, disk=FullDisk()).write(samples.entry())
    Journal(tmp_path).write(samples.entry())
    Journal(tmp_path, disk=FullDisk()).close(samples.entry())
    assert list(Journal(tmp_path).entries()) == []


@pytest.mark.parametrize("step", ["folder", "write", "sync", "rename"])
async def test_every_session_on_a_full_disk_ends_in_an_error_of_ours(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    flag_file = tmp_path / "demo.flagd.json"
    flag_file.write_bytes(samples.document(a="off"))

    def full(self, *arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Disk, step, full)
    monkeypatch.setattr(lease.os, "pwrite", full)
    settings = UndoSettings(limits=QUICK)
    with pytest.raises(OtelDiagError, match="No space left"):
        async with guarded(
            flags_of(flag_file), owner=samples.owner(), state_dir=tmp_path / "state", settings=settings
        ) as flags:
            await flags.apply(FlagChange(key="a", variant="on"))
    assert flag_file.read_bytes() == samples.document(a="off")


def test_an_entry_that_cannot_be_deleted_does_not_hide_that_the_flags_are_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    flag_file = tmp_path / "demo.flagd.json"
    flag_file.write_bytes(samples.document(a="on"))
    left(tmp_path / "state", flag_file)

    def read_only(self, path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Disk, "remove", read_only)
    one = healed(tmp_path / "state")
    assert one.gone and "Read-only file system" in one.detail


async def test_a_read_that_hangs_is_left_behind_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flag_file, release = tmp_path / "demo.flagd.json", threading.Event()
    flag_file.write_bytes(samples.document(a="off"))
    monkeypatch.setattr(FileSurface, "_read_once", lambda self: release.wait() and (b"", None))
    entry = samples.entry(identity=str(flag_file))
    limits = RestoreLimits(read_timeout_s=0.05, attempts=1)
    with pytest.raises(RestoreFailed, match="TimeoutError"):
        await restore_entry(entry, flags_of(flag_file), limits=limits)
    release.set()


async def test_a_write_that_hangs_is_left_behind_and_replaces_nothing_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    flag_file, hanging, release = tmp_path / "demo.flagd.json", threading.Event(), threading.Event()
    flag_file.write_bytes(samples.document(a="on"))
    ended = threading.Event()
    copy, replace_file = FileSurface._copy_metadata, FileSurface._replace

    def hang(self, *arguments):
        hanging.set()
        release.wait()
        return copy(self, *arguments)

    def replaced(self, *arguments):
        try:
            return replace_file(self, *arguments)
        finally:
            ended.set()

    monkeypatch.setattr(flagd_file, "_GRACE_S", 0.05)
    monkeypatch.setattr(FileSurface, "_copy_metadata", hang)
    monkeypatch.setattr(FileSurface, "_replace", replaced)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await FileSurface(flag_file).overwrite(samples.document(a="off"))
    assert await asyncio.to_thread(hanging.wait, 5)
    release.set()
    assert await asyncio.to_thread(ended.wait, 5)
    assert flag_file.read_bytes() == samples.document(a="on")
    assert not leftovers(tmp_path)


def test_the_lease_of_a_killed_run_goes_with_its_fault(tmp_path: Path):
    flag_file = tmp_path / "demo.flagd.json"
    for undo in ("heal", "guardian"):
        flag_file.write_bytes(samples.document(a="on"))
        entry = left(tmp_path / "state", flag_file)
        remote = FileLease(flag_file)
        assert asyncio.run(remote.acquire(entry.owner.label, seconds=60)) is None
        if undo == "heal":
            assert healed(tmp_path / "state").gone
        else:
            opener = "tests.undo.test_hostile_states:opened"
            assert restore_watched(tmp_path / "state", entry.id, opener=opener, gone=True) == ""
        assert not remote.path.exists()


def opened(access, *, now):
    return flags_of(Path(access.control.reveal().removeprefix("file:")))


def test_entries_are_listed_though_one_is_foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    journal = Journal(tmp_path)
    journal.write(samples.entry("a"))
    journal.write(samples.entry("b"))
    journal.path("a").chmod(0o666)
    first, second = journal.entries()
    assert isinstance(first, Foreign) and second == samples.entry("b")
