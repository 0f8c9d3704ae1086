"""The judge, field by field, with the diagnostic query run on a real store."""

import pytest

from pytest_otel_diag.errors import TelemetryUnavailable
from pytest_otel_diag.model.diagnosis import Diagnosis, DiagnosticQuery, Evidence, Hypothesis, Usage
from pytest_otel_diag.model.scenario import ExpectedAnomaly, ExpectedRootCause
from pytest_otel_diag.model.session import Impact, ImpactReason, QueryRecord
from pytest_otel_diag.model.telemetry import CallEdge
from pytest_otel_diag.ports import JudgeFacts
from pytest_otel_diag.scoring.judge import judge, sub_path
from pytest_otel_diag.scoring.names import ServiceNames
from pytest_otel_diag.telemetry.store import Store
from tests.scoring.samples import anomaly, cause, faulty, path, quiet

SERVICES = ("frontend", "checkout", "payment", "cart", "redis", "email")
CALLS = (
    ("frontend", "checkout"),
    ("checkout", "payment"),
    ("checkout", "cart"),
    ("cart", "redis"),
)


@pytest.fixture
def facts(shop):
    def make(**fields):
        edges = tuple(CallEdge(caller=a, callee=b, calls=9, errors=0, p50_ms=1, p99_ms=2) for a, b in CALLS)
        return JudgeFacts(telemetry=shop, **({"known_services": SERVICES, "edges": edges} | fields))

    return make


def said(*causes, **fields):
    return Diagnosis(detected=True, root_causes=causes, **fields)


async def test_ranks_of_services_operations_and_mechanisms_are_separate(facts):
    scenario = faulty(
        root_causes=(
            ExpectedRootCause(service="payment", operation="Charge", mechanisms=("error", "unreachable")),
        )
    )
    diagnosis = said(
        cause("cart", operation="Empty"),
        cause("cart", operation="Get"),
        cause("PaymentService", operation="Refund", mechanism="latency"),
        cause("payment", operation="demo.Payment/Charge", mechanism="cpu"),
        cause("payment", mechanism="error"),
    )
    verdict = await judge(diagnosis, scenario, facts())
    assert (verdict.service_rank, verdict.operation_rank, verdict.mechanism_rank) == (2, 4, 5)
    assert verdict.expected_operation
    assert verdict.expected_mechanism
    assert (verdict.candidates, verdict.known_services) == (6, SERVICES)
    assert not verdict.top1


async def test_a_part_that_telemetry_gives_to_a_service_is_that_service(facts):
    scenario = faulty(root_causes=(ExpectedRootCause(service="payment"),))
    diagnosis = said(cause("node-b"), cause("4f1c"), cause("paymnt"))
    verdict = await judge(diagnosis, scenario, facts())
    assert verdict.parts == {
        "node-b": ("cart", "checkout", "frontend", "payment", "redis"),
        "4f1c": ("payment",),
    }
    assert verdict.service_rank == 2
    assert verdict.unknown_services == ("node-b", "paymnt")


async def test_the_right_mechanism_of_another_service_does_not_count(facts):
    scenario = faulty(root_causes=(ExpectedRootCause(service="payment", mechanisms=("cpu",)),))
    verdict = await judge(said(cause("cart", mechanism="cpu"), cause("payment")), scenario, facts())
    assert verdict.mechanism_rank is None
    assert verdict.operation_rank is None
    assert not verdict.expected_operation


async def test_alternatives_are_one_cause_and_faults_are_several(facts):
    either = faulty("either", "payment", "cart")
    verdict = await judge(said(cause("cart")), either, facts())
    assert (verdict.service_rank, verdict.causes_expected, verdict.causes_named) == (1, 1, 1)
    both = faulty(
        root_causes=(
            ExpectedRootCause(service="payment", fault="paymentUnreachable"),
            ExpectedRootCause(service="email", fault="emailMemoryLeak"),
        )
    )
    verdict = await judge(said(cause("payment"), cause("cart")), both, facts())
    assert (verdict.service_rank, verdict.causes_expected, verdict.causes_named) == (1, 2, 1)
    verdict = await judge(said(cause("payment"), cause("cart"), cause("email")), both, facts())
    assert verdict.causes_named == 2


async def test_a_list_of_all_services_names_none(facts):
    verdict = await judge(said(*map(cause, ("redis", "cart", "frontend", "payment"))), faulty(), facts())
    assert (verdict.service_rank, verdict.causes_named) == (4, 0)


async def test_anomalies_found_missed_and_spurious(facts):
    scenario = faulty(
        anomalies=(
            ExpectedAnomaly(service="payment", signal="error_rate", direction="up"),
            ExpectedAnomaly(service="checkout", signal="latency", operation="PlaceOrder"),
            ExpectedAnomaly(service="payment", signal="latency", direction="down"),
        )
    )
    diagnosis = said(
        anomalies=(
            anomaly("payment-service", "error_rate", operation="Charge", direction="up"),
            anomaly("checkout", "latency", operation="Other", direction="up"),
            anomaly("frontend", "latency", direction="up"),  # a caller of a caller: the fault explains it
            anomaly("email", "latency", direction="up"),
            anomaly("redis", "cpu", direction="up"),
        )
    )
    verdict = await judge(diagnosis, scenario, facts())
    assert [match.found for match in verdict.anomalies] == [
        "payment-service Charge error_rate up",
        None,
        None,
    ]
    assert verdict.anomalies[1].expected == "checkout PlaceOrder latency"
    assert verdict.spurious_anomalies == 2


