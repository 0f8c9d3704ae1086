"""What is written is not what flagd takes: refused edits, refused originals, moved files. A real flagd."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags import document_json
from pytest_otel_diag.flags.access import open_flags
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.model.flags import FlagChange
from pytest_otel_diag.undo.heal import HealOutcome, heal
from pytest_otel_diag.undo.journal import Journal
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.session import guarded
from pytest_otel_diag.undo.settings import UndoSettings
from pytest_otel_diag.undo.verify import RestoreLimits
from tests.support.deadlines import deadline_s
from tests.support.flagd import Flagd
from tests.undo import samples

ON = FlagChange(key="a", variant="on")
QUICK = RestoreLimits(served_timeout_s=1.5)


class Place:
    """A document behind a link, with a flagd over the file at its end."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.original = samples.document(a="off", b="off")
        for name in ("one", "two"):
            (folder / name).mkdir()
            (folder / name / "demo.flagd.json").write_bytes(self.original)
        self.document = folder / "one" / "demo.flagd.json"
        self.other = folder / "two" / "demo.flagd.json"
        self.link = folder / "link.json"
        self.link.symlink_to(self.document)
        self.flagd = Flagd(self.document, folder / "flagd.log")
        self.messages: list[str] = []

    @property
    def access(self) -> FlagAddress:
        return FlagAddress(control=f"file:{self.link}", served=f"ofrep:{self.flagd.ofrep}")

    def put(self, raw: bytes) -> None:
        beside = self.document.with_name("beside")
        beside.write_bytes(raw)
        beside.rename(self.document)

    def session(self, inner: SurfaceFlags):
        return guarded(
            inner,
            owner=Owner.here(now_ns=time.time_ns()),
            state_dir=self.state,
            settings=UndoSettings(lease_wait_s=0.2, limits=QUICK),
            notify=self.messages.append,
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    with found.flagd:
        yield found


async def served(inner: SurfaceFlags, variant: str) -> None:
    async with asyncio.timeout(deadline_s(20)):
        while (await inner.served("a", {})).variant != variant:  # noqa: ASYNC110 - flagd has no event for it
            await asyncio.sleep(0.02)


async def test_an_edit_that_flagd_refuses_gives_way_although_it_reads_well_here(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(document_json, "_folded", lambda name: name)  # as if names had one case here
    inner = open_flags(place.access, now=time.time_ns)
    async with place.session(inner) as flags:
        await flags.apply(ON)
        await served(inner, "on")
        body = json.loads(place.document.read_bytes())
        body["METADATA"] = "flagd reads names in any case"
        place.put(json.dumps(body).encode())
    await served(inner, "off")
    assert place.document.read_bytes() == place.original and not list(Journal(place.state).entries())
    assert [text for text in place.messages if "overwritten: METADATA" in text], place.messages
    await inner.aclose()


async def test_an_original_that_flagd_refuses_is_restored_as_new_text(place: Place):
    inner = open_flags(place.access, now=time.time_ns)
    await inner.apply(ON)
    marked = b"\xef\xbb\xbf" + place.original
    await served(inner, "on")
    entry = samples.entry(identity=inner.identity, access=place.access, previous=marked)
    Journal(place.state).write(entry)
    (healed,) = await heal(place.state, limits=QUICK)
    assert healed.outcome is HealOutcome.RESTORED and "NEW TEXT" in healed.detail, healed
    await served(inner, "off")
    assert json.loads(place.document.read_bytes()) == json.loads(place.original)
    await inner.aclose()


async def test_force_does_not_close_a_fault_that_is_still_served(place: Place):
    """The document is back, but flagd reads another file: it answers, so the fault is on."""
    inner = open_flags(place.access, now=time.time_ns)
    await inner.apply(ON)
    await served(inner, "on")
    elsewhere = FlagAddress(control=f"file:{place.other}", served=place.access.served)
    entry = samples.entry(identity=str(place.other), access=elsewhere, previous=place.original)
    Journal(place.state).write(entry)
    (healed,) = await heal(place.state, limits=QUICK, force=True)
    assert healed.outcome is HealOutcome.FAILED and "restart flagd" in healed.detail
    assert Journal(place.state).holds(entry.id)
    place.flagd.kill()
    (healed,) = await heal(place.state, limits=QUICK, force=True)
    assert healed.outcome is HealOutcome.UNPROVEN
    assert not list(Journal(place.state).entries())
    await inner.aclose()


async def test_a_symlink_that_was_retargeted_during_a_session(place: Place):
    inner = open_flags(place.access, now=time.time_ns)
    async with place.session(inner) as flags:
        await flags.apply(ON)
        await served(inner, "on")
        place.link.unlink()
        place.link.symlink_to(place.other)
        for call in (flags.document(), flags.served("a", {}), flags.apply(ON)):
            with pytest.raises(FlagError, match=r"two/demo.flagd.json.*instead of.*one/demo.flagd.json"):
                await call
    await served(inner, "off")
    assert place.document.read_bytes() == place.other.read_bytes() == place.original
    assert [text for text in place.messages if "FILE MOVED" in text and str(place.document) in text]
    await inner.aclose()


async def test_the_file_of_the_fault_is_gone_or_cannot_be_written(place: Place):
    inner = open_flags(place.access, now=time.time_ns)
    entry = samples.entry(identity=str(place.document), access=place.access, previous=place.original)
    place.link.unlink()
    place.link.symlink_to(place.other)
    Journal(place.state).write(entry)
    place.document.write_bytes(b"")
    (healed,) = await heal(place.state, limits=QUICK)
    assert healed.gone and "both were restored" in healed.detail
    assert place.document.read_bytes() == place.original
    place.document.unlink()
    place.document.mkdir()
    Journal(place.state).write(entry)
    (healed,) = await heal(place.state, limits=QUICK)
    assert healed.outcome is HealOutcome.FAILED and "cannot be restored there" in healed.detail
    place.document.rmdir()
    (healed,) = await heal(place.state, limits=QUICK)
    assert healed.gone and "no longer exists" in healed.detail
    await inner.aclose()


async def test_a_document_that_flagd_refuses_is_refused_before_the_first_write(place: Place):
    inner = open_flags(place.access, now=time.time_ns)
    raw = b"\xef\xbb\xbf" + place.original
    place.put(raw)
    async with place.session(inner) as flags:
        with pytest.raises(FlagError, match="without BOM"):
            await flags.apply(ON)
    assert place.document.read_bytes() == raw and not list(Journal(place.state).entries())
    entry = samples.entry(identity=inner.identity, access=place.access, previous=b"{")
    Journal(place.state).write(entry)
    (healed,) = await heal(place.state, limits=QUICK)
    assert healed.outcome is HealOutcome.FAILED and "not written" in healed.detail
    await inner.aclose()
