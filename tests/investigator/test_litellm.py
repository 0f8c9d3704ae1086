"""Every provider through litellm. The only tests that import it: that takes seconds."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import socket

import pytest

from pytest_otel_diag.analyzers.investigator import litellm_door
from pytest_otel_diag.analyzers.investigator.chat_model import (
    ChatRequest,
    ContextOverflow,
    ModelUnavailable,
    ToolCall,
    ToolsUnsupported,
    TransientFailure,
)
from pytest_otel_diag.analyzers.investigator.litellm_door import DOOR, installed_version
from pytest_otel_diag.analyzers.investigator.litellm_model import LitellmModel
from pytest_otel_diag.analyzers.investigator.loop.investigator import Investigator, InvestigatorSettings
from pytest_otel_diag.analyzers.investigator.model_options import ModelOptions, Price, split_spec
from pytest_otel_diag.analyzers.investigator.retries import complete
from pytest_otel_diag.config.provider_keys import LITELLM_OFFLINE
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.secret import MASK
from tests.investigator.conftest import PRICE
from tests.support.deadlines import deadline_s
from tests.support.model_policies import competent
from tests.support.scripted_model import Call, Fail, Say, Stall, served

pytestmark = pytest.mark.filterwarnings("ignore")  # of litellm and pydantic about each other
KEY = "sk-a-key-that-nothing-may-show"
TOOL = {"type": "function", "function": {"name": "query", "parameters": {"type": "object"}}}
ASK = ChatRequest(
    messages=({"role": "user", "content": "why?"},),
    tools=(TOOL,),
    max_output_tokens=50,
    timeout_s=deadline_s(30),
)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def model(server, name="openai/gpt-5-mini", **options):
    return LitellmModel(name, options=ModelOptions(api_base=server.url, **options))


def test_the_import_opens_no_connection_and_calls_nothing_back(monkeypatch):
    for name in LITELLM_OFFLINE:
        monkeypatch.delenv(name, raising=False)
    dialled = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: dialled.append(address))

    litellm = DOOR.module()

    assert dialled == []
    assert litellm.callbacks == litellm.success_callback == litellm.failure_callback == []
    assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_have_calls_usage_and_cost(stream):
    said = Say("let me look", (Call("query", {"sql": "SELECT 1"}), Call("query", {"sql": "SELECT 2"})))
    with served(lambda _: said) as server:
        door = model(server, stream=stream)
        reply = await door.complete(ASK)

    assert [call.arguments for call in reply.tool_calls] == ['{"sql": "SELECT 1"}', '{"sql": "SELECT 2"}']
    assert (reply.content, reply.finish) == ("let me look", "tool_calls")
    used = reply.usage
    assert used.reported and used.input_tokens > 0
    price = (0.25 * used.input_tokens + 2 * used.output_tokens) / 1e6
    assert used.cost_usd == pytest.approx(price, rel=0.01)
    worst = door.worst_case_cost_usd(ASK)
    assert worst is not None and worst > used.cost_usd
    assert server.model.headers[0]["authorization"] == f"Bearer {KEY}"
    assert server.model.requests[0]["model"] == "gpt-5-mini"
    assert len(server.model.requests) == 1


async def test_reasoning_and_signatures_go_back_as_they_came():
    seen = []

    def answers(conversation):
        seen.append(conversation.messages)
        return Say(calls=(Call("query"),), reasoning="it may be payment") if len(seen) == 1 else Say("done")

    with served(answers) as server:
        first = await model(server).complete(ASK)
        result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "[]"}
        await model(server).complete(ChatRequest(messages=(*ASK.messages, first.message, result)))

    assert first.reasoning == "it may be payment"
    assert first.message["reasoning_content"] == "it may be payment"
    assert seen[1][1]["tool_calls"][0]["id"] == first.tool_calls[0].id


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        (Fail(429, "slow down", headers={"retry-after": "7"}), TransientFailure, "slow down"),
        (Fail(503, "overloaded"), TransientFailure, "overloaded"),
        (Fail(500, "oops"), TransientFailure, "oops"),
        (Fail(429, "You exceeded your current quota", "insufficient_quota"), ModelUnavailable, "quota"),
        (Fail(401, "Incorrect API key provided"), ConfigurationError, "Incorrect API key"),
        (Fail(404, "The model does not exist", "model_not_found"), ConfigurationError, "does not exist"),
        (
            Fail(400, "This model's maximum context length is 10 tokens", "context_length_exceeded"),
            ContextOverflow,
            "maximum context",
        ),
        (Fail(400, "tools is not supported by this model"), ToolsUnsupported, "not supported"),
        (Fail(400, "nonsense"), ModelUnavailable, "nonsense"),
    ],
)
async def test_errors_of_providers_by_what_they_mean(failure, kind, words):
    with served(lambda _: failure) as server, pytest.raises(kind, match=words) as caught:
        await model(server).complete(ASK)

    assert len(server.model.requests) == 1, "one attempt a call"
    assert KEY not in str(caught.value)
    if failure.headers:
        assert (caught.value.retry_after_s, caught.value.rate_limited) == (7.0, True)


async def test_a_missing_key_names_the_variable(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with served(lambda _: Say("never asked")) as server, pytest.raises(ConfigurationError) as caught:
        await model(server).complete(ASK)

    assert "set OPENAI_API_KEY" in str(caught.value)


async def test_a_filter_of_the_provider_is_a_refusal():
    blocked = Fail(400, "content_filter: the response was filtered", "content_policy_violation")
    with served(lambda _: blocked) as server:
        reply = await model(server).complete(ASK)

    assert reply.finish == "content_filter" and "filtered" in reply.refusal


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cut_answer_may_succeed_later(stream):
    cut = Say("a long answer that never ends", cut_after=2)
    with served(lambda _: cut) as server, pytest.raises(TransientFailure) as caught:
        await model(server, stream=stream).complete(ASK)

    assert caught.value.billable


async def test_a_stall_ends_with_the_time_limit():
    with served(lambda _: Stall()) as server, pytest.raises(TransientFailure, match="no answer") as caught:
        await model(server).complete(ChatRequest(messages=ASK.messages, timeout_s=0.3))

    assert caught.value.billable


async def test_an_address_without_a_server_is_not_billable():
    door = LitellmModel("openai/gpt-5-mini", options=ModelOptions(api_base="http://127.0.0.1:9/v1"))
    with pytest.raises(TransientFailure) as caught:
        await door.complete(ASK)

    assert not caught.value.billable


async def test_retries_are_counted_by_the_caller(quick):
    answers = iter([Fail(429, "slow down"), Fail(500, "oops"), Say("here")])
    with served(lambda _: next(answers)) as server:
        reply = await complete(model(server), ASK, policy=quick, rng=random.Random(0))

    assert reply.content == "here" and len(server.model.requests) == 3


async def test_what_the_tables_know_and_what_the_user_says():
    await LitellmModel("openai/gpt-5-mini").open()

    assert LitellmModel("openai/gpt-5-mini").supports_tools is True
    assert LitellmModel("openai/nobody-knows-it").supports_tools is None
    assert LitellmModel("openai/nobody-knows-it").worst_case_cost_usd(ASK) is None
    _, options = split_spec("llm:x#price=1/2,tools=text")
    priced = LitellmModel("openai/nobody-knows-it", options=options)
    assert priced.supports_tools is False
    assert options.price == Price(1.0, 2.0)
    bound = ASK.input_tokens_bound()
    assert priced.worst_case_cost_usd(ASK) == pytest.approx((bound * 1 + 50 * 2) / 1e6)
    with pytest.raises(ConfigurationError, match="knows no provider for the model 'nobody-knows-it'"):
        await LitellmModel("nobody-knows-it").open()


async def test_cached_and_reasoning_tokens_are_read_and_priced():
    litellm = DOOR.module()
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": 800},
        "completion_tokens_details": {"reasoning_tokens": 60},
    }
    answer = litellm.ModelResponse(
        model="gpt-5", choices=[{"message": {"role": "assistant", "content": "x"}}], usage=usage
    )

    reply = LitellmModel("openai/gpt-5")._read(answer, ASK)

    assert (reply.usage.cached_tokens, reply.usage.reasoning_tokens) == (800, 60)
    assert reply.usage.cost_usd == pytest.approx((200 * 1.25 + 800 * 0.125 + 100 * 10) / 1e6)


def test_the_signatures_of_reasoning_are_kept():
    litellm = DOOR.module()
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "query", "arguments": "{}"},
        "provider_specific_fields": {"thought_signature": "c2ln"},
    }
    block = {"type": "thinking", "thinking": "hm", "signature": "abc"}
    message = {"role": "assistant", "content": None, "tool_calls": [call], "thinking_blocks": [block]}
    answer = litellm.ModelResponse(model="gemini-2.5-pro", choices=[{"message": message}])

    reply = LitellmModel("gemini/gemini-2.5-pro")._read(answer, ASK)

    assert reply.tool_calls == (ToolCall("c1", "query", "{}"),)
    assert reply.message["thinking_blocks"] == [block]
    assert reply.message["tool_calls"][0]["provider_specific_fields"] == {"thought_signature": "c2ln"}


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("1.82.7", "steals credentials"),
        ("1.82.8", "steals credentials"),
        ("1.81.16", "CVE-2026-42208"),
        ("1.83.6", "at least 1.83.7"),
    ],
)
def test_versions_that_must_not_be_imported_are_refused(monkeypatch, version, reason):
    monkeypatch.setattr(litellm_door.metadata, "version", lambda name: version)

    with pytest.raises(ConfigurationError, match=reason):
        installed_version()


def test_an_identity_without_secrets():
    described = LitellmModel("openai/gpt-5-mini", options=ModelOptions(temperature=0.0)).describe()

    assert described["model"] == "openai/gpt-5-mini" and described["litellm"] == installed_version()
    assert described["temperature"] == "0.0"
    assert KEY not in json.dumps(dict(described)) and MASK not in json.dumps(dict(described))
    with pytest.raises(ConfigurationError, match="without credentials"):
        split_spec("llm:x#api_base=https://user:pw@host/v1")


async def test_an_investigation_through_litellm_ends_as_over_plain_http(bench):
    over_http = await bench.diagnose(competent, stream=True)
    options = ModelOptions(price=PRICE, max_output_tokens=1000, stream=True)

    with served(competent) as server:
        door = LitellmModel("openai/tiny", options=dataclasses.replace(options, api_base=server.url))
        analyzer = Investigator(door, InvestigatorSettings(options=options))
        answer = await analyzer.diagnose(dataclasses.replace(bench.investigation))

    usage = {"model"}
    assert answer.model_dump(exclude={"usage": usage}) == over_http.model_dump(exclude={"usage": usage})
    assert answer.usage.steps > 3