async def test_downstream_of_the_root_cause_only_missing_calls_are_explained(facts):
    found = (anomaly("redis", "request_rate", direction="down"), anomaly("redis", "latency", direction="up"))
    verdict = await judge(said(anomalies=found), faulty("x", "cart"), facts())
    assert verdict.spurious_anomalies == 1


async def test_any_direction_matches_changed(facts):
    scenario = faulty(anomalies=(ExpectedAnomaly(service="cart", direction="changed"),))
    verdict = await judge(said(anomalies=(anomaly("cart", "logs", direction="down"),)), scenario, facts())
    assert verdict.anomalies[0].found == "cart logs down"


@pytest.mark.parametrize(
    ("services", "matched"),
    [
        (("frontend", "checkout", "payment"), True),
        (("Frontend", "Frontend", "checkout", "paymentservice"), True),
        (("email", "frontend", "checkout", "payment"), True),  # the invented hop is outside the match
        (("frontend", "payment"), False),  # no such edge
        (("frontend", "email", "payment"), False),
        (("payment", "checkout", "frontend"), False),
        (("frontend", "checkout"), False),
    ],
)
async def test_paths_are_ordered_and_follow_real_edges(facts, services, matched):
    scenario = faulty(paths=(("frontend", "payment"),))
    verdict = await judge(said(critical_paths=(path(*services),)), scenario, facts())
    assert (verdict.paths[0].found is not None) is matched
    assert verdict.paths[0].expected == "frontend → payment"


async def test_without_known_edges_only_the_order_counts(facts):
    scenario = faulty(paths=(("frontend", "payment"),))
    verdict = await judge(said(critical_paths=(path("frontend", "payment"),)), scenario, facts(edges=()))
    assert verdict.paths[0].found == "frontend → payment"


def test_the_shortest_matching_section_is_used():
    walked = ["a", "b", "a", "c", "d", "c"]
    assert sub_path(["a", "c"], walked, ServiceNames([])) == ("a", "c")
    assert sub_path(["a", "d"], walked, ServiceNames([])) == ("a", "c", "d")
    assert sub_path(["d", "a"], walked, ServiceNames([])) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"summary": "the flag paymentFailure is on"},
        {"root_causes": (cause("flagd", explanation="PAYMENTFAILURE at 50%"),)},
        {"root_causes": (cause("payment", evidence=(Evidence(source="logs", summary="paymentFailure!"),)),)},
        {"root_causes": (cause("payment", operation="paymentFailure"),)},
    ],
)
async def test_naming_the_flag_is_noticed_in_any_field(facts, fields):
    verdict = await judge(Diagnosis(detected=True, **fields), faulty(), facts())
    assert verdict.named_flag


async def test_a_longer_word_is_not_the_flag(facts):
    verdict = await judge(said(summary="paymentFailures rise"), faulty(flags=("other",)), facts())
    assert not verdict.named_flag


async def test_red_herrings_and_unknown_services(facts):
    scenario = faulty("x", "ghost", red_herrings=("image-provider", "cart"))
    verdict = await judge(
        said(cause("CartService"), cause("ghost"), cause("nowhere"), critical_paths=(path("cart", "void"),)),
        scenario,
        facts(),
    )
    assert verdict.named_red_herring == "cart"
    assert verdict.unknown_services == (
        "nowhere",
        "void",
    )  # the expected root cause may be missing in telemetry
    assert verdict.service_rank == 2
    blind = await judge(said(cause("nowhere")), scenario, facts(known_services=(), edges=()))
    assert (blind.unknown_services, blind.candidates, blind.named_red_herring) == ((), 0, None)
    assert (await judge(said(), scenario, facts())).named_red_herring is None


async def test_controls(facts):
    silent = await judge(Diagnosis(detected=False, root_causes=(cause("cart"),)), quiet(), facts())
    assert not silent.fault_present
    assert not silent.detected
    assert (silent.service_rank, silent.causes_expected) == (None, 0)
    loud = await judge(said(anomalies=(anomaly("cart", "cpu"),)), quiet(), facts())
    assert loud.detected
    assert loud.spurious_anomalies == 1


async def test_queries_are_judged_by_their_records(facts):
    def ran(**fields):
        return QueryRecord(**({"sql": "SELECT", "elapsed_s": 0.1, "rows": 3} | fields))

    queries = (
        ran(data_sources=("logs", "traces")),
        ran(data_sources=("metrics",), rows=0),
        ran(data_sources=("metrics",), error="timeout"),
        ran(),
    )
    verdict = await judge(said(), faulty(), facts(queries=queries))
    assert (verdict.queries_total, verdict.queries_irrelevant) == (4, 3)
    assert verdict.data_sources == ("traces", "logs")  # metrics were queried without a result


