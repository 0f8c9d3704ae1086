"""The OpenAI-compatible model against a real HTTP server."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.analyzers.investigator.chat_model import (
    ChatRequest,
    ContextOverflow,
    ModelUnavailable,
    ToolCall,
    ToolsUnsupported,
    TransientFailure,
    most_tokens,
)
from pytest_otel_diag.analyzers.investigator.model_options import ModelOptions, Price, split_spec
from pytest_otel_diag.analyzers.investigator.openai_http import OpenAiModel
from pytest_otel_diag.analyzers.investigator.openai_wire import StreamedReply, reply_of, retry_after_s
from pytest_otel_diag.analyzers.investigator.retries import RetryPolicy, complete
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.secret import credential
from tests.support.deadlines import deadline_s
from tests.support.scripted_model import Call, Fail, Say, ScriptedModel, Stall, served

TOOL = {"type": "function", "function": {"name": "query", "parameters": {"type": "object"}}}
ASK = ChatRequest(
    messages=({"role": "user", "content": "why?"},),
    tools=(TOOL,),
    timeout_s=deadline_s(20),
    max_output_tokens=50,
)
TWO_CALLS = Say("let me look", (Call("query", {"sql": "SELECT 'é'"}), Call("query", {"sql": "SELECT 2"})))


def model(server, **options):
    return OpenAiModel("tiny", server.url, key=credential("sk-verysecret"), options=ModelOptions(**options))


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_the_same_whole_and_streamed(stream):
    with served(lambda _: TWO_CALLS) as server:
        reply = await model(server, stream=stream, price=Price(1.0, 10.0)).complete(ASK)

    assert reply.content == "let me look"
    assert reply.tool_calls == (
        ToolCall("call_1_0", "query", '{"sql": "SELECT \'\\u00e9\'"}'),
        ToolCall("call_1_1", "query", '{"sql": "SELECT 2"}'),
    )
    assert reply.finish == "tool_calls"
    assert reply.model == "scripted-1"
    assert reply.usage.reported
    cost = (reply.usage.input_tokens * 1.0 + reply.usage.output_tokens * 10.0) / 1e6
    assert reply.usage.cost_usd == pytest.approx(cost)
    body, headers = server.model.requests[0], server.model.headers[0]
    assert (body["model"], body["max_tokens"], body["tools"]) == ("tiny", 50, [TOOL])
    assert "temperature" not in body
    assert headers["authorization"] == "Bearer sk-verysecret"


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_goes_back_with_tool_calls_only(stream):
    answers = iter([Say(calls=(Call("query"),), reasoning="hmm, hmm"), Say("done", reasoning="hmm")])
    with served(lambda _: next(answers)) as server:
        first = await model(server, stream=stream).complete(ASK)
        second = await model(server, stream=stream).complete(ASK)

    assert (first.reasoning, first.message["reasoning_content"]) == ("hmm, hmm", "hmm, hmm")
    assert second.message == {"role": "assistant", "content": "done"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_is_an_answer(stream):
    with served(lambda _: Say(refusal="I cannot help with that")) as server:
        reply = await model(server, stream=stream).complete(ASK)

    assert (reply.refusal, reply.content) == ("I cannot help with that", "")


@pytest.mark.parametrize(
    ("failure", "error", "text"),
    [
        (
            Fail(429, "slow down", "rate_limit", {"retry-after": "7"}),
            TransientFailure,
            "429: rate_limit: slow",
        ),
        (Fail(500, "boom"), TransientFailure, "500: server_error: boom"),
        (Fail(529, body="<html>overloaded</html>"), TransientFailure, "529: <html>overloaded"),
        (Fail(429, "You exceeded your current quota"), ModelUnavailable, "exceeded your current quota"),
        (Fail(400, "context too long", "context_length_exceeded"), ContextOverflow, "context too long"),
        (Fail(400, "the request exceeds the available context size"), ContextOverflow, "context size"),
        (Fail(400, "registry/tiny does not support tools"), ToolsUnsupported, "does not support tools"),
        (Fail(400, '"auto" tool choice requires --enable-auto-tool-choice'), ToolsUnsupported, "requires --"),
        (Fail(500, "tools param requires --jinja flag"), ToolsUnsupported, "requires --jinja"),
        (Fail(400, "unknown parameter: seed"), ModelUnavailable, "unknown parameter: seed"),
        (Fail(200, body={"error": {"message": "upstream died", "code": 502}}), TransientFailure, "upstream"),
        (Fail(200, body="<html>login</html>"), ModelUnavailable, "not one of the chat API"),
        (Fail(200, body={"choices": []}), ModelUnavailable, "not one of the chat API"),
        (Fail(200, body={"choices": [{"message": None}]}), ModelUnavailable, "not one of the chat API"),
        (Fail(401, "bad key"), ConfigurationError, "OTEL_DIAG_CHAT_KEY or OPENAI_API_KEY"),
        (Fail(404, "no such model"), ConfigurationError, "does not know the model 'tiny'"),
        (
            Fail(307, headers={"location": "http://elsewhere/"}),
            ConfigurationError,
            "redirects to http://else",
        ),
    ],
)
async def test_errors_of_the_api_are_told_apart(failure, error, text):
    with served(lambda _: failure) as server, pytest.raises(error, match=None) as caught:
        await model(server).complete(ASK)

    assert text in str(caught.value)
    if isinstance(caught.value, TransientFailure):
        assert caught.value.retry_after_s == (7.0 if failure.headers else None)
        assert not caught.value.billable


async def test_a_filter_of_the_provider_is_a_refusal():
    with served(lambda _: Fail(400, "triggered the content filter", "content_filter")) as server:
        reply = await model(server).complete(ASK)

    assert (reply.finish, "content filter" in reply.refusal) == ("content_filter", True)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cut_answer_is_tried_again_and_may_be_charged(stream):
    cut = Say("a long answer", cut_after=2)
    with served(lambda _: cut) as server, pytest.raises(TransientFailure) as caught:
        await model(server, stream=stream).complete(ASK)

    assert caught.value.billable


async def test_a_stalling_provider_ends_at_the_time_limit_of_an_attempt():
    with (
        served(lambda _: Stall()) as server,
        pytest.raises(TransientFailure, match=r"within 0\.2 s") as caught,
    ):
        await model(server).complete(ChatRequest(messages=ASK.messages, timeout_s=0.2))

    assert caught.value.billable


async def test_nobody_listens():
    with served(lambda _: Say("x")) as server:
        pass
    with pytest.raises(TransientFailure, match="cannot be reached") as caught:
        await model(server).complete(ASK)

    assert not caught.value.billable


async def test_the_other_name_of_the_token_limit_is_used_where_demanded():
    def policy(conversation):
        if "max_tokens" in conversation.body:
            return Fail(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return Say("fine")

    with served(policy) as server:
        modern = model(server)
        assert (await modern.complete(ASK)).content == "fine"
        await modern.complete(ASK)

    assert ["max_tokens" in body for body in server.model.requests] == [True, False, False]


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1/", "http://h:1/v1/chat/completions"),
        ("https://h/openai/v1?api-version=x", "https://h/openai/v1/chat/completions?api-version=x"),
        ("http://h/v1/chat/completions", "http://h/v1/chat/completions"),
        ("http://user:pass@h/v1", "http://***@h/v1/chat/completions"),
    ],
)
def test_the_address_of_the_api(url, asked):
    assert OpenAiModel("m", url).describe()["endpoint"] == asked


@pytest.mark.parametrize(
    "url", ["", "h:1", "ftp://h", "http://", "http://h:99999/", "http://h/a b", "http://h/#x"]
)
def test_addresses_that_cannot_be_used(url):
    with pytest.raises(ConfigurationError, match="is no address of a chat API"):
        OpenAiModel("m", url)


async def test_retries_wait_as_long_as_the_provider_asks(quick):
    def policy(conversation):
        if conversation.attempt == 1:
            return Fail(429, "slow down", headers={"retry-after-ms": "2"})
        return Fail(503) if conversation.attempt == 2 else Say("at last")

    waits = []

    async def after(failure, request, wait_s):
        waits.append(wait_s)

    with served(policy) as server:
        reply = await complete(model(server), ASK, policy=quick, rng=random.Random(1), after=after)

    assert reply.content == "at last"
    assert len(waits) == 2
    assert waits[0] >= 0.002


async def test_retries_are_bounded_and_the_provider_has_the_word(quick):
    words = r"tiny does not answer \(4 attempts\): 503: .*overloaded"
    failure = Fail(503, "engine overloaded")
    with served(lambda _: failure) as server, pytest.raises(ModelUnavailable, match=words):
        await complete(model(server), ASK, policy=quick, rng=random.Random(1))

    assert len(server.model.requests) == 4


async def test_a_wait_that_is_too_long_is_not_begun(quick):
    words = "asks to wait 86400 s, the longest wait is 5 s"
    failure = Fail(429, "tomorrow", headers={"retry-after": "86400"})
    with served(lambda _: failure) as server, pytest.raises(ModelUnavailable, match=words):
        await complete(model(server), ASK, policy=quick, rng=random.Random(1))

    assert len(server.model.requests) == 1


@given(attempt=st.integers(1, 40), asked=st.none() | st.floats(0, 100), seed=st.integers(0, 9))
@settings(max_examples=30)
def test_waits_are_bounded_and_never_shorter_than_asked(attempt, asked, seed):
    policy = RetryPolicy()
    wait_s = policy.wait_s(attempt, TransientFailure("x", retry_after_s=asked), random.Random(seed))

    assert (asked or 0.0) <= wait_s <= max(policy.longest_wait_s, asked or 0.0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        (
            {"retry-after": "Wed, 21 Oct 2026 07:28:10 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"},
            10.0,
        ),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:10 GMT"}, None),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_after_s(headers) == seconds


def test_a_stream_of_whole_calls_without_index_and_usage():
    stream = StreamedReply(ASK)
    for name in ("a", "b"):
        call = {"id": name, "function": {"name": name, "arguments": {"x": 1}}}
        stream.line("data: " + json.dumps({"choices": [{"delta": {"tool_calls": [call]}}]}))
    stream.line(": comment")
    stream.line("data: [DONE]")

    reply = stream.reply()
    assert [call.name for call in reply.tool_calls] == ["a", "b"]
    assert [call.arguments for call in reply.tool_calls] == ['{"x": 1}'] * 2
    assert not reply.usage.reported
    assert reply.usage.input_tokens > 0


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": [1]},
        {"choices": 5},
        {"choices": [{"delta": "x"}]},
        {"choices": [{"delta": {"tool_calls": [{"index": "abc"}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": float("inf")}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": 5}}]}}]},
    ],
)
def test_a_chunk_of_another_shape_is_a_failure_of_the_provider(chunk):
    with pytest.raises(ModelUnavailable, match="chunk is not one of the chat API"):
        StreamedReply(ASK).line(f"data: {json.dumps(chunk)}")


def test_a_chunk_that_is_nested_too_deep_is_broken():
    with pytest.raises(TransientFailure, match="broken chunk"):
        StreamedReply(ASK).line("data: " + "[" * 100_000)


@pytest.mark.parametrize("tokens", [float("nan"), float("inf"), 1e30, -5, "7", 10**400])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
def test_usage_that_cannot_be_is_estimated(name, tokens):
    usage = {"prompt_tokens": 5, "completion_tokens": 1, name: tokens}
    reply = reply_of({"choices": [{"message": {"content": "four"}}], "usage": usage}, ASK)

    assert not reply.usage.reported
    assert reply.usage.input_tokens > 5
    assert reply.usage.output_tokens == 1


@given(st.text(max_size=40))
@settings(max_examples=40)
def test_the_bound_of_tokens_is_at_least_the_bytes(text):
    message = {"role": "user", "content": text}

    assert most_tokens(message) >= len(text.encode("utf-8", "surrogatepass"))


def test_options_of_a_model():
    name, options = split_spec("org/model@x#temperature=0,price=0.4/1.6,stream=yes,tools=text")

    assert name == "org/model@x"
    assert options == ModelOptions(temperature=0.0, price=Price(0.4, 1.6), stream=True, tools="text")
    assert options.describe() == {
        "temperature": "0.0",
        "max_output_tokens": "8192",
        "tools": "text",
        "price": "0.4/1.6",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m#temprature=1", "did you mean 'temperature'"),
        ("m#temperature=3", "from 0 to 2"),
        ("m#price=1", "IN/OUT"),
        ("m#price=nan/1", "IN/OUT"),
        ("m#max_output_tokens=0", "above 0"),
        ("m#tools=maybe", "choose from auto, native, text"),
        ("m#seed", "seed="),
    ],
)
def test_options_that_cannot_be_used(text, message):
    with pytest.raises(ConfigurationError, match=message):
        split_spec(text)


async def test_a_server_that_checks_like_the_api():
    asks = ({"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "1", "content": "y"})
    with served(ScriptedModel(lambda _: Say("x"), tools=False)) as server:
        with pytest.raises(ModelUnavailable, match="answers no tool call"):
            await model(server).complete(ChatRequest(messages=asks))
        with pytest.raises(ToolsUnsupported):
            await model(server).complete(ASK)


def test_a_spec_names_model_address_and_options():
    made = OpenAiModel.from_spec("org/m@1@http://user:pw@h:1/v1#temperature=0", Settings())

    assert made.name == "org/m@1"
    assert made.describe() == {
        "model": "org/m@1",
        "endpoint": "http://***@h:1/v1/chat/completions",
        "temperature": "0.0",
        "max_output_tokens": "8192",
        "tools": "auto",
    }


@pytest.mark.parametrize("rest", ["", "m", "@http://h", "m@h:1", "m@http://h#api_base=http://x"])
def test_specs_that_cannot_be_used(rest):
    with pytest.raises(ConfigurationError, match="chat:MODEL@"):
        OpenAiModel.from_spec(rest, Settings())


@pytest.mark.parametrize(
    ("url", "chat_key", "sent"),
    [
        ("http://127.0.0.1:1", "", "sk-of-openai"),
        ("https://api.example.com", "", "sk-of-openai"),
        ("http://api.example.com", "", None),
        ("http://api.example.com", "own-key", "own-key"),
        ("http://127.0.0.1.example.com", "", None),
    ],
)
def test_the_key_of_openai_is_sent_nowhere_in_plain_text(monkeypatch, url, chat_key, sent):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")

    made = OpenAiModel.from_spec(f"m@{url}", Settings(chat_key=credential(chat_key)))

    assert made.key == (credential(sent) if sent else None)
    assert "sk-of-openai" not in str(made.describe())
