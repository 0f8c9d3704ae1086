"""The document in a file under concurrent writes, reads and cancellations."""

import asyncio
import json
import threading
import time

import pytest

from pytest_otel_diag.errors import FlagError, LostUpdate, RestoreFailed
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.surfaces.file import FileSurface
from pytest_otel_diag.model.flags import FlagChange
from tests.flags.documents import RAW, edited
from tests.flags.file_flags import FileReader, file_flags, folder_of, put


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "demo.flagd.json"
    file.write_bytes(RAW)
    return file


@pytest.fixture
def controller(path):
    return file_flags(path)


class Delayed(FileSurface):
    """Lets another client write right before or right after the last comparison."""

    moment = "before"
    theirs = None

    def _check(self, old, expected, when):
        if self.moment in when and self.theirs is not None:
            theirs, self.theirs = self.theirs, None
            theirs()
        super()._check(old, expected, when)


@pytest.mark.parametrize("how", ["in place", "by rename"])
async def test_an_external_change_before_our_rename_is_found(path, how):
    theirs = edited(imageSlowLoad={"defaultVariant": "5sec"})
    surface = Delayed(path)

    def write():
        other = path if how == "in place" else path.with_suffix(".new")
        other.write_bytes(theirs)
        if other != path:
            other.rename(path)

    surface.theirs = write
    with pytest.raises(LostUpdate, match="before our write; nothing has changed"):
        await surface.write(edited(adFailure={"defaultVariant": "on"}), expected=RAW)
    assert path.read_bytes() == theirs
    assert folder_of(path) == ["demo.flagd.json"]


async def test_an_external_change_of_the_old_file_is_reported(path):
    """An editor that had the file open writes after the rename, to a file without a name."""
    ours = edited(adFailure={"defaultVariant": "on"})
    surface = Delayed(path)
    surface.moment = "during"
    held = path.open("r+b")
    surface.theirs = lambda: (held.write(b" "), held.close())
    with pytest.raises(LostUpdate, match="ours was stored, theirs is lost"):
        await surface.write(ours, expected=RAW)
    assert path.read_bytes() == ours


async def test_changes_at_the_same_time_are_kept_or_refused_never_lost(path):
    """Forty changes of four flags by four controllers: each is stored, or reports that it was not."""
    path.write_bytes(
        edited(
            **{
                f"flag{n}": {"state": "ENABLED", "variants": {"a": 0, "b": 1}, "defaultVariant": "a"}
                for n in range(4)
            }
        )
    )
    expected = {f"flag{n}": "a" for n in range(4)}

    async def switch(number):
        flags = SurfaceFlags(FileSurface(path), FileReader(path), now=time.time_ns)
        refused = 0
        for turn in range(10):
            variant = "ba"[turn % 2]
            try:
                await flags.apply(FlagChange(key=f"flag{number}", variant=variant))
                expected[f"flag{number}"] = variant
            except LostUpdate:
                refused += 1
        return refused

    refused = await asyncio.gather(*map(switch, range(4)))
    found = {key: flag["defaultVariant"] for key, flag in json.loads(path.read_bytes())["flags"].items()}
    assert {key: found[key] for key in expected} == expected
    assert sum(refused) < 40
    assert folder_of(path) == ["demo.flagd.json"]


async def test_a_reader_never_sees_half_a_file(path):
    """A thread that reads continuously, as flagd may, sees only whole documents."""
    documents = [edited(adFailure={"defaultVariant": variant}) for variant in ("on", "off")]
    path.write_bytes(documents[0])
    stop, seen = threading.Event(), set()

    def look():
        while not stop.is_set():
            seen.add(path.read_bytes())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for turn in range(100):
            await put(path, documents[turn % 2])
    finally:
        stop.set()
        thread.join()
    assert seen == set(documents)


async def test_a_restore_that_meets_a_busy_writer_goes_through(path, controller):
    before = await controller.document()
    busy = Delayed(path)
    controller.surface = busy
    busy.theirs = lambda: path.write_bytes(edited(imageSlowLoad={"defaultVariant": "5sec"}))
    await controller.restore(before)
    assert path.read_bytes() == RAW


async def test_a_restore_against_a_client_that_never_stops_writing_fails(path, controller):
    before = await controller.document()

    class Hopeless(FileSurface):
        async def write(self, raw, *, expected):
            raise LostUpdate(f"{self.name} was written by another client")

    controller.surface = Hopeless(path)
    with pytest.raises(RestoreFailed, match=r"cannot be restored.*another client"):
        await controller.restore(before)

    class Forgetful(FileSurface):
        async def write(self, raw, *, expected):
            path.write_bytes(edited(imageSlowLoad={"defaultVariant": "5sec"}))

    controller.surface = Forgetful(path)
    with pytest.raises(RestoreFailed, match=r"reads back differently.*otel-diag heal"):
        await controller.restore(before)


async def test_a_damaged_document_that_cannot_be_overwritten_fails_the_restore(path, controller):
    class Stuck(FileSurface):
        async def read(self):
            return b"{"

        async def overwrite(self, raw):
            raise FlagError("the disk is full")

    before = await controller.document()
    controller.surface = Stuck(path)
    with pytest.raises(RestoreFailed, match="the disk is full"):
        await controller.restore(before)


async def test_a_cancelled_write_ends_before_the_cancel_goes_on(path):
    """Otherwise it could take effect after the restore that follows."""
    entered, leave = threading.Event(), threading.Event()

    class Slow(FileSurface):
        def _check(self, old, expected, when):
            entered.set()
            leave.wait(10)
            super()._check(old, expected, when)

    ours = edited(adFailure={"defaultVariant": "on"})
    writing = asyncio.create_task(Slow(path).write(ours, expected=RAW))
    await asyncio.to_thread(entered.wait, 10)
    for _ in range(3):  # Ctrl-C, and again
        writing.cancel()
        await asyncio.sleep(0.02)
        assert not writing.done()
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert path.read_bytes() == ours
