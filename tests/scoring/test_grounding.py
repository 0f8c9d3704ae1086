"""What a diagnosis cites, checked against a small session in a real store."""

from collections.abc import Iterator
from typing import Any

import pytest

from pytest_otel_diag.model.diagnosis import Anomaly, Diagnosis, DiagnosticQuery, Evidence, Figure, RootCause
from pytest_otel_diag.model.grounding import Grounding
from pytest_otel_diag.model.session import SessionWindows
from pytest_otel_diag.model.telemetry import Table
from pytest_otel_diag.model.verdict import QueryVerdict, Verdict
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import JudgeFacts, Telemetry
from pytest_otel_diag.scoring.grounding.grounded import ground
from pytest_otel_diag.sessions.investigation.sightings import Sightings
from pytest_otel_diag.telemetry.store import Store
from pytest_otel_diag.testing.sample_telemetry import (
    SECOND_NS,
    START_NS,
    gauge_table,
    logs_table,
    span,
    traces_table,
)

SERVICES = ("front", "payment", "cart")
CHARGE = "oteldemo.PaymentService/Charge"


def seconds(start: float, end: float) -> Window:
    return Window(start_ns=START_NS + round(start * SECOND_NS), end_ns=START_NS + round(end * SECOND_NS))


BASELINE, INCIDENT = seconds(0, 40), seconds(60, 100)
WINDOWS = SessionWindows(baseline=BASELINE, incident=INCIDENT)


def trace_id(number: int) -> str:
    return f"{number:032x}"


def span_id(number: int, part: int) -> str:
    return f"{number:08x}{part:08x}"


def _spans() -> list[dict[str, Any]]:
    """40 traces in the baseline, one after it, 19 in the incident; payment fails in three of the latter."""
    rows = []
    moments = [*range(40), 50, *(60 + number * 2 for number in range(19))]
    for number, at_s in enumerate(moments):
        late = at_s >= 60
        failing, slow = late and at_s < 66, 1200.0 if late else 300.0
        trace, root = trace_id(number), span_id(number, 1)
        rows += [
            span(trace, root, at_s=at_s, ms=slow + 10, operation="GET /checkout"),
            span(
                trace, span_id(number, 2), root, service="payment", operation=CHARGE, at_s=at_s, ms=slow,
                error=failing,
            ),
        ]  # fmt: skip
        if late and number % 4 == 0:  # never reaches payment
            rows.append(
                span(
                    f"d{trace[1:]}",
                    span_id(number, 4),
                    operation=CHARGE,
                    kind="Client",
                    at_s=at_s,
                    error=True,
                )
            )
        if number == 50:
            rows.append(
                {
                    **span(f"e{trace[1:]}", span_id(number, 5), operation="SELECT", kind="Client", at_s=at_s),
                    "SpanAttributes": [("server.address", "astronomy-db:5432")],
                }
            )
        if number % 2:
            rows.append(span(f"c{trace[1:]}", span_id(number, 3), service="cart", operation="Get", at_s=at_s))
    return rows


@pytest.fixture(scope="module")
def telemetry() -> Iterator[Telemetry]:
    with Store.open() as store:
        store.create_database("grounding")
        store.ingest_arrow("grounding", "otel_traces", traces_table(_spans()))
        lines = [(61.0 + number, "payment", "ERROR", f"charge {number} refused") for number in range(7)]
        store.ingest_arrow("grounding", "otel_logs", logs_table([*lines, (62.0, "payment", "INFO", "ready")]))
        store.ingest_arrow(
            "grounding", "otel_metrics_gauge",
            gauge_table([(at_s, "payment", "heap", 100.0 + at_s) for at_s in range(60, 100, 10)]),
        )  # fmt: skip
        handle = store.telemetry("grounding")
        yield handle
        handle.close()


def read(*texts: str) -> Sightings:
    seen = Sightings()
    seen.add("SELECT", None, Table(("text",), (list(texts),)))
    return seen


EVERYTHING = read(
    *SERVICES, CHARGE, *(trace_id(number) for number in range(60)), *(span_id(n, 2) for n in range(60))
)


async def grounded(telemetry: Telemetry, *evidence: Evidence, **fields: Any) -> Grounding:
    seen = fields.pop("seen", EVERYTHING)
    windows = fields.pop("windows", WINDOWS)
    query = fields.pop("judged", None)
    cause = RootCause(service="payment", operation="Charge", evidence=evidence, **fields.pop("cause", {}))
    diagnosis = Diagnosis(detected=True, root_causes=(cause,), **fields)
    facts = JudgeFacts(telemetry=telemetry, known_services=SERVICES, sightings=seen, windows=windows)
    return await ground(diagnosis, Verdict(fault_present=True, detected=True, query=query), facts)


