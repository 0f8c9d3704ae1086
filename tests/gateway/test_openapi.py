"""The OpenAPI document: it has every path, its schemas are valid, and the answers follow them."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from pytest_otel_diag.gateway import routes

BODIES = {
    "/v1/query": {"sql": "SELECT 1"},
    "/v1/diagnosis": {"detected": False},
    "/v1/table": {"sql": "SELECT 1"},
    "/v1/ask": {"question": "latest"},
    "/v1/clock/sleep": {"seconds": 0},
    "/v1/guidance": {"diagnosis": None},
    "/v1/transcript": {"kind": "note", "content": {"text": "x"}},
}


@pytest.fixture
def document(client):
    return client.get("/openapi.json").json()


def test_every_path_is_described_once(document, gateway, access):
    (lease,) = gateway._running.leases.all()
    served = set(routes.paths(lease)) - {"/openapi.json"}
    twice = {f"{routes.TOOLS_PATH}{name}" for name in ("query", "submit_diagnosis")}  # have short paths
    assert set(document["paths"]) == served - twice
    for path, operations in document["paths"].items():
        (method,) = operations
        assert routes.route_of(lease, path).method == method.upper()
    names = [one["operationId"] for operations in document["paths"].values() for one in operations.values()]
    assert len(names) == len(set(names))


def test_every_schema_is_valid(document):
    for operations in document["paths"].values():
        for operation in operations.values():
            contents = [answer["content"] for answer in operation["responses"].values()]
            contents += [operation["requestBody"]["content"]] if "requestBody" in operation else []
            for content in contents:
                Draft202012Validator.check_schema(content["application/json"]["schema"])


def test_answers_follow_their_schemas(client, document):
    for path, operations in document["paths"].items():
        ((method, operation),) = operations.items()
        if method == "post" and path not in BODIES:
            continue  # the tools' own tests compare results with schemas
        answer = client.request(method.upper(), path, json=BODIES.get(path))
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert answer.status_code == 200, answer.text
        Draft202012Validator(schema).validate(answer.json())


def test_errors_follow_their_schema(client, document):
    answer = client.post("/v1/query", json={"sql": "SELECT intDiv(1, 0)"})
    assert str(answer.status_code) in document["paths"]["/v1/query"]["post"]["responses"]
    Draft202012Validator(document["components"]["schemas"]["Error"]).validate(answer.json())
