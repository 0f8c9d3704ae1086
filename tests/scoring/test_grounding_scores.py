"""Scores of evidence and of the investigation path, the assertion, and how reports show them."""

import pytest

from pytest_otel_diag.model.grounding import Claim, Grounding, PathCoverage
from pytest_otel_diag.model.scenario import InvestigationStep
from pytest_otel_diag.model.session import QueryRecord
from pytest_otel_diag.model.telemetry import Table
from pytest_otel_diag.plugin.fixtures import properties
from pytest_otel_diag.reports.attachments import attachments
from pytest_otel_diag.reports.blocks import REFUTED_SHOWN, brief_blocks
from pytest_otel_diag.reports.session_page import body
from pytest_otel_diag.reports.session_tables import evidence, expected_and_found
from pytest_otel_diag.scoring.assertions import DiagnosedSession, DiagnosisMissed
from pytest_otel_diag.scoring.grounding.path import path_coverage
from pytest_otel_diag.scoring.scorecard import build_scorecard
from pytest_otel_diag.sessions.investigation.sightings import Sightings
from tests.scoring.samples import control, ranked

INVENTED = Claim(
    kind="figure",
    place="root_causes.0.evidence.0.summary",
    cited="12 of 19 calls failed",
    outcome="refuted",
    found="telemetry: 3 of 19 calls failed (payment Charge, the incident)",
)
OPEN = Claim(kind="figure", place="summary", cited="p95 2 s", outcome="unchecked", found="no traces")
REAL = Grounding(confirmed=4, entities=4, entities_known=4)
DOUBTFUL = Grounding(
    confirmed=3, refuted=1, unchecked=1, entities=4, entities_known=3, claims=(INVENTED, OPEN)
)
SILENT = Grounding(entities=2, entities_known=2)


def judged(name, grounding, *, rank=1, **verdict):
    return ranked(name, rank, verdict={"grounding": grounding, **verdict})


def values(card, *names):
    return tuple((card.metric(name).value, card.metric(name).n) for name in names)


def test_scores_of_evidence():
    quiet = control("quiet")
    card = build_scorecard(
        [judged("a", REAL), judged("b", DOUBTFUL), judged("c", SILENT), judged("d", REAL, rank=2), quiet]
    )
    assert values(card, "evidence_grounded", "cites_nothing", "entities_exist", "solved_grounded") == (
        (pytest.approx(2.75 / 3), 3),  # what cites nothing is not grounded, and not invented either
        (0.25, 4),
        (pytest.approx(3.75 / 4), 4),
        (0.25, 4),  # "a" alone: "b" invents, "c" cites nothing, "d" is wrong
    )
    assert card.metric("evidence_grounded").low is not None


def test_unchecked_evidence_has_no_scores():
    card = build_scorecard([ranked("a", 1)])
    for name in ("evidence_grounded", "cites_nothing", "entities_exist", "solved_grounded", "path_covered"):
        assert card.metric(name).value is None


def test_the_refuted_claim_stands_beside_the_true_figure_in_every_report():
    session = judged("b", DOUBTFUL)
    (block,) = [block for block in brief_blocks(build_scorecard([session])) if "refutes" in block.title]
    assert block.rows == (("b", "solved", INVENTED.cited, INVENTED.found),)
    assert [row[1:3] for row in evidence(session).rows] == [
        (INVENTED.cited, INVENTED.found),
        (OPEN.cited, OPEN.found),
    ]
    (row,) = [row for row in expected_and_found(session).rows if row[0] == "evidence"]
    assert row == ("evidence", "✗ no", "confirmed by telemetry", "3 confirmed, 1 refuted, 1 open")
    assert INVENTED.found in body(session)
    (csv,) = [one.content for one in attachments(session) if one.name == "evidence that is not confirmed"]
    assert INVENTED.cited in csv
    assert ("otel_diag.evidence", "3 confirmed, 1 refuted, 1 open") in properties(session)


def test_a_summary_lists_some_of_many_refuted_claims():
    many = DOUBTFUL.model_copy(update={"refuted": 30, "claims": (INVENTED,) * 30})
    (block,) = [b for b in brief_blocks(build_scorecard([judged("b", many)])) if "refutes" in b.title]
    assert len(block.rows) == REFUTED_SHOWN
    assert block.notes == ("and 20 more, on the pages of their sessions",)


def test_assert_grounded():
    DiagnosedSession(judged("a", REAL)).assert_grounded()
    for grounding, words in (
        (DOUBTFUL, "the evidence is not real"),
        (SILENT, "cites nothing that could be checked"),
        (None, "the evidence was not checked"),
    ):
        with pytest.raises(DiagnosisMissed, match=words):
            DiagnosedSession(judged("a", grounding)).assert_grounded()
    with pytest.raises(DiagnosisMissed) as caught:
        DiagnosedSession(judged("a", DOUBTFUL)).assert_grounded()
    assert "cited 12 of 19 calls failed; telemetry: 3 of 19 calls failed" in " ".join(
        str(caught.value).split()
    )


def queries(*asked: tuple[str, tuple[str, ...]]) -> tuple[tuple[QueryRecord, ...], Sightings]:
    seen, records = Sightings(), []
    for signal, services in asked:
        seen.add("SELECT", None, Table(("service",), (list(services),)))
        records.append(QueryRecord(sql="SELECT", elapsed_s=0.1, rows=len(services), data_sources=(signal,)))
    return tuple(records), seen


PATH = (
    InvestigationStep(hint="look at the traces of the frontend", signal="traces", services=("frontend",)),
    InvestigationStep(hint="who logs errors?", signal="logs"),
    InvestigationStep(hint="look at payment", signal="traces", services=("payment", "checkout")),
)


@pytest.mark.parametrize(
    ("asked", "covered", "in_order"),
    [
        ((), 0, 0),
        ((("traces", ("frontend",)), ("logs", ("cart",)), ("traces", ("payment",))), 3, 3),
        ((("traces", ("payment",)), ("logs", ("cart",)), ("traces", ("frontend",))), 3, 1),
        ((("traces", ("cart",)), ("logs", ())), 0, 0),
        ((("traces", ("frontend", "payment")),), 2, 2),
    ],
)
def test_steps_that_queries_cover(asked, covered, in_order):
    found = path_coverage(PATH, *queries(*asked))
    assert found == PathCoverage(steps=3, covered=covered, in_order=in_order)


def test_scores_of_the_path():
    card = build_scorecard([judged("a", None, path=PathCoverage(steps=4, covered=3, in_order=2))])
    assert values(card, "path_covered", "path_in_order") == ((0.75, 1), (0.5, 1))
    assert path_coverage((), (), Sightings()) is None
    assert path_coverage(PATH, (), None) is None
