"""Assertions of tests, and the table of a failed assertion."""

import pytest

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.diagnosis import Diagnosis, Evidence
from pytest_otel_diag.model.scenario import ExpectedRootCause
from pytest_otel_diag.model.verdict import QueryVerdict, Verdict
from pytest_otel_diag.scoring.assertions import DiagnosedSession, DiagnosisMissed, SessionNotScored
from pytest_otel_diag.scoring.text import cell_width
from tests.scoring.samples import anomaly, cause, faulty, path, quiet, session

SERVICES = ("frontend", "checkout", "payment", "cart", "email")


def diagnosed(*causes, scenario=None, verdict=None, **fields):
    answer = Diagnosis(**({"detected": True, "root_causes": causes} | fields))
    defaults = {"fault_present": True, "detected": answer.detected, "known_services": SERVICES}
    judged = Verdict(**(defaults | (verdict or {})))
    return DiagnosedSession(session(scenario or faulty(), judged, diagnosis=answer))


def missed(assertion, *arguments, **keywords):
    with pytest.raises(DiagnosisMissed) as caught:
        assertion(*arguments, **keywords)
    message = str(caught.value)
    assert all(len(line) <= 100 for line in message.splitlines())
    return message


CHARGE = cause("payment", operation="demo.Payment/Charge", mechanism="error", score=3.14159)
PLACE = cause(
    "checkout", operation="PlaceOrder", mechanism="latency", score=4.2, explanation="slow since 14:07"
)


P99 = Evidence(source="traces", summary="p99")


def test_a_right_diagnosis_passes_every_assertion():
    result = diagnosed(
        CHARGE,
        PLACE,
        anomalies=(anomaly("payment", "error_rate", direction="up", operation="Charge"),),
        critical_paths=(path("frontend", "checkout", "payment"),),
        verdict={
            "service_rank": 1,
            "causes_expected": 1,
            "causes_named": 1,
            "query": QueryVerdict(executed=True, rows=1, columns=("s",), sample=(("Payment 3",),)),
        },
    )
    result.assert_detected()
    result.assert_anomaly(service="payment")
    result.assert_anomaly(service="Payment", signal="error_rate", operation="Charge", direction="up")
    result.assert_path("frontend", "checkout", "payment")
    result.assert_path("frontend", "paymentservice")
    result.assert_path("checkout")
    result.assert_root_cause("payment")
    result.assert_root_cause("payment-service", "Charge", "error", top=1)
    result.assert_root_cause("checkout", mechanism="latency", top=2)
    result.assert_not_blamed("cart")
    result.assert_not_blamed("checkout")
    result.assert_query_shows("payment")
    result.assert_expected()
    assert result.named("payment")
    assert result.named("checkout")
    assert not result.named("checkout", top=1)
    assert not result.named("email")
    assert (result.status, result.detected) == ("scored", True)
    assert (len(result.anomalies), len(result.root_causes), len(result.paths)) == (1, 2, 1)


def test_a_missed_root_cause_shows_expected_found_nearest_and_evidence():
    result = diagnosed(PLACE, CHARGE, cause("cart", evidence=(Evidence(source="logs", summary="3 errors"),)))
    assert missed(result.assert_root_cause, "payment", "Charge", "error") == (
        "the root cause was not named (payment-down on shop, analyzer builtin)\n"
        "  expected  payment Charge error, first\n"
        "  found     checkout\n"
        "  nearest   #2 payment demo.Payment/Charge error (score 3.14)\n"
        "  evidence\n"
        "    #  service   operation            mechanism  score  why\n"
        "    1  checkout  PlaceOrder           latency    4.2    slow since 14:07\n"
        "    2  payment   demo.Payment/Charge  error      3.14\n"
        "    3  cart      -                    -          -      3 errors\n"
        "  session   s-payment-down-0"
    )


def test_the_right_service_with_another_operation_or_mechanism_is_a_miss():
    result = diagnosed(CHARGE)
    assert "#1 payment" in missed(result.assert_root_cause, "payment", "Refund")
    assert "payment cpu, first" in missed(result.assert_root_cause, "payment", mechanism="cpu")
    assert "in the first 2" in missed(result.assert_root_cause, "cart", top=2)


def test_a_diagnosis_without_causes_and_a_misspelt_service():
    empty = missed(diagnosed().assert_root_cause, "paymnet")
    assert "found     no root cause" in empty
    assert "nearest   did you mean 'payment'?" in empty
    assert "evidence" not in empty
    assert "nearest" not in missed(diagnosed().assert_root_cause, "zzzzzz")


def test_top_counts_services_not_lines():
    result = diagnosed(*(cause("cart", operation=f"op{i}") for i in range(9)), CHARGE)
    result.assert_root_cause("payment", top=2)
    assert result.named("payment", top=2)
    message = missed(result.assert_root_cause, "email")
    assert "    and 5 more" in message


