"""What a document has to become, and what is said of the edits of others."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.errors import FlagError, RestoreFailed
from pytest_otel_diag.flags.comparison import same_json
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.model.flags import FlagChange, FlagValue, ServedFlag
from pytest_otel_diag.undo.merge import merge
from pytest_otel_diag.undo.restore import restore_entry
from pytest_otel_diag.undo.verify import RestoreLimits
from tests.undo import samples

KEYS = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True)
QUICK = RestoreLimits(settle_s=0.0, poll_s=0.0, served_timeout_s=0.05)


@given(KEYS, st.data())
def test_without_external_changes_the_previous_bytes_are_restored(keys, data):
    previous = samples.document(**dict.fromkeys(keys, "off"))
    changed = data.draw(st.lists(st.sampled_from(keys), unique=True))
    current = FlagdDocument(previous)
    for key in changed:
        current.change(key, "on")
    assert merge(previous, current.raw, changed).raw == previous
    rewritten = json.dumps(json.loads(current.raw), sort_keys=True).encode()
    assert merge(previous, rewritten, changed).raw == previous


@given(KEYS, st.data())
def test_external_changes_are_kept_and_named(keys, data):
    previous = samples.document(**dict.fromkeys(keys, "off"))
    mine = data.draw(st.lists(st.sampled_from(keys), unique=True))
    theirs = data.draw(st.lists(st.sampled_from(keys), unique=True).map(lambda them: set(them) - set(mine)))
    current = FlagdDocument(previous)
    for key in (*mine, *theirs):
        current.change(key, "on")
    done = merge(previous, current.raw, mine)
    assert done.external == tuple(f"flag {key}" for key in keys if key in theirs)
    after = FlagdDocument(done.raw)
    assert {key: after.flags[key].default_variant for key in keys} == {
        key: "on" if key in theirs else "off" for key in keys
    }
    assert bool(theirs) or done.raw == previous


def test_flags_that_came_and_went_meanwhile():
    previous = samples.document(a="off", b="off")
    body = json.loads(previous)
    del body["flags"]["a"], body["flags"]["b"]
    body["flags"]["new"] = {"state": "ENABLED", "variants": {"x": 1}, "defaultVariant": "x"}
    body["metadata"] = {"by": "another client"}
    done = merge(previous, json.dumps(body).encode(), ["a"])
    assert done.external == ("flag b", "flag new", "metadata")
    assert set(json.loads(done.raw)["flags"]) == {"a", "new"}


@pytest.mark.parametrize("current", [b"", b"{", b"[]", b'{"flags": 3}', b'{"flags": {"a": {"state": 1}}}'])
def test_a_document_that_flagd_could_not_read_is_replaced(current: bytes):
    previous = samples.document(a="off")
    done = merge(previous, current, ["a"])
    assert done.raw == previous and done.overwritten


def test_an_edit_that_breaks_the_old_flag_gives_way_to_it():
    body = json.loads(samples.document(a="off"))
    body["$evaluators"] = {"rule": {"if": [True, "off", "on"]}}
    body["flags"]["a"]["targeting"] = {"$ref": "rule"}
    previous = json.dumps(body).encode()
    del body["$evaluators"]
    body["flags"]["a"]["targeting"] = {"if": [True, "on", "on"]}
    done = merge(previous, json.dumps(body).encode(), ["a"])
    assert (done.raw, done.overwritten) == (previous, ("$evaluators",))


def test_flags_in_an_array_are_merged_one_by_one():
    flag = {"state": "ENABLED", "variants": samples.OFF_ON, "defaultVariant": "off"}
    listed = [{"key": "a", **flag}, {"key": "b", **flag}]
    previous = json.dumps({"flags": listed}).encode()
    on = [{"key": "a", **flag, "defaultVariant": "on"}, {"key": "b", **flag}]
    assert merge(previous, json.dumps({"flags": on}).encode(), ["a"]).raw == previous
    edited = [on[0], {**on[1], "defaultVariant": "on"}, {"key": "c", **flag}]
    done = merge(previous, json.dumps({"flags": edited}).encode(), ["a"])
    assert done.external == ("flag b", "flag c")
    assert json.loads(done.raw)["flags"] == [listed[0], *edited[1:]]
    gone = merge(previous, json.dumps({"flags": edited[1:]}).encode(), ["a", "c"])
    assert json.loads(gone.raw)["flags"] == [edited[1], listed[0]]


def test_an_edit_with_half_a_pair_of_escapes_is_kept():
    previous = samples.document(a="off")
    current = (
        samples.document(a="on")
        .replace(b'{"flags"', b'{"note": "\\ud83d", "flags"')
        .replace(b'"flags"', b'"note": "\\ud83d", "flags"', 1)
    )
    done = merge(previous, current, ["a"])
    assert done.external == ("note",) and json.loads(done.raw)["note"] == "\ud83d"
    assert FlagdDocument(done.raw).flags["a"].default_variant == "off"


def test_what_cannot_be_merged_gives_way_to_the_old_document():
    done = merge(b'{"flags": 3}', samples.document(a="on"), ["a"])
    assert done.raw == b'{"flags": 3}' and "cannot be merged" in done.overwritten[0]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b'{"a": 1}', b'{"a":1.0}', True),
        (b'{"a": 1}', b'{"a": true}', False),
        (b'{"a": [1, 2]}', b'{"a": [2, 1]}', False),
        (b'{"a": {"b": 1, "c": 2}}', b'{"a": {"c": 2, "b": 1}}', True),
        (b"x", b"x", True),
        (b"x", b"y", False),
    ],
)
def test_documents_are_compared_by_what_they_say(one: bytes, other: bytes, same: bool):
    assert same_json(one, other) is same


class FailingSurface(samples.MemorySurface):
    """A surface whose writes raise ``failures`` in turn, and are ignored while it is ``deaf``."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.failures: list[Exception] = []
        self.deaf = False
        self.writes = 0

    async def write(self, raw: bytes, *, expected: bytes) -> None:
        self.writes += 1
        if self.failures:
            raise self.failures.pop()
        if not self.deaf:
            await super().write(raw, expected=expected)