def cited(summary: str = "", **fields: Any) -> Evidence:
    return Evidence(source=fields.pop("source", "traces"), summary=summary, **fields)


def figure(measure: str, value: float, service: str = "payment", **fields: Any) -> Evidence:
    return cited(figures=(Figure(measure=measure, value=value, service=service, **fields),))


def counts(found: Grounding) -> tuple[int, int, int]:
    return found.confirmed, found.refuted, found.unchecked


def refutation(found: Grounding) -> str:
    assert found.refuted == 1, found.claims
    return next(one.found for one in found.claims if one.outcome == "refuted")


async def test_a_real_trace_and_span_of_the_service_that_was_read_are_confirmed(telemetry):
    found = await grounded(telemetry, cited(trace_ids=(trace_id(45).upper(),), span_ids=(span_id(45, 2),)))
    assert counts(found) == (2, 0, 0)
    assert found.grounded
    assert found.share == 1.0
    assert (found.entities, found.entities_known) == (2, 2)


@pytest.mark.parametrize(
    ("evidence", "truth"),
    [
        (cited(trace_ids=("f" * 32,)), "no such trace"),
        (cited(trace_ids=("\ud800 or 1=1",)), "no such trace"),
        (cited(span_ids=("f" * 16,)), "no such span"),
        (cited(trace_ids=("c" + trace_id(43)[1:],)), "does not touch payment; it touches cart"),
        (cited(span_ids=(span_id(43, 3),)), "does not touch payment; it touches cart"),
        (cited(trace_ids=(trace_id(40),)), "outside of the session's windows"),
    ],
)
async def test_invented_and_unrelated_ids_are_refuted(telemetry, evidence, truth):
    found = await grounded(telemetry, evidence)
    assert truth in refutation(found)
    assert not found.grounded


async def test_a_trace_may_touch_a_service_that_the_evidence_names_instead(telemetry):
    found = await grounded(
        telemetry, cited(trace_ids=("c" + trace_id(43)[1:],), services=("cart",)), seen=None
    )
    assert counts(found) == (2, 0, 0)


async def test_evidence_that_no_query_returned_is_refuted_for_ids_and_open_for_names(telemetry):
    evidence = cited(trace_ids=(trace_id(45),), services=("cart",))
    found = await grounded(telemetry, evidence, seen=read("payment"))
    assert counts(found) == (0, 1, 1)
    assert refutation(found) == "the trace exists, but no query of the session returned it"


async def test_what_was_read_is_not_held_against_an_analyzer_that_read_more_than_is_kept(telemetry):
    seen = read("payment")
    seen.complete = False
    assert counts(await grounded(telemetry, cited(trace_ids=(trace_id(45),)), seen=seen)) == (1, 0, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 of 19 calls failed", (1, 0, 0)),
        ("12 of 19 calls failed", (0, 1, 0)),
        ("3 of 25 calls failed", (0, 1, 0)),
        ("2 of 12 gold calls failed", (0, 0, 1)),
        ("10 % of gold calls failed", (0, 0, 1)),
        ("3 of 19 gold calls failed", (1, 0, 0)),
        ("2 of 12 Charge calls failed", (0, 1, 0)),
        ("3 of 19 calls of Charge failed", (1, 0, 0)),
        ("15.8 % of calls failed", (1, 0, 0)),
        ("error rate rose to 16 %", (1, 0, 0)),
        ("error rate rose to 15.79 %", (1, 0, 0)),
        ("error rate rose to 37 %", (0, 1, 0)),
        ("error rate rose from 0 % to 16 %", (2, 0, 0)),
        ("p95 1.2 s against 300 ms", (2, 0, 0)),
        ("p95 1.2 s against 900 ms", (1, 1, 0)),
        ("p95 rose to 5 s", (0, 1, 0)),
        ("p95 was 1,200 ms", (1, 0, 0)),
        ("12 of 19 calls failed with code 13", (0, 1, 0)),
        ("2 of 19 calls failed with code 13", (0, 0, 1)),
        ("12 of 25 calls failed since 10:03", (0, 1, 0)),
        ("1 of 5 calls failed in the last minute", (0, 0, 1)),
        ("front and payment: 3 of 19 calls failed", (1, 0, 0)),
        ("7 error log lines", (1, 0, 0)),
        ("70 error log lines", (0, 1, 0)),
        ("3 error log lines", (0, 0, 1)),
        ("the error rate peaked at 90 %", (0, 0, 1)),
        ("payment is broken, 42 users complained", (0, 0, 0)),
    ],
)
async def test_figures_in_sentences(telemetry, text, expected):
    assert counts(await grounded(telemetry, cited(text))) == expected


