"""The transcript on the page of a run, in attachments, and what a run used."""

from __future__ import annotations

import pytest

from pytest_otel_diag.model.diagnosis import Diagnosis, Usage
from pytest_otel_diag.model.session import Status
from pytest_otel_diag.model.transcript import TranscriptEntry, TranscriptSummary
from pytest_otel_diag.reports.attachments import attachments
from pytest_otel_diag.reports.blocks import facts
from pytest_otel_diag.reports.html import HtmlWriter, render_html
from pytest_otel_diag.reports.markdown import MarkdownWriter
from pytest_otel_diag.reports.transcript_page import STEPS_SHOWN, transcript_markup, transcript_text
from pytest_otel_diag.runs.document import RunDocument
from pytest_otel_diag.runs.manifest import AnalyzerIdentity
from pytest_otel_diag.runs.transcripts import TranscriptFolder
from pytest_otel_diag.scoring.scorecard import build_scorecard
from tests.reports.documents import document, sample


def entry(step: int, kind: str, **content) -> TranscriptEntry:
    return TranscriptEntry(step=step, at_s=step / 10, wall_ns=step, kind=kind, content=content)


STEPS = (
    entry(1, "message", role="user", text="what is wrong?"),
    entry(2, "message", role="assistant", content="I look", reasoning="it may be the payment service"),
    entry(3, "tool_call", name="query", id="c1", arguments={"sql": "SELECT 1\nFROM x", "limit": 3}),
    entry(4, "tool_result", name="query", id="c1", text="x" * 9_000),
    entry(5, "tool_result", name="query", text="<script>alert(1)</script>", error=True),
    entry(6, "usage", input_tokens=1000, cached_tokens=800, output_tokens=50, cost_usd=0.01, model="m-1"),
    entry(7, "hypothesis", status="eliminated", service="cart", statement="cart is slow", reason="it is not"),
    entry(8, "note", text="ended by: submitted", other=[1, 2]),
)


def test_each_step_has_an_anchor_and_texts_are_escaped():
    page = transcript_markup("s1", STEPS)

    assert all(f'id="s1-step-{step}"' in page and f'href="#s1-step-{step}"' in page for step in range(1, 9))
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "transcript: 8 steps" in page and "transcripts/s1.jsonl" in page


def test_long_results_are_folded_and_cut():
    page = transcript_markup("s1", STEPS[3:4])

    assert page.count("<details") == 2
    assert "9,000 characters" in page and "3,000 characters more in the file" in page
    assert len(page) < 8_000


def test_a_long_transcript_refers_to_its_file():
    page = transcript_markup("s1", [entry(step, "note", text="x") for step in range(1, STEPS_SHOWN + 10)])

    assert "and 9 more steps in the file" in page


def test_a_text_commands_no_terminal():
    hostile = entry(
        1, "tool_call", name="\x1b[31mq\x07", arguments={"sql": "\x1b]8;;http://evil\x07\u202e\x00"}
    )
    text = transcript_text([hostile])

    assert all(char.isprintable() or char == "\n" for char in text)
    assert "\\x1b[31mq" in text


def test_a_count_that_no_number_holds_is_shown():
    assert "inf tokens read" in transcript_markup("s1", [entry(1, "usage", input_tokens=10**400)])


def test_the_text_of_a_transcript_names_what_each_step_is():
    text = transcript_text(STEPS)

    for words in (
        "--- 1, 0.1 s, user\nwhat is wrong?",
        "reasoning: it may be the payment service",
        "calls query\nSELECT 1\nFROM x\nlimit: 3",
        "result of query, an error",
        "1,000 tokens read, 800 of them cached, 50 written, 0.01 USD, by m-1",
        "hypothesis eliminated: cart\nstatement: cart is slow\nreason: it is not",
    ):
        assert words in text


def with_transcripts(tmp_path):
    sessions = [one.model_copy(update={"transcript": TranscriptSummary(entries=8)}) for one in sample()]
    write = TranscriptFolder(tmp_path)
    for session in sessions:
        for step in STEPS:
            write(session.session_id, step)
    return sessions


def test_a_miss_links_to_its_session_and_its_transcript(tmp_path):
    sessions = with_transcripts(tmp_path)
    run = document(*sessions)

    page = HtmlWriter().write(run, tmp_path).read_text()

    missed = run.scorecard.misses[0].session_id
    assert f'href="#session-{missed}"' in page and f'id="session-{missed}"' in page
    for session in sessions:
        assert f'id="{session.session_id}-transcript"' in page
    assert "transcript" not in {one.name for one in attachments(sessions[0])}
    assert "transcript" in {one.name for one in attachments(sessions[0], STEPS)}


def test_a_page_takes_so_many_transcripts_and_wrong_answers_first(tmp_path, monkeypatch):
    sessions = with_transcripts(tmp_path)
    monkeypatch.setattr("pytest_otel_diag.reports.html._TRANSCRIPTS_CHARS", 1)
    run = document(*sessions)

    page = HtmlWriter().write(run, tmp_path).read_text()

    shown = [one.session_id for one in sessions if f'id="{one.session_id}-transcript"' in page]
    assert len(shown) == 1
    assert shown[0] in {miss.session_id for miss in run.scorecard.misses} | {
        one.session_id for one in sessions if one.status is not Status.SCORED
    }


def test_a_replayed_run_says_so_everywhere(tmp_path):
    run = document(*sample())
    tape = {"tape": "replayed from tapes/x, recorded 2026-12-01T00:00:00+00:00"}
    identity = AnalyzerIdentity(id="llm:m", details=tape)
    manifest = run.manifest.model_copy(update={"analyzers": (identity,)})
    run = RunDocument(manifest=manifest, sessions=run.sessions, scorecard=run.scorecard)

    (remark,) = run.remarks
    assert "llm:m are replayed from tapes/x" in remark and "no provider was asked" in remark
    assert "no provider was asked" in render_html(run)
    assert "no provider was asked" in MarkdownWriter().write(run, tmp_path).read_text()


def test_cost_counts_sessions_without_an_answer_and_is_given_for_each_solved_fault():
    used = Usage(prompts=4, steps=4, input_tokens=900, output_tokens=100, cost_usd=0.2)
    right = sample()[0]
    assert right.verdict is not None and right.verdict.solved and right.verdict.fault_present
    assert right.diagnosis is not None
    answered = right.model_copy(
        update={"diagnosis": Diagnosis.model_validate({**right.diagnosis.model_dump(), "usage": used})}
    )
    failed = right.model_copy(
        update={
            "session_id": "failed",
            "status": Status.ERROR,
            "diagnosis": None,
            "verdict": None,
            "transcript": TranscriptSummary(entries=9, usage=used),
        }
    )

    card = build_scorecard([answered, failed])

    assert (card.prompts, card.steps, card.tokens) == (8, 8, 2000)
    assert card.cost_usd == pytest.approx(0.4)
    assert card.cost_per_solved_usd == pytest.approx(0.4)
    assert any(
        "8 prompts, 2,000 tokens, 0.4 USD, 0.4 USD for each fault solved" in fact for fact in facts(card)
    )
