"""Tables of a session: injected and witnessed, expected and found, result of the query."""

import pytest

from pytest_otel_diag.model.diagnosis import Diagnosis, DiagnosticQuery, Mechanism, Usage
from pytest_otel_diag.model.exhibits import ExemplarTrace, ExhibitSpan, ServiceSeries
from pytest_otel_diag.model.scenario import Disturbance, ExpectedRootCause, Fault, FaultStep
from pytest_otel_diag.model.session import Attempt, DisturbanceMoment, LeakAudit, PhaseRecord, Witness
from pytest_otel_diag.model.verdict import QueryVerdict
from pytest_otel_diag.reports.attachments import attachments
from pytest_otel_diag.reports.blocks import facts
from pytest_otel_diag.reports.pictures.intervals import lanes
from pytest_otel_diag.reports.session_page import body
from pytest_otel_diag.reports.session_tables import (
    attempts,
    expected_and_found,
    fault_start_ns,
    injected,
    phases,
    query_answer,
)
from pytest_otel_diag.scoring.scorecard import build_scorecard
from tests.reports.documents import BROKEN
from tests.scoring.samples import SECOND, control, ranked, solved


def with_scenario(one, **changes):
    return one.model_copy(update={"scenario": one.scenario.model_copy(update=changes)})


def test_injected_shows_schedule_witness_and_harmless_changes():
    faults = (
        Fault(flag="ramp", variant="10%", at_s=5, steps=(FaultStep(at_s=30, variant="50%"),)),
        Fault(flag="flapping", until_s=20, every_s=60),
        Fault(flag="never"),
    )
    load = Disturbance(kind="load", factor=2, at_s=10)
    restart = Disturbance(kind="restart", service="cart")
    one = with_scenario(solved("a"), faults=faults, disturbances=(load, restart)).model_copy(
        update={
            "witnesses": (
                Witness(flag="ramp", variant="10%", reads=3, confirmed=True, at_ns=7 * SECOND),
                Witness(
                    flag="flapping", variant="on", reads=9, confirmed=False, at_ns=8 * SECOND, detail="off"
                ),
            ),
            "disturbances": (DisturbanceMoment(at_ns=9 * SECOND, disturbance=load),),
        }
    )
    assert injected(one).rows == (
        ("ramp", "10%, then 50% from 30 s", "after 5 s", "3", "served, 1970-01-01T00:00:07.000Z", ""),
        (
            "flapping",
            "on",
            "at once, until 20 s, again every 60 s",
            "9",
            "NOT SERVED, 1970-01-01T00:00:08.000Z",
            "off",
        ),
        ("never", "the target's default fault", "at once", "–", "not reached", ""),
        ("harmless change", "load × 2", "after 10 s", "–", "1970-01-01T00:00:09.000Z", ""),
        ("harmless change", "restart of cart", "at once", "–", "not made", ""),
    )
    assert injected(one).styles == ("good", "bad", "plain", "plain", "plain")
    assert fault_start_ns(one) == 7 * SECOND
    assert [name for name, _ in lanes(one, 60 * SECOND)] == ["ramp", "load × 2"]
    assert lanes(solved("a"), 60 * SECOND) == ()


def test_expected_and_found_shows_matches_and_the_first_service():
    one = ranked(
        "a", 2, verdict={"expected_operation": True, "expected_mechanism": True, "mechanism_rank": 1}
    )
    wanted = one.scenario.expectation.model_copy(
        update={
            "root_causes": (
                ExpectedRootCause(service="payment", operation="Charge", mechanisms=(Mechanism.ERROR,)),
            )
        }
    )
    rows = expected_and_found(with_scenario(one, expectation=wanted)).rows
    assert rows[:4] == (
        ("detection", "✓ yes", "a fault", "detected"),
        ("root cause", "✗ no", "payment", "rank 2 (cart first)"),
        ("operation", "✗ no", "Charge", "not named"),
        ("mechanism", "✓ yes", "error", "rank 1"),
    )
    two = ranked("a", 1, verdict={"named_flag": True})
    two = two.model_copy(
        update={"verdict": two.verdict.model_copy(update={"causes_expected": 2, "causes_named": 1})}
    )
    found = {row[0]: row[1:] for row in expected_and_found(two).rows}
    assert found["causes named"] == ("✗ no", "2", "1 of 2")
    assert found["flag named"][0] == "! look"
    read = LeakAudit(policy="redact", rows={"flag_events": 1}, queries_asked=1, queries_answered=2)
    three = ranked("a", 1).model_copy(update={"leaks": read})
    found = {row[0]: row[1:] for row in expected_and_found(three).rows}
    assert found["flag in telemetry"] == ("", "", "1 row (1 x events), redact")
    assert found["flag read"] == ("! look", "", "1 query asked for flags, 2 returned the injected flag")