async def test_the_true_figure_stands_beside_a_refuted_one(telemetry):
    found = await grounded(telemetry, cited("12 of 19 calls failed"), cited("12 of 19 calls failed"))
    (one,) = found.claims
    assert one.cited == "12 of 19 calls failed"
    assert one.place == "root_causes.0.evidence.0.summary"
    assert one.found == f"telemetry: 3 of 19 calls failed (payment {CHARGE}, the incident)"


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (figure("failed", 3), (1, 0, 0)),
        (figure("failed", 12), (0, 1, 0)),
        (figure("calls", 19, operation="Charge"), (1, 0, 0)),
        (figure("calls", 40, window="baseline"), (1, 0, 0)),
        (figure("calls", 40), (0, 1, 0)),
        (figure("error_ratio", 0.158), (1, 0, 0)),
        (figure("error_ratio", 0.1579), (1, 0, 0)),
        (figure("error_ratio", 0.16), (1, 0, 0)),
        (figure("error_ratio", 0.2), (1, 0, 0)),
        (figure("error_ratio", 0.25), (0, 1, 0)),
        (figure("error_ratio", 0), (0, 1, 0)),
        (figure("error_ratio", 16, unit="%"), (1, 0, 0)),
        (figure("p95_ms", 1.2, unit="s"), (1, 0, 0)),
        (figure("p99_ms", 300, window="baseline"), (1, 0, 0)),
        (figure("p50_ms", 900), (0, 1, 0)),
        (figure("calls", 5, window=seconds(60, 70)), (1, 0, 0)),
        (figure("calls", 5, window=seconds(45, 70)), (0, 0, 1)),
        (figure("log_lines", 7, subject="REFUSED"), (1, 0, 0)),
        (figure("log_lines", 6, subject="refused"), (0, 1, 0)),
        (figure("log_lines", 8), (1, 0, 0)),
        (figure("metric", 190, subject="heap"), (1, 0, 0)),
        (figure("metric", 175, subject="heap"), (1, 0, 0)),
        (figure("metric", 164, subject="heap"), (0, 0, 1)),
        (figure("metric", 900, subject="heap"), (0, 1, 0)),
        (figure("metric", 900, subject="no such metric"), (0, 0, 1)),
        (figure("calls", 0, operation="Refund"), (1, 0, 0)),
        (figure("failed", 2, operation="Refund"), (0, 1, 0)),
    ],
)
async def test_structured_figures(telemetry, evidence, expected):
    assert counts(await grounded(telemetry, evidence)) == expected


async def test_a_figure_of_the_other_window_is_named_as_such(telemetry):
    found = await grounded(telemetry, figure("p95_ms", 300))
    assert refutation(found).endswith("the figure is that of the baseline")


async def test_a_comparison_with_quiet_time_may_mean_the_reference(telemetry):
    windows = SessionWindows(baseline=seconds(0, 10), incident=INCIDENT, reference=(seconds(20, 30),))
    for text, expected in (
        ("0 of 10 calls failed in quiet time", (1, 0, 0)),
        ("0 of 20 calls failed in quiet time", (1, 0, 0)),
        ("5 of 20 calls failed in quiet time", (0, 0, 1)),
        ("5 of 10 calls failed in the baseline", (0, 1, 0)),
    ):
        assert counts(await grounded(telemetry, cited(text), windows=windows)) == expected


async def test_failed_calls_of_a_service_that_answers_none_may_be_those_of_its_callers(telemetry):
    windows = SessionWindows(baseline=BASELINE, incident=seconds(110, 120))
    assert counts(await grounded(telemetry, cited("19 of 19 calls failed"), windows=windows)) == (0, 0, 1)


async def test_failed_calls_as_their_callers_see_them_are_confirmed(telemetry):
    for text in ("4 of 4 calls to payment failed", "error rate rose to 100 %"):
        assert counts(await grounded(telemetry, cited(text))) == (1, 0, 0)
    assert counts(await grounded(telemetry, cited("5 of 5 calls to payment failed"))) == (0, 1, 0)