class FailingReader(samples.MemoryReader):
    """A reader that answers the ``stale`` variants in turn, and nothing while it is ``silent``."""

    def __init__(self, surface: samples.MemorySurface) -> None:
        super().__init__(surface)
        self.stale: list[str] = []
        self.silent = False

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        if self.silent:
            raise FlagError("connection refused")
        answer = await super().served(key, context)
        return answer.model_copy(update={"variant": self.stale.pop()}) if self.stale else answer


class Faulty:
    """Flags over a failing surface and reader, with the fault on."""

    def __init__(self, reader: type[FailingReader] = FailingReader, **also: str) -> None:
        self.previous = samples.document(a="off", **also)
        self.entry = samples.entry(previous=self.previous)
        self.surface = FailingSurface(self.previous)
        self.reader = reader(self.surface)
        self.flags = SurfaceFlags(self.surface, self.reader, now=time.time_ns)

    async def on(self, key: str = "a") -> Faulty:
        await self.flags.apply(FlagChange(key=key, variant="on"))
        self.surface.writes = 0
        return self


async def test_a_fault_is_restored_through_failures_and_stale_answers():
    found = await Faulty().on()
    found.surface.failures = [OSError("reset"), LookupError("surfaces may raise anything")]
    found.reader.stale = ["on", "on", "off", "on"]
    done = await restore_entry(found.entry, found.flags)
    assert found.surface.raw == found.previous
    assert not done.notable and found.reader.stale == []


async def test_external_changes_are_reported():
    found = await (await Faulty(b="off").on()).on("b")
    done = await restore_entry(found.entry, found.flags)
    assert done.notable and "EXTERNAL CHANGES" in done.sentence and "flag b" in done.sentence
    assert (await found.flags.served("b", {})).variant == "on"


async def test_a_surface_that_cannot_be_written_fails():
    found = await Faulty().on()
    found.surface.failures = [FlagError("read-only")] * 9
    with pytest.raises(RestoreFailed, match=r"cannot be restored: read-only"):
        await restore_entry(found.entry, found.flags, limits=QUICK)


async def test_a_surface_that_does_not_store_what_is_written_fails():
    found = await Faulty().on()
    found.surface.deaf = True
    with pytest.raises(RestoreFailed, match="again and again"):
        await restore_entry(found.entry, found.flags, limits=QUICK)


async def test_flags_that_still_answer_the_fault_fail_even_if_unproven_is_allowed():
    found = await Faulty().on()
    found.reader.stale = ["on"] * 1_000_000
    for allow_unproven in (False, True):
        with pytest.raises(RestoreFailed, match="a answers 'on' instead of 'off'"):
            await restore_entry(found.entry, found.flags, limits=QUICK, allow_unproven=allow_unproven)


async def test_flags_that_nobody_serves_are_unproven_where_that_is_allowed():
    found = await Faulty().on()
    found.reader.silent = True
    with pytest.raises(RestoreFailed, match="connection refused"):
        await restore_entry(found.entry, found.flags, limits=QUICK)
    done = await restore_entry(found.entry, found.flags, limits=QUICK, allow_unproven=True)
    assert done.notable and "NOT PROVEN" in done.sentence


async def test_a_document_that_flagd_would_refuse_is_not_restored():
    found = await Faulty().on()
    with pytest.raises(RestoreFailed, match="it was not written"):
        await restore_entry(samples.entry(previous=b"{}"), found.flags)


class LateReader(FailingReader):
    """Answers as before for a while, then serves the fault until the document is written again."""

    reads = 0

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        self.reads += 1
        if self.reads > 5 and self.surface.writes < 2:
            self.stale = ["on"]
        return await super().served(key, context)


async def test_a_fault_that_is_loaded_late_is_noticed_and_overwritten():
    found = await Faulty(LateReader).on()
    limits = RestoreLimits(reads=8, settle_s=0.0, rewrite_s=0.0, poll_s=0.0)
    done = await restore_entry(found.entry, found.flags, limits=limits)
    assert found.surface.writes == 2 and not done.notable
    assert (await found.flags.served("a", {})).variant == "off"