def test_a_control_is_right_when_nothing_is_wrong():
    assert expected_and_found(control("a")).rows[0] == (
        "detection",
        "✓ yes",
        "nothing wrong",
        "nothing wrong",
    )
    assert expected_and_found(control("a", alarm=True)).rows[0][1:] == ("✗ no", "nothing wrong", "detected")
    assert expected_and_found(solved("a").model_copy(update={"verdict": None})).rows == ()


def test_the_result_of_the_query_states_how_many_rows_are_shown():
    answer = QueryVerdict(executed=True, rows=30, shows_culprit=True, columns=("a",), sample=(("1",), ("2",)))
    one = ranked("a", 1, verdict={"query": answer})
    block = query_answer(one)
    assert block.notes == ("30 rows in 0.000 s, shows the culprit; the first 2 are shown",)
    one = one.model_copy(
        update={
            "diagnosis": one.diagnosis.model_copy(update={"query": DiagnosticQuery(sql=f"SELECT '{BROKEN}'")})
        }
    )
    found = {item.name: item for item in attachments(one)}
    assert found["diagnostic query"].content.endswith(
        "\n-- 30 rows in 0.000 s, shows the culprit; the first 2 are shown\n"
    )
    assert found["diagnostic query"].content.encode()
    assert found["result of the diagnostic query"].content == "a\n1\n2\n"


def test_phases_count_from_the_opening_of_the_target():
    one = solved(
        "a",
        phases=tuple(
            PhaseRecord(phase=name, start_ns=at * SECOND, end_ns=to * SECOND, wall_s=0.5, outcome=outcome)
            for name, at, to, outcome in (("preflight", 10, 10, "ok"), ("baseline", 10, 70, "failed"))
        ),
    )
    assert [row[3:6] for row in phases(one).rows] == [("+0.0", "0.0", "0.500"), ("+0.0", "60.0", "0.500")]
    assert phases(one).styles == ("plain", "bad")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ServiceSeries(service="a", requests=(1,), errors=(), p95_ms=(None,)),
        lambda: ExemplarTrace(
            trace_id="a",
            start_ns=1,
            spans_total=1,
            spans=(ExhibitSpan(parent=1, service="a", operation="b", start_ms=0, duration_ms=1),),
        ),
    ],
)
def test_inconsistent_exhibits_are_rejected(wrong):
    with pytest.raises(ValueError, match=r"differ in length|are not among"):
        wrong()


def test_attempts_show_what_was_said_and_which_hint_followed():
    one = solved("a").model_copy(
        update={
            "attempts": (
                Attempt(elapsed_s=1.0, hint="Compare errors."),
                Attempt(elapsed_s=2.0, detected=True, cause="cart", right=False, hint="Look at Charge."),
                Attempt(elapsed_s=3.0, detected=True, cause="payment", right=True),
            )
        }
    )
    block = attempts(one)
    assert block.rows == (
        ("1.0 s", "no cause", "not judged", "Compare errors."),
        ("2.0 s", "cart", "wrong", "Look at Charge."),
        ("3.0 s", "payment", "right", ""),
    )
    assert block.styles == ("plain", "bad", "good")
    assert "Look at Charge." in body(one) and ">attempts<" not in body(solved("b"))


def test_a_scorecard_of_guided_sessions_says_so():
    guided = solved("a", diagnosis=Diagnosis(detected=True, usage=Usage(human_prompts=2)))
    assert "2 human prompts: the scores are those of a guided analyzer" in facts(build_scorecard([guided]))
