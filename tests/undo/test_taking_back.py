"""What a document has to become, and what is said of the edits of others."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.errors import FlagError, RestoreFailed
from pytest_otel_diag.flags.document import DocumentFlags, FlagdDocument
from pytest_otel_diag.model.flags import FlagChange, FlagDocument, FlagValue, ServedFlag
from pytest_otel_diag.undo.restore import Patience, plan, same_document, take_back
from tests.undo import samples

KEYS = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True)
QUICK = Patience(settle_s=0.0, poll_s=0.0, served_timeout_s=0.05, read_timeout_s=0.2, write_timeout_s=0.2)


@given(KEYS, st.data())
def test_without_edits_of_others_the_old_bytes_come_back(keys, data):
    previous = samples.document(**dict.fromkeys(keys, "off"))
    changed = data.draw(st.lists(st.sampled_from(keys), unique=True))
    current = FlagdDocument(previous)
    for key in changed:
        current.change(key, "on")
    assert plan(previous, current.raw, changed).raw == previous
    rewritten = json.dumps(json.loads(current.raw), sort_keys=True).encode()
    assert plan(previous, rewritten, changed).raw == previous


@given(KEYS, st.data())
def test_edits_of_others_are_kept_and_named(keys, data):
    previous = samples.document(**dict.fromkeys(keys, "off"))
    mine = data.draw(st.lists(st.sampled_from(keys), unique=True))
    theirs = data.draw(st.lists(st.sampled_from(keys), unique=True).map(lambda them: set(them) - set(mine)))
    current = FlagdDocument(previous)
    for key in (*mine, *theirs):
        current.change(key, "on")
    done = plan(previous, current.raw, mine)
    assert done.foreign == tuple(f"flag {key}" for key in keys if key in theirs)
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
    body["metadata"] = {"by": "somebody"}
    done = plan(previous, json.dumps(body).encode(), ["a"])
    assert done.foreign == ("flag b", "flag new", "metadata")
    assert set(json.loads(done.raw)["flags"]) == {"a", "new"}


@pytest.mark.parametrize("current", [b"", b"{", b"[]", b'{"flags": 3}', b'{"flags": {"a": {"state": "ON"}}}'])
def test_a_document_that_flagd_could_not_read_is_replaced(current: bytes):
    previous = samples.document(a="off")
    done = plan(previous, current, ["a"])
    assert done.raw == previous and done.overwritten


def test_an_edit_that_breaks_the_old_flag_gives_way_to_it():
    body = json.loads(samples.document(a="off"))
    body["$evaluators"] = {"rule": {"if": [True, "off", "on"]}}
    body["flags"]["a"]["targeting"] = {"$ref": "rule"}
    previous = json.dumps(body).encode()
    del body["$evaluators"]
    body["flags"]["a"]["targeting"] = {"if": [True, "on", "on"]}
    done = plan(previous, json.dumps(body).encode(), ["a"])
    assert (done.raw, done.overwritten) == (previous, ("$evaluators",))


def test_an_edit_with_half_a_pair_of_escapes_is_kept():
    previous = samples.document(a="off")
    current = (
        samples.document(a="on")
        .replace(b'{"flags"', b'{"note": "\\ud83d", "flags"')
        .replace(b'"flags"', b'"note": "\\ud83d", "flags"', 1)
    )
    done = plan(previous, current, ["a"])
    assert done.foreign == ("note",) and json.loads(done.raw)["note"] == "\ud83d"
    assert FlagdDocument(done.raw).flags["a"].default_variant == "off"


def test_what_cannot_be_merged_gives_way_to_the_old_document():
    done = plan(b'{"flags": 3}', samples.document(a="on"), ["a"])
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
    assert same_document(one, other) is same


class Trouble(DocumentFlags):
    """Flags in memory that fail as they are told."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(FlagdDocument(raw), now=time.time_ns)
        self.failures: list[Exception] = []
        self.stale: list[str] = []
        self.deaf = self.silent = False

    async def restore(self, document: FlagDocument) -> None:
        if self.failures:
            raise self.failures.pop()
        if not self.deaf:
            await super().restore(document)

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        if self.silent:
            raise FlagError("nobody there")
        answer = await super().served(key, context)
        return answer.model_copy(update={"variant": self.stale.pop()}) if self.stale else answer


