"""Reading answers: shapes that agents write, shapes that cannot be read, and never a guess."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.analyzers.agents.answers import Unparsed, diagnosis_from, read_answer
from pytest_otel_diag.analyzers.agents.turns import usage_from
from pytest_otel_diag.errors import AnalyzerError
from pytest_otel_diag.model.diagnosis import Diagnosis, Mechanism, Signal
from pytest_otel_diag.scoring.names import ServiceNames

RIGHT = {"root_causes": [{"service": "payment", "mechanism": "error"}], "detected": True}
TEXT = json.dumps(RIGHT)


def read(text: str) -> Diagnosis:
    return diagnosis_from(read_answer(text))


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"```json\n{TEXT}\n```",
        f"```\n{TEXT}\n```",
        f"```python\n{RIGHT!r}\n```",
        f"I found it.\n\n{TEXT}\n\nHope this helps! {{not json}}",
        f'First idea: {{"root_causes": ["cart"]}}. On second thought: {TEXT}',
        f'```json\n{{"root_causes": ["cart"]}}\n```\nBetter:\n```json\n{TEXT}\n```',
        json.dumps({"confidence": 0.9, "extra": {"deep": [1]}, **RIGHT}),
        json.dumps({"diagnosis": RIGHT}),
        '{"root_cause": "payment"}',
        '{"rootCause": {"component": "payment"}}',
        '{"root_causes": ["payment", "cart"]}',
        "Root cause: payment",
        "**Root Cause:** `payment`.",
        "## Analysis\ncart looks fine.\n- root cause: the payment (all calls of Charge fail)",
        "**Root cause:** `payment` service",
        "## Root cause\npayment",
        "Root cause: payment (not responding)",
        f'```json\n{{"root_causes": ["cart"]}}\n```\nNo, rather {TEXT}',
        f'{TEXT}\nas you asked for {{"detected": true, "root_causes": [{{"service": "SERVICE"}}]}}',
        "payment looks healthy, cart fails because of it.\nRoot cause: payment - its own spans fail",
    ],
)
def test_a_right_answer_is_read_in_any_shape(text):
    diagnosis = read(text)

    assert diagnosis.detected
    assert diagnosis.root_causes[0].service == "payment"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "payment is healthy, but cart fails.",
        "The productcatalogservice and then the frontend failed.",
        "Root cause: unknown",
        "Root cause: not payment",
        "Root cause: payment or cart",
        "Root cause: payment?",
        "Root cause: payment\nRoot cause: cart",
        "Root cause: payment (ruled out)",
        "Root cause: none of payment, cart",
        f'{TEXT}\nThe log says:\n```\n{{"root_causes": ["cart"]}}\n```\nand so on',
        '{"root_causes": [{"service": "SERVICE"}]}',
        '{"service": "payment"}',
        '["payment"]',
        '{"root_causes": [{"service": "payment"',
        "Let me compare the services. The root cause must lie deeper.",
        "[" * 10_000,
        "\n" * 200_000,  # minutes, were each line to look through all after it
        '{"root_causes":' * 2_000,
    ],
)
def test_what_is_no_answer_is_unparsed_and_quoted(text):
    with pytest.raises(Unparsed, match=r"^unparsed: ") as caught:
        read_answer(text)

    assert len(str(caught.value)) < 400


def test_half_a_character_is_replaced():
    assert read('{"root_causes": ["pay\\ud800ment"]}').root_causes[0].service == "pay\ufffdment"


@pytest.mark.parametrize("value", [-1, 1e300, float("nan"), 10**400, "-3", True, None])
def test_impossible_usage_is_no_usage_and_said(value):
    usage, remarks = usage_from({"cost_usd": "cost"}, {"cost": value})

    assert 0 <= usage.cost_usd <= 1
    assert usage.cost_usd == 1 or remarks


@pytest.mark.parametrize(
    "text", ["Root cause: none", "root cause: No fault was found", '{"detected": false}']
)
def test_a_healthy_system_is_an_answer(text):
    diagnosis = read(text)

    assert (diagnosis.detected, diagnosis.root_causes) == (False, ())


def test_every_field_is_read_as_agents_spell_it():
    answer = {
        "detected": "yes",
        "root_causes": [
            {
                "name": "payment",
                "mechanism": "Memory Leak",
                "confidence": "85%",
                "reason": "heap grows",
                "evidence": [
                    "the heap doubled",
                    {
                        "source": "trace",
                        "description": "12 of 19 calls failed",
                        "trace_ids": ["ab"],
                        "figures": [
                            {"measure": "failed", "value": "12", "service": "payment", "note": "x"},
                            {"measure": "wonder", "value": 1, "service": "payment"},
                        ],
                    },
                ],
            }
        ],
        "anomalies": [
            {"service": "payment", "signal": "error rate", "direction": "UP", "observed": "0.6"},
            {"service": "cart", "signal": "mood"},
        ],
        "critical_path": ["frontend", "checkout", "payment"],
        "query": "SELECT 1 FROM otel_traces",
        "hypotheses": [
            {"hypothesis": "cart", "status": "ruled out", "reason": "it is fine"},
            {"statement": "payment", "status": "pondered", "reason": ""},
        ],
        "summary": "payment leaks",
        "usage": {"cost_usd": -1},
    }

    diagnosis = diagnosis_from(answer)

    cause = diagnosis.root_causes[0]
    assert (cause.mechanism, cause.confidence, diagnosis.confidence) == (Mechanism.MEMORY, 0.85, 0.85)
    assert cause.explanation == "heap grows the heap doubled"
    assert [figure.value for figure in cause.evidence[0].figures] == [12.0]
    assert (cause.evidence[0].source, cause.evidence[0].trace_ids) == ("traces", ("ab",))
    assert [(one.signal, one.direction, one.observed) for one in diagnosis.anomalies] == [
        (Signal.ERROR_RATE, "up", 0.6)
    ]
    (path,) = diagnosis.critical_paths
    assert (path.services, path.endService, len(path.edges)) == (
        ("frontend", "checkout", "payment"),
        "payment",
        2,
    )
    assert diagnosis.query.sql == "SELECT 1 FROM otel_traces"
    assert [one.status for one in diagnosis.hypotheses] == ["eliminated"]
    assert diagnosis.summary.startswith("payment leaks (left out of the answer: Figure")
    assert diagnosis.usage.cost_usd == 0


@pytest.mark.parametrize(
    ("confidence", "read_as"),
    [
        (0.4, 0.4),
        ("0.4", 0.4),
        (40, 0.4),
        ("40 %", 0.4),
        ("high", 0.0),
        (-1, 0.0),
        (1e9, 0.0),
        (True, 0.0),
        (1, 1.0),
    ],
)
def test_confidence_is_a_number_or_a_percentage(confidence, read_as):
    assert diagnosis_from({"detected": True, "confidence": confidence}).confidence == read_as


@pytest.mark.parametrize(
    "path",
    [["a", "b"], "a -> b", "a → b", [["a", "b"]], {"services": ["a", "b"]}, [{"path": "a > b"}]],
)
def test_paths_of_services(path):
    diagnosis = diagnosis_from({"detected": True, "critical_path": path})

    assert [one.services for one in diagnosis.critical_paths] == [("a", "b")]


def test_an_invented_mechanism_is_left_out_and_said():
    diagnosis = diagnosis_from({"root_causes": [{"service": "a", "mechanism": "gremlins"}]})

    assert diagnosis.root_causes[0].mechanism is None
    assert diagnosis.summary == "(left out of the answer: mechanism 'gremlins')"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"summary": "x"},
        {"detected": "perhaps"},
        {"root_causes": [3, {"operation": "x"}]},
        {"root_causes": 3},
    ],
)
def test_an_answer_without_anything_to_judge_is_an_error_that_shows_the_shape(answer):
    with pytest.raises(AnalyzerError, match='"service": "NAME"'):
        diagnosis_from(answer)


def test_false_with_causes_stays_as_it_is_said():
    diagnosis = diagnosis_from({"detected": False, "root_causes": ["payment"]})

    assert (diagnosis.detected, len(diagnosis.root_causes)) == (False, 1)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["service", "status", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = st.sampled_from(
    [
        "detected",
        "root_causes",
        "anomalies",
        "critical_path",
        "query",
        "hypotheses",
        "confidence",
        "summary",
        "z",
    ]
)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
@settings(max_examples=80)
def test_any_object_is_a_valid_diagnosis_or_an_analyzer_error(answer):
    try:
        diagnosis = diagnosis_from(answer)
    except AnalyzerError:
        return
    assert Diagnosis.model_validate_json(diagnosis.model_dump_json()) == diagnosis


@given(st.text(max_size=80) | st.text(alphabet='{}[]"`:, \nroot_causes', max_size=80))
@settings(max_examples=60)
def test_any_text_is_read_or_unparsed(text):
    try:
        assert isinstance(read_answer(text), dict)
    except Unparsed as error:
        assert str(error).startswith("unparsed: ")


@given(
    st.permutations(["root_causes", "detected", "confidence", "note"]),
    st.sampled_from(["%s", "```json\n%s\n```", "Here:\n%s\nDone.", "{ %s"]),
)
@settings(max_examples=30)
def test_order_of_keys_and_surrounding_text_do_not_matter(keys, frame):
    fields = {"root_causes": ["payment"], "detected": True, "confidence": "High", "note": "{}"}
    answer = json.dumps({key: fields[key] for key in keys})

    assert read(frame % answer).root_causes[0].service == "payment"


@pytest.mark.parametrize(
    "written",
    [
        "Payment",
        "payment-service",
        "paymentservice",
        "payment_svc",
        "otel-demo/payment",
        "payment.default.svc.cluster.local",
        "payment-7d9f8b6c5d-x2k4z",
        "payment-0",
        "payment:50051",
        "oteldemo.PaymentService",
        "oteldemo.PaymentService/Charge",
    ],
)
def test_names_in_answers_mean_the_service_of_telemetry(written):
    names = ServiceNames(["cart", "payment", "checkout"])

    for text in (f"Root cause: {written}", json.dumps({"root_causes": [written]})):
        assert names.resolve(read(text).root_causes[0].service) == "payment"


def test_a_name_of_several_services_means_none_and_says_which():
    names = ServiceNames(["payment", "payment-service"])

    name = read("Root cause: PaymentSvc").root_causes[0].service

    assert names.resolve(name) is None
    assert ServiceNames(["cart", "payment"]).explain("cart.payment") == (
        "cart.payment (a part of cart, payment; name one of them)"
    )
