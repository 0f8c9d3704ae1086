"""Attachments are safe to open: no formulas, no escape sequences, no turned text."""

import csv
import io

import pytest

from pytest_otel_diag.model.diagnosis import Diagnosis, DiagnosticQuery, Usage
from pytest_otel_diag.model.verdict import QueryVerdict, Verdict
from pytest_otel_diag.reports.attachments import CSV, attachments
from pytest_otel_diag.reports.blocks import facts
from pytest_otel_diag.reports.html import render_html
from pytest_otel_diag.reports.markup import text
from pytest_otel_diag.scoring.scorecard import build_scorecard
from tests.reports.documents import document
from tests.scoring.samples import faulty, session


def with_cell(cell: str):
    verdict = Verdict(
        fault_present=True,
        detected=True,
        query=QueryVerdict(executed=True, rows=1, columns=("a",), sample=((cell,),)),
    )
    diagnosis = Diagnosis(
        detected=True,
        query=DiagnosticQuery(sql="SELECT '\x1b[2J'"),
        usage=Usage(prompts=2, input_tokens=1500, cost_usd=0.5, model="m-1"),
    )
    return session(faulty("f"), verdict, diagnosis=diagnosis)


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1+cmd", "'+1+cmd"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-2+3", "'-2+3"),
        ("\t=1", "'\t=1"),
        ("-12.5", "-12.5"),
        ("+3.0", "+3.0"),
        ("payment", "payment"),
    ],
)
def test_no_cell_is_a_formula(cell: str, written: str) -> None:
    found = [one for one in attachments(with_cell(cell)) if one.media_type == CSV]
    answer = next(one for one in found if one.name == "result of the diagnostic query")
    assert list(csv.reader(io.StringIO(answer.content))) == [["a"], [written]]


def test_attachments_have_no_escape_sequences() -> None:
    contents = "".join(one.content for one in attachments(with_cell("\x1b[31m\u202e")))
    assert "\x1b" not in contents
    assert "\u202e" not in contents
    assert "\\x1b[2J" in contents


def test_a_page_shows_what_turns_the_direction_of_text() -> None:
    assert text("a\u202etxt.exe") == "a\\u202etxt.exe"
    assert text("naïve café 日本") == "naïve café 日本"


def test_usage_is_shown_for_the_session_and_the_run() -> None:
    one = with_cell("x")
    assert "2 prompts, 1,500 tokens read, 0.5 USD, m-1" in render_html(document(one))
    used = "the analyzer says it used 2 prompts, 1,500 tokens, 0.5 USD, 0.5 USD for each fault solved"
    assert used in facts(build_scorecard([one]), brief=True)
