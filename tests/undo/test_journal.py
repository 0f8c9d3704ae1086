"""The journal survives power loss; entries are whole or absent, and damaged ones are reported and kept."""

from __future__ import annotations

import hashlib
import json
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.model.flags import FlagChange
from pytest_otel_diag.undo.disk import Disk
from pytest_otel_diag.undo.journal import Answer, Change, Damaged, Entry, Journal, State, decoded, encoded
from pytest_otel_diag.undo.restore import restore_entry
from tests.undo import samples

VALUES = st.one_of(
    st.booleans(), st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
ENTRIES = st.builds(
    samples.entry,
    previous=st.binary(max_size=300),
    note=st.text(max_size=50),
    state=st.sampled_from(State),
    changes=st.lists(
        st.builds(
            Change,
            key=st.text(min_size=1, max_size=20),
            variants=st.tuples(st.text(max_size=10)),
            before=st.tuples(
                st.builds(
                    Answer,
                    context=st.dictionaries(st.text(), VALUES, max_size=3),
                    variant=st.text(max_size=9),
                )
            ),
        ),
        max_size=3,
    ).map(tuple),
)


@given(ENTRIES)
def test_an_entry_is_read_as_it_was_written(entry: Entry):
    assert decoded(encoded(entry), Path("x")) == entry


@given(ENTRIES, st.data())
def test_a_file_that_was_cut_short_or_changed_is_damaged_and_never_another_entry(entry: Entry, data):
    raw = encoded(entry)
    cut = decoded(raw[: data.draw(st.integers(0, len(raw) - 3))], Path("x"))
    assert isinstance(cut, Damaged)
    place = data.draw(st.integers(0, len(raw) - 1))
    other = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
    changed = decoded(other, Path("x"))
    assert isinstance(changed, Damaged) or changed == entry


def test_legible_facts_of_a_damaged_file_are_reported_with_the_document(tmp_path: Path):
    journal, entry = Journal(tmp_path), samples.entry()
    journal.write(entry)
    path = journal.path(entry.id)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"state": "open"', b'"state": "opem"'))
    (found,) = journal.entries()
    assert isinstance(found, Damaged)
    assert found.document == entry.previous
    assert found.facts["identity"] == entry.identity
    assert "checksum" in found.problem and "A FAULT MAY STILL BE ON" in found.sentence
    path.write_bytes(raw[: raw.index(b'"previous"') + 30])
    (found,) = journal.entries()
    assert isinstance(found, Damaged)
    assert (found.document, found.facts["user"]) == (None, "alice")
    with pytest.raises(FlagError, match="the previous document is lost"):
        journal.read(entry.id)
    assert path.exists()


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b"null", b'{"schema_version": 1, "entry": 3}', b"\xff\xfe"]
)
def test_files_that_are_no_entries_are_damaged(raw: bytes):
    assert isinstance(decoded(raw, Path("x")), Damaged)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("changes", 0, "variants"), []),
        (("owner", "since_ns"), 10**400),
        (("owner", "since_ns"), -1),
        (("id",), "../elsewhere"),
        (("owner", "command"), ["x" * 70_000]),
        (("access", "control"), "token-" * 20_000),
    ],
)
def test_an_entry_with_a_right_checksum_and_impossible_facts_hurts_nobody(
    place: tuple[Any, ...], value: object
):
    entry = samples.entry().model_copy(update={"changes": (Change(key="a", variants=("on",), before=()),)})
    inner = body = json.loads(encoded(entry))["entry"]
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    checksum = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    raw = json.dumps({"schema_version": 1, "checksum": checksum, "entry": body}).encode()
    read = decoded(raw, Path("entry"))
    if place[0] == "access":
        assert isinstance(read, Entry) and read.faults == "a=on"
    else:
        assert isinstance(read, Damaged) and "cannot be used" in read.sentence


def test_a_copy_of_an_entry_does_not_stand_for_another_file(tmp_path: Path):
    journal, entry = Journal(tmp_path), samples.entry()
    journal.write(entry)
    journal.path("copy").write_bytes(journal.path(entry.id).read_bytes())
    journal.path("copy").chmod(0o600)
    damaged = [each for each in journal.entries() if isinstance(each, Damaged)]
    assert [each.path.stem for each in damaged] == ["copy"] and entry.id in damaged[0].problem
    journal.close(entry)
    assert journal.path("copy").exists()


def test_a_newer_version_is_left_to_that_version():
    newer = json.loads(encoded(samples.entry())) | {"schema_version": 2}
    found = decoded(json.dumps(newer).encode(), Path("x"))
    assert isinstance(found, Damaged) and "schema version 2" in found.problem