def test_detection_and_health():
    silent = diagnosed(PLACE, detected=False)
    silent.assert_healthy()
    assert "found     nothing wrong" in missed(silent.assert_detected)
    loud = diagnosed(confidence=0.9, anomalies=(anomaly("cart", "cpu", score=9.0),))
    loud.assert_detected()
    message = missed(loud.assert_healthy)
    assert "found     a fault, confidence 0.90" in message
    assert "cart     -          cpu     changed    9" in message


def test_a_missed_anomaly_lists_those_of_the_service_largest_first():
    result = diagnosed(
        anomalies=(
            anomaly("payment", "cpu", direction="up", score=2, baseline=1.0, observed=40.5, unit="%"),
            anomaly(
                "payment",
                "latency",
                direction="up",
                score=-7,
                evidence=(Evidence(source="traces", summary="p99"),),
            ),
            anomaly("cart", "logs", score=99),
        )
    )
    message = missed(result.assert_anomaly, service="payment", signal="error_rate", direction="up")
    assert "expected  payment error_rate up" in message
    assert "nearest   payment cpu up" in message
    lines = message.splitlines()
    assert lines.index("    payment  -          latency  up         -7     p99") < lines.index(
        "    payment  -          cpu      up         2      1 → 40.5 %"
    )
    assert "cart" not in message
    other = missed(result.assert_anomaly, service="emial")
    assert "did you mean 'email'?" in other
    assert "cart" in other


def test_a_missed_path_shows_the_path_with_most_services_in_common():
    result = diagnosed(critical_paths=(path("frontend", "cart"), path("checkout", "frontend", "payment")))
    message = missed(result.assert_path, "frontend", "checkout", "payment")
    assert "nearest   checkout → frontend → payment" in message
    assert "    high      frontend → cart" in message
    assert "nearest" not in missed(result.assert_path, "email")
    assert "no paths" in missed(diagnosed().assert_path, "email")
    with pytest.raises(ConfigurationError, match="needs services"):
        result.assert_path()


def test_a_blamed_innocent_service_is_shown():
    result = diagnosed(PLACE, CHARGE)
    message = missed(result.assert_not_blamed, "checkout")
    assert "expected  checkout not first" in message
    assert "found     #1 checkout PlaceOrder latency (score 4.2)" in message
    assert "not in the first 2" in missed(result.assert_not_blamed, "payment", top=2)


@pytest.mark.parametrize("name", ["paymnet", "nobody"])
def test_named_rejects_a_service_unknown_to_the_session(name):
    result = diagnosed(PLACE)
    with pytest.raises(ConfigurationError, match=f"no service '{name}'"):
        result.assert_not_blamed(name)
    with pytest.raises(ConfigurationError, match="choose from cart, checkout"):
        result.named(name)


def test_named_accepts_expected_services_that_are_missing_in_telemetry():
    result = diagnosed(PLACE, scenario=faulty("x", "ghost", red_herrings=("decoy",)))
    assert not result.named("ghost")
    assert not result.named("decoy")


def test_without_known_services_names_come_from_the_diagnosis():
    result = diagnosed(
        cause("paymentservice"),
        anomalies=(anomaly("cart", "cpu"),),
        critical_paths=(path("frontend", "cart"),),
        verdict={"known_services": ()},
    )
    assert result.named("payment")
    assert not result.named("whatever")
    result.assert_root_cause("Payment-Service")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (None, "no query"),
        (
            QueryVerdict(executed=False, error="QueryRejected: two statements"),
            "QueryRejected: two statements",
        ),
        (QueryVerdict(executed=False), "not executed"),
        (QueryVerdict(executed=True), "0 rows without it in the first 0"),
        (
            QueryVerdict(executed=True, rows=9, columns=("a",), sample=(("cart",),)),
            "9 rows without it in the first 1",
        ),
    ],
)
def test_a_query_that_does_not_show_it(query, found):
    message = missed(diagnosed(verdict={"query": query}).assert_query_shows, "payment")
    assert "expected  a row that contains 'payment'" in message
    assert f"found     {found}" in message
    assert ("    cart" in message) == bool(query and query.sample)


def test_expected_of_a_control_is_health():
    healthy = diagnosed(detected=False, scenario=quiet(), verdict={"fault_present": False})
    healthy.assert_expected()
    loud = diagnosed(scenario=quiet(), verdict={"fault_present": False})
    assert "a fault was reported" in missed(loud.assert_expected)


def test_expected_of_a_fault():
    right = {"service_rank": 1, "causes_expected": 1, "causes_named": 1}
    diagnosed(CHARGE, verdict=right).assert_expected()
    assert "no fault was detected" in missed(diagnosed(detected=False, verdict=right).assert_expected)
    late = missed(diagnosed(PLACE, CHARGE, verdict=right | {"service_rank": 2}).assert_expected)
    assert "expected  payment, first" in late
    assert "found     checkout, payment" in late
    assert "nearest   rank 2 of 2" in late
    never = missed(diagnosed(verdict=right | {"service_rank": None}).assert_expected)
    assert "found     no root cause" in never
    assert "nearest   not named at all" in never
    trapped = diagnosed(PLACE, verdict=right | {"service_rank": None, "named_red_herring": "checkout"})
    assert "a red herring was named first" in missed(trapped.assert_expected)
    diagnosed(verdict={"causes_expected": 0}).assert_expected()


