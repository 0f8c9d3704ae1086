"""The JSON API over a real server: tools, refusals, and the words of each."""

from __future__ import annotations

import pytest

from pytest_otel_diag.model.session import Budget
from tests.gateway.conftest import client_of
from tests.support.investigations import investigation_over

DEEP = b'{"sql": "", "parameters": ' + b'{"a":' * 900 + b"1" + b"}" * 901


def test_a_query_answers_columns_and_rows(client):
    body = {"sql": "SELECT {x:UInt8} AS x", "parameters": {"x": 7}}
    answer = client.post("/v1/query", json=body)
    assert answer.status_code == 200
    found = answer.json()
    assert (found["columns"], found["rows"], found["truncated"]) == (["x"], [[7]], False)


def test_a_diagnosis_is_accepted_and_kept(client, access):
    diagnosis = {"detected": True, "root_causes": [{"service": "cart"}], "extra": [1]}
    answer = client.post("/v1/diagnosis", json=diagnosis)
    assert answer.json() == {"status": "accepted"}
    assert access.toolbox.submitted == diagnosis


@pytest.mark.parametrize(
    ("body", "status", "kind", "said"),
    [
        ({"sqll": "SELECT 1"}, 400, "bad_arguments", "did you mean 'sql'"),
        ({"sql": "SELECT 1; SELECT 2"}, 400, "query_rejected", "only one statement"),
        ({"sql": "SELECT intDiv(1, 0)"}, 422, "query_failed", "zero"),
        ({"sql": "SELECT nothing FROM otel_traces"}, 422, "schema", "nothing"),
    ],
)
def test_errors_have_a_kind_a_status_and_words(client, body, status, kind, said):
    answer = client.post("/v1/query", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["kind"]) == (status, kind)
    assert said in error["message"]


def test_a_budget_that_is_used_up_is_429(gateway, telemetry):
    with (
        gateway.access(investigation_over(telemetry, budget=Budget(queries=1))) as access,
        client_of(access) as client,
    ):
        assert client.post("/v1/query", json={"sql": "SELECT 1"}).status_code == 200
        refused = client.post("/v1/query", json={"sql": "SELECT 1"})
        assert refused.status_code == 429
        assert refused.json()["error"]["kind"] == "budget_exceeded"
        assert "submit_diagnosis" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "said"),
    [
        ("POST", "/v1/qury", {}, 404, "did you mean '/v1/query'"),
        ("POST", "/v1/tools/submit", {}, 404, "did you mean '/v1/tools/submit_diagnosis'"),
        ("GET", "/v1/query", {}, 405, "takes POST, not GET"),
        ("OPTIONS", "/v1/query", {}, 405, "takes POST"),
        ("POST", "/v1/question", {}, 405, "takes GET"),
        ("POST", "/v1/query", {"content": b"{"}, 400, "not JSON"),
        ("POST", "/v1/query", {"content": b"\xff"}, 400, "UTF-8"),
        ("POST", "/v1/query", {"content": b"[1]"}, 400, "send an object"),
        ("POST", "/v1/query", {"content": b'{"sql": NaN}'}, 400, "NaN"),
        ("POST", "/v1/query", {"content": b"[" * 100_000}, 400, "nested too deep"),
        (
            "POST",
            "/v1/table",
            {"content": b'{"sql": "", "parameters": ' + b'{"a":' * 900 + b"1" + b"}" * 901},
            400,
            "deep",
        ),
        ("POST", "/v1/query", {"content": b" " * 9_000_000}, 413, "8,388,608"),
        ("POST", "/v1/query", {"headers": {"content-encoding": "gzip"}, "content": b"x"}, 415, "gzip"),
        ("POST", "/v1/query", {"headers": {"host": "evil.example"}}, 421, "evil.example"),
        ("POST", "/v1/query", {"headers": {"host": "127.0.0.1"}}, 421, "127.0.0.1:"),
        ("POST", "/v1/query", {"headers": {"origin": "http://evil.example"}}, 403, "evil.example"),
        ("POST", "/v1/query", {"headers": {"origin": "null"}}, 403, "null"),
        ("POST", "/v1/query", {"headers": {"authorization": ""}}, 401, "OTEL_DIAG_TOKEN"),
        ("POST", "/v1/query", {"headers": {"authorization": "Basic eA=="}}, 401, "Bearer TOKEN"),
        ("POST", "/v1/query", {"headers": {"authorization": "Bearer otd_x"}}, 401, "unknown"),
        ("GET", "/openapi.json", {"headers": {"authorization": "Bearer otd_x"}}, 401, "unknown"),
        ("POST", "/mcp", {"headers": {"authorization": "Bearer otd_x"}}, 401, "unknown"),
    ],
)
def test_what_is_refused(client, method, path, sent, status, said):
    answer = client.request(method, path, **sent)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]
    assert client.get("/v1/clock").status_code == 200  # the door stays open


def test_head_is_refused_without_a_body(client):
    answer = client.head("/v1/query")
    assert (answer.status_code, answer.headers["allow"], answer.content) == (405, "POST", b"")


def test_the_question_has_the_windows(client, investigation):
    question = client.get("/v1/question").json()
    assert question["incident"] == investigation.incident.model_dump()
    assert question["baseline"] == investigation.baseline.model_dump()
    assert question["session_id"] == investigation.session_id
