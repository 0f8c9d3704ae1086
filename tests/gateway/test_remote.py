"""What a remote analyzer gets equals what one in process gets: tables, questions, schema, errors."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.errors import (
    AnalyzerError,
    BudgetExceeded,
    QueryFailed,
    QueryLimitExceeded,
    QueryRejected,
    SchemaError,
    TelemetryError,
    TelemetryUnavailable,
)
from pytest_otel_diag.gateway import failures, wire
from pytest_otel_diag.model.questions import (
    CallEdges,
    Latest,
    LogCounts,
    LogKinds,
    MetricLevels,
    OperationHealthOf,
    ServiceHealthOf,
)
from pytest_otel_diag.model.telemetry import QueryLimits, Table
from pytest_otel_diag.testing.analyzer_contract import INCIDENT

TEXTS = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates too
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**256), 2**256),
    st.floats(),
    TEXTS,
    st.binary(max_size=20),
    st.decimals(allow_nan=False),
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=9))])),
    st.dates(),
    st.timedeltas(),
    st.uuids(),
    st.ip_addresses(),
)
KEYS = st.one_of(st.just("$type"), st.integers(), TEXTS)
CELLS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=8,
)


def same(left, right) -> bool:
    """Whether two cells are equal and of the same types, NaN equal to itself and -0.0 unlike 0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, float):
        return (math.isnan(left) and math.isnan(right)) or math.copysign(1, left) == math.copysign(1, right)
    return left == right


@settings(max_examples=60, deadline=None)
@given(st.lists(CELLS, max_size=5))
def test_every_cell_survives(cells):
    table = Table(("a",), (cells,), 0.5)
    sent = json.dumps(wire.encoded_table(table), allow_nan=False)
    back = wire.decoded_table(json.loads(sent))
    assert (back.names, back.elapsed_s) == (table.names, table.elapsed_s)
    assert same(list(back.columns[0]), cells)


@settings(max_examples=30, deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.text(max_size=5), st.integers()),
        lambda inner: st.dictionaries(st.sampled_from(["$type", "value", "x"]), inner),
        max_leaves=5,
    )
)
def test_what_was_not_encoded_is_refused_or_read(value):
    try:
        wire.decoded(value)
    except ValueError as error:
        assert str(error)


def test_cells_of_the_engine_survive(client):
    sql = f"""SELECT toUInt256('{2**256 - 1}') AS a, nan AS b, -inf AS c, toDecimal128('1.10', 5) AS d,
        toDateTime('2020-01-01 00:00:00') AS e, toDate('2020-01-01') AS f,
        toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0') AS g, toIPv4('1.2.3.4') AS h, toIPv6('::1') AS i,
        (1, 'a') AS j, map('k', 1) AS k, map(1, 'v') AS l, [1, 2] AS m, toFixedString('a', 2) AS n,
        NULL AS o, true AS p, toFloat32(0.1) AS q"""
    answer = client.post("/v1/table", json={"sql": sql})
    row = dict(next(wire.decoded_table(answer.json()).dicts()))
    assert math.isnan(row.pop("b"))
    assert row == {
        "a": 2**256 - 1,
        "c": -math.inf,
        "d": Decimal("1.10000"),
        "e": datetime(2020, 1, 1, tzinfo=UTC),
        "f": date(2020, 1, 1),
        "g": UUID("61f0c404-5cb3-11e7-907b-a6006ad3dba0"),
        "h": IPv4Address("1.2.3.4"),
        "i": IPv6Address("::1"),
        "j": (1, "a"),
        "k": {"k": 1},
        "l": {1: "v"},
        "m": [1, 2],
        "n": b"a\0",
        "o": None,
        "p": True,
        "q": 0.10000000149011612,
    }


@pytest.mark.parametrize(
    "question",
    [
        Latest(),
        Latest(INCIDENT.end_ns),
        ServiceHealthOf(INCIDENT, 10.0),
        CallEdges(INCIDENT),
        OperationHealthOf(INCIDENT, 10.0, ("middle", "back")),
        MetricLevels(INCIDENT, 10.0, ("middle",)),
        LogCounts(INCIDENT, 10.0, ("middle",)),
        LogKinds(INCIDENT, 10.0, ("middle",)),
    ],
    ids=str,
)
async def test_questions_have_the_answers_that_they_have_in_process(client, telemetry, question):
    answer = client.post("/v1/ask", json=wire.encoded_question(question))
    expected = await telemetry.ask(question)
    found = wire.decoded_answer(question, answer.json()["answer"])
    assert found == (expected if isinstance(question, Latest) else list(expected))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"question": "flag_mentions"}, "ask one of latest"),
        ({"question": "service_helth"}, "did you mean 'service_health'"),
        ({"question": "call_edges", "arguments": {"windw": {}}}, "did you mean 'window'"),
        ({"question": "call_edges", "arguments": {"window": {"start_ns": 1}}}, "end_ns"),
        (
            {"question": "call_edges", "arguments": {"window": {"start_ns": 2, "end_ns": 1}}},
            "before it starts",
        ),
        ({"question": "call_edges", "arguments": {"window": {"$type": "x", "value": 1}}}, "one of the types"),
        ({"question": ["latest"]}, "takes a text"),
        ({}, "question is missing"),
    ],
)
def test_questions_that_cannot_be_asked(client, body, said):
    answer = client.post("/v1/ask", json=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


async def test_the_schema_is_that_of_the_telemetry(client, telemetry):
    assert wire.decoded_schema(client.get("/v1/schema").json()) == await telemetry.schema()


def test_limits_reach_the_session(client):
    limits = wire.encoded_limits(QueryLimits(result_rows=3))
    answer = client.post("/v1/table", json={"sql": "SELECT number FROM numbers(9)", "limits": limits})
    error = failures.raised(answer.json()["error"])
    assert isinstance(error, QueryFailed)
    assert "LIMIT" in str(error)
    answer = client.post("/v1/table", json={"sql": "SELECT 1", "limits": {"result_row": 3}})
    assert "did you mean 'result_rows'" in answer.json()["error"]["message"]


def test_a_clock_sleeps_and_says_the_time(client, investigation):
    now = client.get("/v1/clock").json()["now_ns"]
    assert now == investigation.clock.now()
    assert client.post("/v1/clock/sleep", json={"seconds": 0}).json()["now_ns"] >= now
    assert client.post("/v1/clock/sleep", json={"seconds": "1"}).status_code == 400


@pytest.mark.parametrize(
    "error",
    [
        AnalyzerError("x"),
        BudgetExceeded("x"),
        QueryFailed("x", 395),
        QueryLimitExceeded("x", None),
        QueryRejected("x"),
        SchemaError("x"),
        TelemetryError("x"),
        TelemetryUnavailable("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_keep_their_class_on_the_wire(error):
    back = failures.raised(failures.refused(error).error)
    assert (type(back), str(back)) == (type(error), str(error))
    if isinstance(error, QueryFailed):
        assert back.code == error.code
