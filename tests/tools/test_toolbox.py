"""The toolbox over small telemetry in chDB: calls, refusals, submissions."""

from __future__ import annotations

import json

import jsonschema
import pytest

from pytest_otel_diag.model.session import Budget
from pytest_otel_diag.tools import ALIASES, TOOLS, TOOLS_VERSION, Caps, Toolbox, ToolError, version_of
from tests.support.investigations import investigation_over


async def refused(box: Toolbox, name: str, arguments) -> str:
    with pytest.raises(ToolError) as caught:
        await box.call(name, arguments)
    return str(caught.value)


async def test_a_query_returns_rows(box):
    found = await box.call("query", {"sql": "SELECT count() AS n FROM otel_traces"})
    assert found.columns == ("n",)
    assert found.rows[0][0] > 0
    assert not found.truncated


async def test_parameters_reach_the_engine(box):
    sql = "SELECT uniqExact(ServiceName) FROM otel_traces WHERE ServiceName = {service:String}"
    found = await box.call("query", {"sql": sql, "parameters": {"service": "middle"}})
    assert found.rows == ((1,),)


async def test_a_long_answer_says_what_is_missing(box):
    found = await box.call("query", {"sql": "SELECT number FROM numbers(1000)"})
    assert found.truncated
    assert len(found.rows) == 200
    assert found.rows_left_out == 800


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"query": "SELECT 1"}, ("unknown argument query", "the argument sql is missing", "sql (required)")),
        ({"sqll": "SELECT 1"}, ("did you mean 'sql'",)),
        ({"sql": 3}, ("sql: ", "it is 3")),
        ({"sql": ""}, ("sql: ",)),
        ({"sql": "SELECT 1", "parameters": ["x"]}, ("parameters: ",)),
        (["sql"], ("list, not an object", "sql (required)")),
        (None, ("not an object",)),
        ({"sql": "SELECT Servicename FROM otel_traces"}, ("Servicename", "otel_traces has", "ServiceName")),
        ({"sql": "SELECT 1 FROM otel_trace"}, ("did you mean 'otel_traces'",)),
        ({"sql": "SELECT 1; SELECT 2"}, ("only one statement",)),
        ({"sql": "DROP TABLE otel_traces"}, ("only SELECT",)),
        ({"sql": "SELECT number FROM numbers(200000)"}, ("add LIMIT or aggregate",)),
    ],
)
async def test_a_refusal_says_what_to_do(box, arguments, said):
    text = await refused(box, "query", arguments)
    for part in said:
        assert part in text
    assert "QueryLimits" not in text


async def test_an_unknown_tool_is_answered_with_the_known_ones(box):
    text = await refused(box, "querry", {})
    assert "did you mean 'query'" in text
    assert "submit_diagnosis" in text


async def test_a_used_up_budget_asks_for_the_diagnosis(telemetry):
    box = Toolbox(investigation_over(telemetry, budget=Budget(queries=1)))
    await box.call("query", {"sql": "SELECT 1"})
    text = await refused(box, "query", {"sql": "SELECT 1"})
    assert "budget of 1 queries is used up" in text
    assert "submit_diagnosis" in text
    assert (await box.call("submit_diagnosis", {"detected": False})).model_dump() == {"status": "accepted"}


async def test_the_last_submission_wins(box):
    assert box.submitted is None
    await box.call("submit_diagnosis", {"detected": True, "root_causes": [{"service": "a", "colour": 1}]})
    answer = await box.call("submit_diagnosis", {"root_causes": [{"service": "b"}], "extra": [1, None]})
    assert answer.model_dump_json() == '{"status":"accepted"}'
    assert box.submitted == {"root_causes": [{"service": "b"}], "extra": [1, None]}
    assert box.submissions == 2


@pytest.mark.parametrize("wrapped", [{"detected": False}, json.dumps({"detected": False})])
async def test_a_diagnosis_may_be_wrapped_in_its_name(box, wrapped):
    await box.call("submit_diagnosis", {"diagnosis": wrapped})
    assert box.submitted == {"detected": False}


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"colour": "red"},
        {"diagnosis": {}},
        {"diagnosis": "cart is broken"},
        {"diagnosis": [1]},
        [],
        "x",
        None,
    ],
)
async def test_what_is_no_diagnosis_is_refused_with_what_is_allowed(box, answer):
    text = await refused(box, "submit_diagnosis", answer)
    assert "root_causes" in text
    assert box.submitted is None
    assert box.submissions == 0


async def test_a_huge_diagnosis_is_refused(box):
    assert "1,000,000" in await refused(box, "submit_diagnosis", {"summary": "x" * 1_000_001})


async def test_half_characters_of_a_diagnosis_are_replaced(box):
    await box.call("submit_diagnosis", {"summary": "cut \ud83d", "root_causes": [{"service": "é"}]})
    assert box.submitted == {"summary": "cut ?", "root_causes": [{"service": "é"}]}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("query", {"sql": "x" * 100_000}),
        ("get_trace", {"operation": "x" * 100_000}),
        ("x" * 100_000, {}),
        ("query", {"x" * 100_000: 1}),
    ],
)
async def test_errors_have_a_limited_length(box, name, arguments):
    assert len(await refused(box, name, arguments)) <= 4_000


async def test_a_diagnosis_nested_too_deep_is_refused(box):
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    assert "root_causes" in await refused(box, "submit_diagnosis", {"summary": deep})


@pytest.mark.parametrize("tool", (*TOOLS, *ALIASES), ids=lambda tool: tool.name)
def test_texts_for_models_stand_alone(tool):
    schema = tool.schema()
    assert "$ref" not in json.dumps(schema) + json.dumps(tool.result_schema())
    assert schema["type"] == "object"
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "null" not in json.dumps(schema["properties"].get("detected", {}))
    assert "xample" in tool.description
    assert all("description" in one for one in schema["properties"].values())


def test_the_version_is_that_of_the_texts():
    assert version_of(TOOLS) == TOOLS_VERSION
    assert version_of(TOOLS[1:]) != TOOLS_VERSION


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"characters": 10}, {"cell_characters": 1}, {"time_s": 0}])
def test_caps_that_hold_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="allowed are"):
        Caps(**wrong)
