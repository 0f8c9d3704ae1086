"""The transcript of an investigation: what reaches the session, what is cut, and what survives a kill."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.errors import BudgetExceeded, OtelDiagError
from pytest_otel_diag.model.session import Status
from pytest_otel_diag.model.transcript import TranscriptEntry, TranscriptSummary
from pytest_otel_diag.ports import NoTranscript
from pytest_otel_diag.runs.transcripts import TranscriptFolder, read_transcript, transcript_file
from pytest_otel_diag.secret import MASK, hidden
from pytest_otel_diag.sessions.investigation import transcript as module
from pytest_otel_diag.sessions.investigation.closed_line import Request
from pytest_otel_diag.sessions.investigation.transcript import BadEntry, SessionTranscript
from pytest_otel_diag.sessions.settings import WallTime
from tests.sessions.session_fakes import QUICK, FakeTarget, engine, plan
from tests.sessions.test_session_analyzers import FINE, limited

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


async def transcribed(analyzer, folder: Path, **changes):
    knobs = replace(QUICK, transcribe=TranscriptFolder(folder))
    result = await engine(FakeTarget(), analyzer, settings=knobs).run(plan(**changes))
    return result, read_transcript(folder, result.session_id)


def collecting() -> tuple[list[TranscriptEntry], SessionTranscript]:
    kept: list[TranscriptEntry] = []
    return kept, SessionTranscript(kept.append, WallTime(monotonic=lambda: 2.0, now_ns=lambda: 7))


async def test_entries_are_in_the_folder_of_the_run_while_the_analyzer_works(tmp_path):
    seen = []

    async def works(investigation):
        await investigation.transcript.add("message", {"role": "user", "text": "what is wrong?"})
        seen.extend(transcript_file(tmp_path, "s1").read_bytes().splitlines())
        await investigation.transcript.add("tool_call", {"name": "query", "arguments": {"sql": "SELECT 1"}})
        return FINE

    result, entries = await transcribed(works, tmp_path, session_id="s1")

    assert json.loads(seen[0])["content"]["text"] == "what is wrong?"
    assert [(entry.step, entry.kind) for entry in entries] == [(1, "message"), (2, "tool_call")]
    assert result.transcript == TranscriptSummary(entries=2)
    assert result.status is Status.SCORED


async def test_an_analyzer_that_hangs_leaves_what_it_did(tmp_path):
    async def hangs(investigation):
        await investigation.transcript.add("note", {"text": "before"})
        await asyncio.sleep(1e9)

    result, entries = await transcribed(hangs, tmp_path, case=limited(0.2))

    assert result.status is Status.ERROR and "no diagnosis within" in result.reason
    assert [entry.content["text"] for entry in entries] == ["before"]
    assert result.transcript == TranscriptSummary(entries=1)


async def test_without_a_folder_everything_is_dropped():
    async def works(investigation):
        await investigation.transcript.add("note", {"text": "nobody keeps this"})
        return FINE

    result = await engine(FakeTarget(), works, settings=QUICK).run(plan())

    assert result.transcript is None and result.status is Status.SCORED
    await NoTranscript().add("note", {})


async def test_a_wrong_kind_names_the_right_ones(tmp_path):
    async def works(investigation):
        with pytest.raises(OtelDiagError, match=r"'mesage'.*did you mean 'message'.*tool_result"):
            await investigation.transcript.add("mesage", {})
        with pytest.raises(BadEntry, match="cannot be written as JSON"):
            await investigation.transcript.add("note", 3)
        return FINE

    result, entries = await transcribed(works, tmp_path)

    assert (result.status, entries) == (Status.SCORED, ())


async def test_what_goes_over_the_line_is_plain_whatever_the_analyzer_sends(tmp_path):
    class Hostile(str):
        def __eq__(self, other):
            raise AssertionError("code of the analyzer ran in the session")

        __hash__ = str.__hash__

    async def works(investigation):
        handle = investigation.transcript
        await handle.add(Hostile("note"), {"text": Hostile("text"), "object": object(), "set": {1}})
        line = handle._line
        for text in (b"{}", None, object(), "[" * 100_000, "not JSON", Hostile("{}")):
            line.send(Request("transcript", ("note", text), lambda value, error: None))
        return FINE

    result, entries = await transcribed(works, tmp_path)

    assert result.status is Status.SCORED
    assert entries[0].content["text"] == "text"
    assert entries[0].content["object"].startswith("<object object")


async def test_credentials_are_masked(tmp_path):
    hidden("authorization=sk-live-0123456789")

    async def works(investigation):
        await investigation.transcript.add("output", {"text": "refused: sk-live-0123456789"})
        return FINE

    _, entries = await transcribed(works, tmp_path)

    assert entries[0].content == {"text": f"refused: {MASK}"}


async def test_a_flood_ends_with_an_entry_that_says_so(monkeypatch):
    monkeypatch.setattr(module, "MOST_ENTRIES", 4)
    kept, transcript = collecting()

    for number in range(9):
        await transcript.add("note", {"number": number})

    assert [entry.content.get("number") for entry in kept] == [0, 1, 2, None]
    assert "it may have 4 entries" in kept[-1].content["text"]
    assert transcript.summary == TranscriptSummary(entries=4, dropped=6)


async def test_bytes_are_limited_too(monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 2_000)
    kept, transcript = collecting()

    for _ in range(5):
        await transcript.add("output", {"text": "x" * 800})

    assert [entry.kind for entry in kept] == ["output", "output", "note"]
    assert transcript.summary == TranscriptSummary(entries=3, dropped=3)


async def test_long_texts_and_entries_are_cut_and_say_so():
    kept, transcript = collecting()

    await transcript.add("tool_result", {"text": "x" * 150_000})
    await transcript.add("tool_result", {str(number): "y" * 1000 for number in range(1000)})

    assert kept[0].content["text"].endswith("… [50000 characters left out]")
    assert kept[1].content["characters"] > 1_000_000
    assert len(kept[1].model_dump_json()) < 150_000


async def test_a_folder_that_cannot_be_written_ends_the_transcript_alone(caplog):
    def full(entry):
        raise OSError("no space left on device")

    transcript = SessionTranscript(full, WallTime())

    await transcript.add("note", {})
    await transcript.add("note", {})

    assert caplog.text.count("no space left on device") == 1
    assert transcript.summary is None


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_any_content_can_be_written_and_read_back(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("run")
    write = TranscriptFolder(folder)
    transcript = SessionTranscript(lambda entry: write("s", entry), WallTime())

    asyncio.run(transcript.add("note", content))

    (entry,) = read_transcript(folder, "s")
    assert entry.content.keys() == content.keys()


def test_a_kill_loses_at_most_the_entry_that_was_being_written(tmp_path):
    code = (
        "import asyncio, os, sys, pathlib\n"
        "from pytest_otel_diag.runs.transcripts import TranscriptFolder\n"
        "from pytest_otel_diag.sessions.investigation.transcript import SessionTranscript\n"
        "from pytest_otel_diag.sessions.settings import WallTime\n"
        "write = TranscriptFolder(pathlib.Path(sys.argv[1]))\n"
        "transcript = SessionTranscript(lambda entry: write('s', entry), WallTime())\n"
        "async def main():\n"
        "    for number in range(50):\n"
        "        await transcript.add('note', {'number': number})\n"
        f"    os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    with transcript_file(tmp_path, "s").open("ab") as stream:
        stream.write(b'{"step":51,"at_s":')  # as a full disk, or a file system over a network, may tear it

    assert ended.returncode == -signal.SIGKILL
    assert [entry.content["number"] for entry in read_transcript(tmp_path, "s")] == list(range(50))


async def test_after_the_investigation_the_handle_is_refused(tmp_path):
    handles = []

    async def works(investigation):
        handles.append(investigation.transcript)
        return FINE

    await transcribed(works, tmp_path)

    with pytest.raises(BudgetExceeded, match="the investigation is over"):
        await handles[0].add("note", {})


async def test_counts_that_cannot_be_are_no_usage():
    transcript = SessionTranscript(lambda _: None, WallTime())
    await transcript.add("usage", {"input_tokens": 10**400, "cost_usd": 1e300, "output_tokens": 5})

    usage = transcript.summary.usage
    assert (usage.input_tokens, usage.cost_usd, usage.output_tokens) == (0, 0, 5)