async def test_a_service_that_passes_failures_of_another_on_may_count_them_as_its_own(telemetry):
    found = await grounded(telemetry, figure("failed", 3, service="front", operation="GET /checkout"))
    assert counts(found) == (1, 0, 0)
    found = await grounded(telemetry, figure("failed", 2, service="front", operation="GET /checkout"))
    assert counts(found) == (0, 1, 0)


async def test_peers_that_only_attributes_of_spans_name_exist(telemetry):
    found = await grounded(
        telemetry, anomalies=(Anomaly(signal="latency", service="Astronomy-DB"),), seen=None
    )
    assert (found.entities, found.entities_known) == (3, 3)


async def test_without_a_baseline_its_figures_are_open(telemetry):
    found = await grounded(
        telemetry, figure("calls", 40, window="baseline"), windows=SessionWindows(incident=INCIDENT)
    )
    assert counts(found) == (0, 0, 1)


async def test_invented_services_and_operations_are_unknown_entities(telemetry):
    found = await grounded(
        telemetry,
        cited(services=("paymant",), operations=("Refund",)),
        anomalies=(Anomaly(signal="latency", service="cart", operation="GET /checkout"),),
    )
    # an operation of another service exists; "Charge" of payment does, too
    assert (found.entities, found.entities_known) == (6, 4)
    assert found.refuted == 2
    assert {one.cited for one in found.claims} == {"service paymant", "operation Refund of payment"}


async def test_a_diagnosis_that_names_a_service_only_cites_nothing(telemetry):
    found = await grounded(telemetry, cited("payment looks unhealthy"))
    assert found.cites_nothing
    assert not found.grounded
    assert found.share is None


SQL = "SELECT ServiceName, count() FROM otel_traces WHERE ServiceName = 'payment' GROUP BY ServiceName"


def answered(*cells: str) -> QueryVerdict:
    return QueryVerdict(executed=True, rows=int(bool(cells)), sample=(cells,) if cells else ())


@pytest.mark.parametrize(
    ("description", "judged", "expected"),
    [
        ("", QueryVerdict(executed=False, error="no such column"), (0, 1, 0)),
        ("", answered("payment", "3", "19"), (1, 0, 0)),
        ("", answered(), (0, 0, 1)),
        ("returns 2 rows", answered("payment", "3", "19"), (1, 1, 0)),
        ("12 of 40 calls failed", answered("payment", "12", "40"), (2, 0, 0)),
        ("12 of 40 calls failed", answered("payment", "3", "19"), (1, 1, 0)),
    ],
)
async def test_the_query_returns_what_is_claimed(telemetry, description, judged, expected):
    query = DiagnosticQuery(sql=SQL, description=description)
    assert counts(await grounded(telemetry, query=query, judged=judged)) == expected


async def test_hostile_diagnoses_are_capped(telemetry):
    evidence = cited(
        "12 of 19 calls failed, " * 20_000 + "((((" * 50_000,
        trace_ids=tuple(f"{number:032x}" for number in range(100_000)),
        services=tuple(f"service {number}" for number in range(10_000)),
    )
    found = await grounded(telemetry, evidence, summary="p95 1 ms to " * 50_000)
    assert len(found.claims) == 40
    assert found.left_out > 100_000
    assert found.confirmed + found.refuted + found.unchecked < 1200


async def test_anomalies_state_ratios_that_telemetry_can_confirm(telemetry):
    for observed, expected in ((3 / 19, (2, 0, 0)), (0.158, (2, 0, 0)), (0.4, (1, 1, 0))):
        deviation = Anomaly(
            signal="error_rate", service="payment", baseline=0.0, observed=observed, unit="ratio"
        )
        assert counts(await grounded(telemetry, anomalies=(deviation,))) == expected


async def test_no_reading_is_refuted_in_any_rounding_and_figures_far_from_all_are(telemetry):
    shares = (3 / 19, 4 / 4)  # of payment itself, and of the client spans that its callers have
    right = [f"error rate rose to {100 * share:.{digits}f} %" for share in shares for digits in range(5)]
    found = await grounded(telemetry, *map(cited, right))
    assert found.refuted == 0, found.claims
    wrong = [f"error rate rose to {share} %" for share in (33, 41.5, 58, 66.67, 71)]
    found = await grounded(telemetry, *map(cited, wrong))
    assert (found.confirmed, found.refuted) == (0, len(wrong)), found.claims