def test_only_the_user_can_read_entries_since_documents_may_hold_secrets(tmp_path: Path):
    journal = Journal(tmp_path / "new" / "state")
    journal.write(samples.entry())
    path = journal.path("one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parents[:3]} == {0o700}


def test_a_journal_that_cannot_be_written_says_that_nothing_was_changed(tmp_path: Path):
    (tmp_path / "journal").write_text("a file where the folder should be")
    with pytest.raises(FlagError, match=r"nothing was changed.*--otel-diag-state"):
        Journal(tmp_path).write(samples.entry())


def test_the_oldest_entry_comes_first_and_closed_ones_are_gone(tmp_path: Path):
    journal = Journal(tmp_path)
    assert list(journal.entries()) == []
    for name, started_ns in (("a", 3), ("b", 1), ("c", 2)):
        journal.write(samples.entry(name, started_ns=started_ns))
    assert [each.id for each in journal.entries() if isinstance(each, Entry)] == ["b", "c", "a"]
    journal.close(samples.entry("c"))
    journal.close(samples.entry("c"))
    assert journal.read("c") is None and not journal.holds("c") and journal.holds("a")
    unreadable = journal.folder / "folder.json"
    unreadable.mkdir()
    assert any(isinstance(each, Damaged) and each.path == unreadable for each in journal.entries())


class PowerLoss(Exception):
    """The machine lost power."""


class FailingDisk(Disk):
    """A disk that loses power before step number ``left``, and unsynced data with it."""

    def __init__(self) -> None:
        self.left = 10**9
        self._unsynced: set[Path] = set()
        self._renamed: list[tuple[Path, Path, bytes | None]] = []

    def _step(self) -> None:
        if self.left == 0:
            raise PowerLoss
        self.left -= 1

    def write(self, path: Path, data: bytes) -> None:
        self._step()
        self._unsynced.add(path)
        super().write(path, data)

    def sync(self, path: Path) -> None:
        self._step()
        super().sync(path)
        self._unsynced.discard(path)

    def rename(self, old: Path, new: Path) -> None:
        self._step()
        self._renamed.append((old, new, new.read_bytes() if new.exists() else None))
        if old in self._unsynced:
            self._unsynced.add(new)
        super().rename(old, new)

    def sync_folder(self, path: Path) -> None:
        self._step()
        super().sync_folder(path)
        self._renamed.clear()

    def remove(self, path: Path) -> None:
        self._step()
        super().remove(path)

    def lose(self, data: st.DataObject) -> None:
        """Lose a drawn part of the data that had not reached the disk."""
        for path in sorted(self._unsynced):
            if path.exists():
                raw = path.read_bytes()
                path.write_bytes(raw[: data.draw(st.integers(0, len(raw)), label="bytes kept")])
        for old, new, before in reversed(self._renamed):
            if new.exists() and data.draw(st.booleans(), label="rename lost"):
                new.rename(old)
                if before is not None:
                    new.write_bytes(before)
        self._unsynced.clear()
        self._renamed.clear()
        self.left = 10**9


class Sessions(RuleBasedStateMachine):
    """Sessions that journal, write flags, restore and close, on a machine that loses power at any step."""

    @initialize()
    def start(self) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.disk = FailingDisk()
        self.journal = Journal(Path(self.place.name), disk=self.disk)
        self.flags = self.original = samples.document(a="off", b="off")
        self.entry: Entry | None = None
        self.number = 0

    def teardown(self) -> None:
        if hasattr(self, "place"):
            self.place.cleanup()

    def _powered(self, data: st.DataObject, steps: int, work) -> bool:
        self.disk.left = steps
        try:
            work()
        except PowerLoss:
            self.disk.lose(data)
            self.entry = None  # the session is gone with its memory
            return False
        self.disk.left = 10**9
        return True

    @rule(data=st.data(), steps=st.integers(0, 12), key=st.sampled_from("ab"))
    def set_a_flag(self, data: st.DataObject, steps: int, key: str) -> None:
        """Write the journal, then the flags."""
        if self.entry is None:
            if list(self.journal.entries()):
                return  # a session heals before it begins; see heal
            self.number += 1
            entry = samples.entry(f"e{self.number}", previous=self.flags, changes=())
        else:
            entry = self.entry
        change = Change(key=key, variants=("on",), before=(Answer(variant="off"),))
        changes = (*(each for each in entry.changes if each.key != key), change)
        entry = entry.model_copy(update={"changes": changes})
        if self._powered(data, steps, lambda: self.journal.write(entry)):
            self.entry = entry
            self.flags = self.flags.replace(b'"defaultVariant" :  "off"', b'"defaultVariant" :  "on"', 1)

    @precondition(lambda self: self.entry is not None)
    @rule(data=st.data(), steps=st.integers(0, 5))
    def restore(self, data: st.DataObject, steps: int) -> None:
        assert self.entry is not None
        entry, self.flags = self.entry, self.entry.previous
        if self._powered(data, steps, lambda: self.journal.close(entry)):
            self.entry = None

    @precondition(lambda self: self.entry is None)
    @rule()
    def heal(self) -> None:
        for each in list(self.journal.entries()):
            assert isinstance(each, Entry)
            self.flags = each.previous
            self.journal.close(each)

    @invariant()
    def a_changed_document_can_be_restored_exactly(self) -> None:
        if not hasattr(self, "journal"):
            return
        found = list(Journal(Path(self.place.name)).entries())
        assert not [each for each in found if isinstance(each, Damaged)]
        assert all(isinstance(each, Entry) and each.previous == self.original for each in found)
        assert found or self.flags == self.original


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)


async def test_an_entry_of_an_earlier_version_still_restores_the_flags(tmp_path: Path):
    """The file was written by the first version of the journal, and must stay readable."""
    path = Path(__file__).with_name("entry-v1.json")
    entry = decoded(path.read_bytes(), path)
    assert isinstance(entry, Entry), entry
    assert (entry.owner.user, str(entry.access.served)) == ("alice", "ofrep:http://127.0.0.1:8016")
    surface = samples.MemorySurface(FlagdDocument(entry.previous).raw)
    flags = SurfaceFlags(surface, samples.MemoryReader(surface), now=lambda: 1)
    await flags.apply(FlagChange(key="a", variant="on"))
    assert not (await restore_entry(entry, flags)).notable
    assert surface.raw == entry.previous