async def test_times_prompts_and_confidence_are_copied(facts):
    impact = Impact(reason=ImpactReason.VISIBLE, time_to_impact_s=12.5)
    diagnosis = said(confidence=0.75, usage=Usage(human_prompts=2))
    verdict = await judge(diagnosis, faulty(), facts(impact=impact, time_to_diagnosis_s=3.0))
    assert (verdict.time_to_impact_s, verdict.time_to_diagnosis_s) == (12.5, 3.0)
    assert (verdict.confidence, verdict.human_prompts) == (0.75, 2)
    assert (await judge(diagnosis, faulty(), facts())).time_to_impact_s is None


@pytest.mark.parametrize(
    ("services", "right"),
    [((None, "payment"), True), (("cart", "payment"), False), ((), None), ((None,), None)],
)
async def test_first_hypothesis_with_a_service(facts, services, right):
    hypotheses = tuple(
        Hypothesis(statement="s", service=service, status="kept", reason="r") for service in services
    )
    verdict = await judge(said(hypotheses=hypotheses), faulty(), facts())
    assert verdict.first_hypothesis_right is right
    assert (await judge(said(hypotheses=hypotheses), quiet(), facts())).first_hypothesis_right is None


async def asked(facts, sql, scenario=None):
    verdict = await judge(said(query=DiagnosticQuery(sql=sql)), scenario or faulty(), facts())
    assert verdict.query is not None
    return verdict.query


async def test_a_diagnosis_without_query_has_no_query_verdict(facts):
    assert (await judge(said(), faulty(), facts())).query is None


async def test_the_query_runs_and_shows_the_root_cause(facts):
    answer = await asked(
        facts,
        "SELECT ServiceName, countIf(StatusCode = 'Error') AS errors FROM otel_traces "
        "GROUP BY ServiceName ORDER BY errors DESC",
    )
    assert answer.executed
    assert answer.shows_culprit
    assert (answer.rows, answer.columns) == (5, ("ServiceName", "errors"))
    assert answer.sample[0] == ("payment", "1")
    assert answer.elapsed_s > 0


@pytest.mark.parametrize(
    ("sql", "shows"),
    [
        ("SELECT ServiceName FROM otel_traces WHERE ServiceName = 'cart'", False),
        ("SELECT count() FROM otel_traces", False),
        ("SELECT ServiceName FROM otel_traces WHERE ServiceName = 'nobody'", False),
        ("SELECT groupArray(ServiceName) FROM otel_traces", True),
        ("SELECT map('payment', 1) AS m FROM otel_traces", True),
        ("SELECT [(1, 'payment')] FROM otel_traces", True),
        ("SELECT toFixedString('payment', 8) FROM otel_traces", True),
        ("SELECT 'payment-gateway' FROM otel_traces", False),
        ("SELECT 'payment' AS a", False),  # a constant is no evidence
        ("SELECT 'payment', 'otel_traces' -- otel_traces", False),
    ],
)
async def test_which_rows_show_the_root_cause(facts, sql, shows):
    answer = await asked(facts, sql)
    assert answer.error is None
    assert answer.shows_culprit is shows


async def test_a_control_has_no_root_cause_to_show(facts):
    assert not (await asked(facts, "SELECT ServiceName FROM otel_traces", quiet())).shows_culprit


@pytest.mark.parametrize(
    "sql",
    [
        "SELEC ServiceName FROM otel_traces",
        "SELECT nothing FROM otel_traces",
        "SELECT 1 FROM no_such_table",
        "DROP TABLE otel_traces",
        "SELECT 1; SELECT 2",
        "SELECT arrayJoin(range(20000)) FROM otel_traces",
        "",
        "SELECT '\ud800' FROM otel_traces",
    ],
)
async def test_rejected_queries_are_part_of_the_verdict(facts, sql):
    answer = await asked(facts, sql)
    assert not answer.executed
    assert not answer.shows_culprit
    assert answer.error is not None
    after = await asked(facts, "SELECT ServiceName FROM otel_traces WHERE ServiceName = 'payment'")
    assert after.sample == (("payment",),)


async def test_an_unavailable_store_does_not_count_against_the_analyzer(shop_store):
    _, name = shop_store
    with Store.open() as other:
        telemetry = other.telemetry(name)
    diagnosis = said(query=DiagnosticQuery(sql="SELECT ServiceName FROM otel_traces"))
    with pytest.raises(TelemetryUnavailable):
        await judge(diagnosis, faulty(), JudgeFacts(telemetry=telemetry))


async def test_samples_are_limited(facts):
    answer = await asked(facts, "SELECT repeat('ä', 300) AS long FROM otel_traces ARRAY JOIN range(6) AS n")
    assert (answer.executed, answer.rows, len(answer.sample)) == (True, 30, 20)
    assert answer.sample[0][0] == "ä" * 199 + "…"
