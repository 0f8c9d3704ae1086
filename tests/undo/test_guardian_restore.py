"""What the guardian does when it acts, run in this process: copies, markers and failures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.undo.guardian.log import LOG
from pytest_otel_diag.undo.guardian.restore import restore_watched
from pytest_otel_diag.undo.journal import Journal, State, encoded
from tests.undo import samples

OPENER = f"{__name__}:opened"
MEMORY = samples.MemorySurface()


def opened(access, *, now):
    return SurfaceFlags(MEMORY, samples.MemoryReader(MEMORY), now=now)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    MEMORY.raw = samples.document(a="on")
    found = Journal(tmp_path / "state")
    found.write(samples.entry())
    return found


def act(journal: Journal, *, gone: bool = True, copy: bytes = b"") -> str:
    return restore_watched(journal.folder.parent, "one", opener=OPENER, gone=gone, copy=copy)


def variant() -> str:
    return MEMORY.flagd.flags["a"].default_variant


def log(journal: Journal) -> str:
    return (journal.folder.parent / LOG).read_text()


def test_with_its_owner_gone_the_entry_is_closed(journal):
    assert act(journal) == "" and variant() == "off"
    assert not journal.holds("one") and not journal.closed("one") and "whose run has ended" in log(journal)


def test_with_its_owner_late_the_entry_stays_marked(journal):
    assert act(journal, gone=False) == "" and variant() == "off"
    entry = journal.read("one")
    assert entry is not None and entry.state is State.RETURNED and "exceeded its deadline" in entry.note


@pytest.mark.parametrize("raw", [None, b"", b"{"])
def test_a_lost_entry_is_known_from_the_copy(journal, raw):
    path = journal.path("one")
    path.unlink() if raw is None else path.write_bytes(raw)
    assert (act(journal) == "") is (raw is None), (
        "without a copy, damage is reported and a missing entry counts as closed"
    )
    assert variant() == "on"
    assert act(journal, copy=encoded(samples.entry())) == "" and variant() == "off"
    assert "own copy" in log(journal) and not journal.holds("one")


def test_a_closed_entry_is_not_restored_even_with_a_copy(journal):
    journal.close(samples.entry())
    assert journal.closed("one")
    assert act(journal, copy=encoded(samples.entry())) == "" and variant() == "on"
    journal.forget("one")
    assert not journal.closed("one")


def test_a_kept_entry_is_left_to_people_once_its_run_has_ended(journal):
    journal.write(samples.entry(state=State.KEPT))
    assert act(journal) == "" and variant() == "on"


def test_a_damaged_copy_is_ignored(journal):
    journal.path("one").unlink()
    assert act(journal, copy=b"{") == "" and variant() == "on"


def test_what_goes_wrong_is_returned(journal):
    assert "ModuleNotFoundError" in restore_watched(
        journal.folder.parent, "one", opener="no.such:thing", gone=True
    )
    assert journal.holds("one")


def test_a_journal_that_is_gone_is_closed(journal):
    journal.path("one").unlink()
    journal.folder.rmdir()
    journal.close(samples.entry())
    assert not journal.closed("one")


def test_old_markers_are_removed(journal):
    journal.close(samples.entry())
    os.utime(journal.folder / "one.closed", (0, 0))
    journal.write(samples.entry("two"))
    journal.close(samples.entry("two"))
    assert not journal.closed("one") and journal.closed("two")
