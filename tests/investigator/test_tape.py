"""Tapes of a model: what is played back, what is a miss, and what may differ between runs."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.analyzers.investigator.chat_model import (
    ChatReply,
    ChatRequest,
    ContextOverflow,
    ReplyUsage,
    ToolCall,
    TransientFailure,
)
from pytest_otel_diag.analyzers.investigator.tape import RecordingModel, ReplayedModel, TapeMiss
from pytest_otel_diag.analyzers.investigator.tape_text import TapedRequest
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.secret import credential

TOOLS = ({"type": "function", "function": {"name": "query", "parameters": {"type": "object"}}},)
TRACE, OTHER_TRACE = "5b8aa5a2d2c872e8321cf37308d69df2", "00000000000000000000000000000abc"
START, OTHER_START = 1_700_000_000_000_000_000, 1_812_345_678_901_234_567


class Scripted:
    """A model that answers from a list; exceptions are raised."""

    name = "tiny"
    supports_tools = True

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    def describe(self):
        return {"model": "tiny", "litellm": "1.110.2", "temperature": "0.0"}

    def worst_case_cost_usd(self, request):
        return (request.input_tokens_bound() * 2 + request.max_output_tokens * 8) / 1e6

    async def complete(self, request):
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self):
        pass


def said(content="", *calls, cost=0.01):
    message = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in calls
        ]
    usage = ReplyUsage(100, 10, cached_tokens=50, cost_usd=cost)
    return ChatReply(message=message, content=content, tool_calls=calls, usage=usage, model="tiny-1")


def request(*messages, **changes):
    return ChatRequest(messages=messages, tools=TOOLS, max_output_tokens=100, **changes)


def user(text):
    return {"role": "user", "content": text}


def conversation(trace, start, call_id, result="12 of 19 calls failed"):
    call = {"id": call_id, "type": "function", "function": {"name": "query", "arguments": '{"a": 1}'}}
    return request(
        user(f"What is wrong since {start}? session {trace[:16]}"),
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": json.dumps({"trace": trace, "text": result})},
    )


async def recorded(folder, *exchanges, run="r1"):
    model = RecordingModel(Scripted(*(answer for _, answer in exchanges)), folder, run, {"prompts": "abc"})
    for asked, answer in exchanges:
        if isinstance(answer, Exception):
            with pytest.raises(type(answer)):
                await model.complete(asked)
        else:
            await model.complete(asked)
    await model.close()


def replayed(folder, name="tiny"):
    return ReplayedModel(name, {"temperature": "0.0"}, folder)


async def test_a_recorded_answer_comes_back_whole_without_a_model(tmp_path):
    reply = said("let me look", ToolCall("call_1", "query", '{"sql": "SELECT 1"}'))
    await recorded(tmp_path, (request(user("why?")), reply))

    model = replayed(tmp_path)

    assert await model.complete(request(user("why?"))) == reply
    assert model.supports_tools is True
    asked = request(user("why?"))
    assert model.worst_case_cost_usd(asked) == pytest.approx(Scripted().worst_case_cost_usd(asked))


async def test_a_replayed_model_says_so_and_names_the_recording(tmp_path):
    await recorded(tmp_path, (request(user("why?")), said("x")))

    described = replayed(tmp_path).describe()

    assert described["model"] == "tiny" and described["litellm"] == "1.110.2"
    assert described["tape"].startswith(f"replayed from {tmp_path}, recorded 20")


async def test_ids_and_times_of_another_run_get_the_recorded_answer_with_their_own_values(tmp_path):
    sql = f"SELECT 1 WHERE TraceId = '{TRACE}' AND Timestamp >= {START}"
    call = ToolCall("call_2", "query", json.dumps({"sql": sql}))
    await recorded(tmp_path, (conversation(TRACE, START, "call_1"), said(f"see {TRACE}", call)))

    reply = await replayed(tmp_path).complete(conversation(OTHER_TRACE, OTHER_START, "toolu_9"))

    assert reply.content == f"see {OTHER_TRACE}"
    assert json.loads(reply.tool_calls[0].arguments)["sql"] == (
        f"SELECT 1 WHERE TraceId = '{OTHER_TRACE}' AND Timestamp >= {OTHER_START}"
    )
    assert reply.message["tool_calls"][0]["function"]["arguments"] == reply.tool_calls[0].arguments


async def test_a_changed_result_of_a_tool_is_a_miss_that_names_it(tmp_path):
    await recorded(tmp_path, (conversation(TRACE, START, "c"), said("x")))

    with pytest.raises(TapeMiss) as caught:
        await replayed(tmp_path).complete(conversation(TRACE, START, "c", "13 of 19 calls failed"))

    text = str(caught.value)
    assert "equal up to message 2; message 3 (tool) differs" in text
    assert "12 of 19" in text and "13 of 19" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temperature": 0.5}, "temperature is 0.5, was None"),
        ({"max_output_tokens": 7}, "max_output_tokens is 7, was 100"),
        ({"tools": ()}, "other tools"),
        ({"messages": (user("why?"), user("and?"))}, r"ends there; now message 2 \(user\) follows"),
    ],
)
async def test_other_parameters_tools_and_more_messages_are_misses(tmp_path, changes, words):
    await recorded(tmp_path, (request(user("why?")), said("x")))

    with pytest.raises(TapeMiss, match=words):
        await replayed(tmp_path).complete(dataclasses.replace(request(user("why?")), **changes))


async def test_the_time_limit_of_an_attempt_may_differ(tmp_path):
    await recorded(tmp_path, (request(user("why?"), timeout_s=120), said("x")))

    assert (await replayed(tmp_path).complete(request(user("why?"), timeout_s=3))).content == "x"


async def test_the_same_request_again_gets_its_answers_in_order_then_from_the_start(tmp_path):
    asked = request(user("why?"))
    await recorded(tmp_path, (asked, said("first")), (asked, said("second")))

    model = replayed(tmp_path)

    answers = [(await model.complete(asked)).content for _ in range(4)]
    assert answers == ["first", "second", "first", "second"]


async def test_answers_that_change_the_way_are_replayed_and_passing_failures_are_not(tmp_path):
    asked = request(user("why?"))
    passing = TransientFailure("slow down")
    await recorded(tmp_path, (asked, passing), (asked, ContextOverflow("too long")), (asked, said("x")))

    model = replayed(tmp_path)

    with pytest.raises(ContextOverflow, match="too long"):
        await model.complete(asked)
    assert (await model.complete(asked)).content == "x"


async def test_a_tape_holds_no_credentials(tmp_path):
    credential("sk-live-0123456789")
    asked = request(user("the key is sk-live-0123456789"))
    await recorded(tmp_path, (asked, said("it is sk-live-0123456789")))

    assert "sk-live-0123456789" not in "".join(file.read_text() for file in tmp_path.iterdir())
    assert (await replayed(tmp_path).complete(asked)).content == "it is ***"


async def test_a_folder_takes_one_run(tmp_path):
    await recorded(tmp_path, (request(user("why?")), said("x")))
    await recorded(tmp_path, (request(user("who?")), said("y")))

    with pytest.raises(ConfigurationError, match="the tape of another run"):
        await recorded(tmp_path, (request(user("why?")), said("x")), run="r2")

    model = replayed(tmp_path)
    assert (await model.complete(request(user("who?")))).content == "y"


async def test_a_tape_that_another_process_has_just_created_is_no_obstacle(tmp_path):
    (tmp_path / "tape-001.jsonl").touch()

    await recorded(tmp_path, (request(user("why?")), said("x")))

    assert (await replayed(tmp_path).complete(request(user("why?")))).content == "x"


def test_what_is_no_tape_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(ConfigurationError, match=r"holds no tape; record one with --otel-diag-llm-tape"):
        replayed(tmp_path)
    (tmp_path / "tape-001.jsonl").write_text("{}\n")
    with pytest.raises(ConfigurationError, match="is no tape of a model"):
        replayed(tmp_path)


async def test_another_model_is_refused(tmp_path):
    await recorded(tmp_path, (request(user("why?")), said("x")))

    with pytest.raises(ConfigurationError, match="recorded with 'tiny', not with 'large'"):
        replayed(tmp_path, "large")


async def test_a_line_torn_by_a_kill_is_left_out(tmp_path):
    await recorded(tmp_path, (request(user("why?")), said("x")))
    (file,) = tmp_path.iterdir()
    with file.open("a") as stream:
        stream.write('{"kind": "call", "key": "12')

    assert (await replayed(tmp_path).complete(request(user("why?")))).content == "x"


def test_several_processes_record_into_one_folder(tmp_path):
    code = (
        "import asyncio, pathlib, sys\n"
        "from tests.investigator.test_tape import recorded, request, said, user\n"
        "name = sys.argv[2]\n"
        "asked = [(request(user(f'{name} {number}')), said(name)) for number in range(20)]\n"
        "asyncio.run(recorded(pathlib.Path(sys.argv[1]), *asked))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    workers = [subprocess.Popen([*command, name]) for name in ("a", "b")]

    assert [worker.wait() for worker in workers] == [0, 0]
    model = replayed(tmp_path)
    for name in ("a", "b"):
        for number in range(20):
            reply = asyncio.run(model.complete(request(user(f"{name} {number}"))))
            assert reply.content == name


IDS = st.sampled_from(
    [TRACE, OTHER_TRACE, TRACE[:16], str(START), str(OTHER_START), "2026-12-01 01:02:03.456"]
)
WORDS = st.text("ab \n,.'\"\\{}:0123456789-", max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(WORDS, IDS), min_size=1, max_size=5))
def test_the_key_is_the_same_for_any_consistent_renaming(parts):
    renamed = {TRACE: "f" * 32, OTHER_TRACE: "e" * 32, TRACE[:16]: "d" * 16}
    renamed |= {str(START): str(START + 1), str(OTHER_START): str(START + 2)}
    renamed |= {"2026-12-01 01:02:03.456": "2027-01-02 03:04:05.678"}

    def key(names):
        text = json.dumps([f"{word} {names.get(name, name)} " for word, name in parts])
        return TapedRequest("tiny", request(user(text), user(json.dumps({"nested": text})))).key

    assert key({}) == key(renamed)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_texts_without_ids_that_differ_have_different_keys(one, other):
    keys = {TapedRequest("tiny", request(user(text))).key for text in (one, other)}

    assert len(keys) == (1 if one == other else 2)


def test_a_measurement_is_no_id():
    keys = {
        TapedRequest("tiny", request(user(f"ratio 0.{digits}"))).key
        for digits in ("1234567890123456", "1234567890123457")
    }
    assert len(keys) == 2