def test_expected_of_several_faults_needs_all_causes():
    both = faulty(
        root_causes=(
            ExpectedRootCause(service="payment", fault="a"),
            ExpectedRootCause(service="cart", fault="b"),
        )
    )
    verdict = {"service_rank": 1, "causes_expected": 2, "causes_named": 1}
    message = missed(diagnosed(CHARGE, scenario=both, verdict=verdict).assert_expected)
    assert "not every root cause was named" in message
    assert "expected  payment and cart" in message


def test_unknown_terms_are_configuration_errors():
    result = diagnosed(CHARGE)
    with pytest.raises(ConfigurationError, match="no signal 'eror_rate' \\(did you mean 'error_rate'"):
        result.assert_anomaly(service="payment", signal="eror_rate")
    with pytest.raises(ConfigurationError, match="no mechanism 'gremlins'; choose from error, latency"):
        result.assert_root_cause("payment", mechanism="gremlins")


@pytest.mark.parametrize(
    "result",
    [
        session(faulty(), status="invalid", reason="NO_TRAFFIC"),
        session(faulty(), status="error", blame="analyzer", diagnosis=Diagnosis(detected=True)),
    ],
)
def test_assertions_need_a_scored_session(result):
    for assertion in (
        DiagnosedSession(result).assert_detected,
        DiagnosedSession(result).assert_healthy,
        DiagnosedSession(result).assert_expected,
        lambda: DiagnosedSession(result).named("payment"),
    ):
        with pytest.raises(SessionNotScored, match=f"payment-down is {result.status}") as caught:
            assertion()
        assert caught.value.status == result.status
    assert DiagnosedSession(result).status == result.status


def test_a_session_without_verdict_allows_only_assertions_about_the_diagnosis():
    bare = DiagnosedSession(session(faulty(), status="scored", diagnosis=Diagnosis(detected=True)))
    bare.assert_detected()
    with pytest.raises(SessionNotScored, match="not judged"):
        bare.assert_expected()


def test_hostile_names_stay_on_their_line():
    nasty = "péché\n\x1b[31m" + "界" * 200
    result = diagnosed(cause(nasty, explanation="a\tb\r\nc"), verdict={"known_services": (*SERVICES, nasty)})
    with pytest.raises(DiagnosisMissed) as caught:
        result.assert_root_cause("payment")
    message = str(caught.value)
    assert "\x1b" not in message
    assert "\\x1b[31m" in message
    lines = message.splitlines()
    assert all(cell_width(line) <= 100 for line in lines)
    assert [line.split()[0] for line in lines if line[:3].strip()] == [
        "the",
        "expected",
        "found",
        "evidence",
        "session",
    ]


def test_the_first_line_and_the_reasons_are_never_shortened():
    why = "own time of demo.Payment/Charge rose from 3 ms to 812 ms while its callers waited, " * 4
    name = "a-scenario-with-a-very-long-name-" * 5
    operation = "oteldemo.payment.v1.PaymentService/Charge"
    slow = cause("payment", operation=operation, mechanism="cpu", score=2.0, explanation=why)
    result = diagnosed(slow, PLACE, scenario=faulty(name))
    with pytest.raises(DiagnosisMissed) as caught:
        result.assert_root_cause("cart")
    first, *lines = str(caught.value).splitlines()
    assert first == f"the root cause was not named ({name} on shop, analyzer builtin)"
    assert " ".join(why.split()) in " ".join(" ".join(lines).split())
    assert f"    1  payment   {operation}  cpu        2" in lines
    assert "        slow since 14:07" in lines
    assert all(len(line) <= 100 for line in lines[:-1])  # the last one is the id


def test_a_known_service_gets_no_spelling_hint():
    close = {"known_services": ("cart", "carts", "card")}
    for asked in ("cart", "Cart", "card"):
        assert "did you mean" not in missed(diagnosed(verdict=close).assert_anomaly, service=asked)
        assert "did you mean" not in missed(diagnosed(verdict=close).assert_root_cause, asked)
    assert "did you mean 'cart'?" in missed(diagnosed(verdict=close).assert_anomaly, service="catr")


def test_an_expected_service_missing_in_telemetry_gets_no_spelling_hint():
    gone = diagnosed(scenario=faulty("x", "paymen"))
    assert "did you mean" not in missed(gone.assert_anomaly, service="paymen")


def test_the_only_finding_is_named_instead_of_counted():
    one = diagnosed(anomalies=(anomaly("cart", "cpu"),), critical_paths=(path("cart", "email"),))
    assert "found     cart cpu changed" in missed(one.assert_anomaly, service="email")
    assert "found     cart → email" in missed(one.assert_path, "email", "cart")