async def faulty(**also: str) -> tuple[bytes, Trouble]:
    previous = samples.document(a="off", **also)
    flags = Trouble(previous)
    await flags.apply(FlagChange(key="a", variant="on"))
    return previous, flags


async def test_a_fault_is_taken_back_through_failures_and_stale_answers():
    previous, flags = await faulty()
    flags.failures = [OSError("reset"), LookupError("whatever a place raises")]
    flags.stale = ["on", "on", "off", "on"]
    done = await take_back(samples.entry(previous=previous), flags)
    assert (await flags.document()).raw == previous
    assert not done.loud and flags.stale == []


async def test_edits_of_others_are_said_loudly():
    previous, flags = await faulty(b="off")
    await flags.apply(FlagChange(key="b", variant="on"))
    done = await take_back(samples.entry(previous=previous), flags)
    assert done.loud and "SOMEBODY ELSE CHANGED" in done.sentence and "flag b" in done.sentence
    assert (await flags.served("b", {})).variant == "on"


async def test_a_place_that_cannot_be_written_fails():
    previous, flags = await faulty()
    flags.failures = [FlagError("read-only")] * 9
    with pytest.raises(RestoreFailed, match=r"cannot be put back: read-only"):
        await take_back(samples.entry(previous=previous), flags, patience=QUICK)


async def test_a_place_that_does_not_keep_what_is_written_fails():
    previous, flags = await faulty()
    flags.deaf = True
    with pytest.raises(RestoreFailed, match="again and again"):
        await take_back(samples.entry(previous=previous), flags, patience=QUICK)


async def test_flags_that_go_on_answering_the_fault_fail_whatever_is_allowed():
    previous, flags = await faulty()
    flags.stale = ["on"] * 100_000
    with pytest.raises(RestoreFailed, match="a answers 'on' in place of 'off'"):
        await take_back(samples.entry(previous=previous), flags, patience=QUICK)
    with pytest.raises(RestoreFailed, match="a answers 'on' in place of 'off'"):
        await take_back(samples.entry(previous=previous), flags, patience=QUICK, unproven=True)


async def test_flags_that_nobody_serves_are_unproven_where_that_is_allowed():
    previous, flags = await faulty()
    flags.silent = True
    with pytest.raises(RestoreFailed, match="nobody there"):
        await take_back(samples.entry(previous=previous), flags, patience=QUICK)
    done = await take_back(samples.entry(previous=previous), flags, patience=QUICK, unproven=True)
    assert done.loud and "NOT PROVEN" in done.sentence


async def test_a_document_that_flagd_would_refuse_is_not_put_back():
    _, flags = await faulty()
    with pytest.raises(RestoreFailed, match="it is not put back"):
        await take_back(samples.entry(previous=b"{}"), flags)


class Late(Trouble):
    """Answers as before for a while, then takes up the fault after all, until it is written again."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.reads = self.restores = 0

    async def restore(self, document: FlagDocument) -> None:
        self.restores += 1
        await super().restore(document)

    async def served(self, key: str, context) -> ServedFlag:
        self.reads += 1
        answer = await super().served(key, context)
        stale = self.reads > 5 and self.restores < 2
        return answer.model_copy(update={"variant": "on"}) if stale else answer


async def test_a_fault_that_is_taken_up_late_is_seen_and_written_over():
    previous = samples.document(a="off")
    flags = Late(previous)
    await flags.apply(FlagChange(key="a", variant="on"))
    patience = Patience(settle_s=0.5, rewrite_s=0.05, poll_s=0.02, served_timeout_s=5.0)
    done = await take_back(samples.entry(previous=previous), flags, patience=patience)
    assert flags.restores == 2 and not done.loud
    assert (await flags.served("a", {})).variant == "off"
