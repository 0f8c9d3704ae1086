"""Parts of the loop: protocols, messages that shrink, limits, prompts, hypotheses."""

import dataclasses
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.analyzers.investigator.chat_model import (
    ChatReply,
    ChatRequest,
    ReplyUsage,
    ToolCall,
    TransientFailure,
)
from pytest_otel_diag.analyzers.investigator.loop.conversation import Conversation
from pytest_otel_diag.analyzers.investigator.loop.investigator import Investigator, InvestigatorSettings
from pytest_otel_diag.analyzers.investigator.loop.limits import LAST_TURN_TOKENS, Exhausted, Limits, Meter
from pytest_otel_diag.analyzers.investigator.loop.protocols import NativeProtocol, TextProtocol, spoken
from pytest_otel_diag.analyzers.investigator.model_options import ModelOptions, Price
from pytest_otel_diag.analyzers.investigator.openai_http import OpenAiModel
from pytest_otel_diag.analyzers.investigator.prompts import PLACEHOLDERS, load_prompts
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.session import Budget

PRICE = Price(3.0, 15.0)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def said(text: str, **more) -> ChatReply:
    return ChatReply(message={"role": "assistant", "content": text}, content=text, **more)


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ('I look.\n```json\n{"tool": "query", "arguments": {"sql": "S"}}\n```', "query", {"sql": "S"}),
        ('```\n{"name": "query", "args": {"sql": "S"}}```', "query", {"sql": "S"}),
        ('{"action": "query", "action_input": {"sql": "S"}}', "query", {"sql": "S"}),
        ('<tool_call>{"name": "query", "arguments": {"sql": "S"}}</tool_call>', "query", {"sql": "S"}),
        (
            '{"type": "function", "function": {"name": "query", "arguments": "{\\"sql\\": \\"S\\"}"}}',
            "query",
            {"sql": "S"},
        ),
        ('```json\n{"tool": "list_services"}\n```', "list_services", {}),
        ('```python\nprint(1)\n```\n```json\n{"tool": "a", "arguments": {}}\n```', "a", {}),
        ('```json\n{"tool": "a"}\n```\n```json\n{"tool": "b"}\n```', "a", {}),
    ],
)
def test_a_call_in_text_is_read_in_the_spellings_of_models(text, name, arguments):
    (call,) = TextProtocol().calls(said(text))

    assert (call.name, call.arguments, call.problem) == (name, arguments, "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I think.",
        "{",
        '{"detected": true, "action": "restart"}',
        "```json\n[1, 2]\n```",
        '{"tool": 3'[:5],
    ],
)
def test_texts_without_a_call(text):
    assert TextProtocol().calls(said(text)) == ()


@pytest.mark.parametrize("text", ['```json\n{"tool": "query", "arguments": {"sql"\n```', '{"tool": "query",'])
def test_a_call_in_broken_json_is_a_problem_for_the_model(text):
    (call,) = TextProtocol().calls(said(text))

    assert "no JSON" in call.problem


@given(st.text(alphabet='{}"`:,[]toljsn \n<>', max_size=60) | JSON.map(json.dumps))
@settings(max_examples=60)
def test_any_text_is_read_without_an_error(text):
    for call in TextProtocol().calls(said(text)):
        assert isinstance(call.arguments, dict)


@given(st.text(max_size=30) | JSON.map(json.dumps))
@settings(max_examples=60)
def test_any_arguments_are_an_object_or_a_problem_and_go_back_as_json(arguments):
    reply = ChatReply(
        message={
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "query", "arguments": arguments}}
            ],
        },
        tool_calls=(ToolCall("c", "query", arguments),),
    )
    (call,) = NativeProtocol().calls(reply)
    sent = NativeProtocol().turn(reply)["tool_calls"][0]["function"]["arguments"]

    assert isinstance(call.arguments, dict)
    assert isinstance(json.loads(sent or "{}"), dict) or call.problem == ""


@pytest.mark.parametrize(
    ("text", "content", "thought"),
    [
        ("<think>payment?</think>\nRoot cause: cart", "Root cause: cart", "payment?"),
        ("payment? {</think>Root cause: cart", "Root cause: cart", "payment? {"),
        ("<thinking>a</thinking>b<think>c", "b", "<think>c"),
        ("no thoughts", "no thoughts", ""),
    ],
)
def test_thoughts_in_the_text_are_no_answer(text, content, thought):
    reply = spoken(said(text))

    assert reply.content == reply.message["content"] == content
    assert thought in reply.reasoning


def test_a_server_that_cuts_messages_in_silence_is_noticed():
    talk = talk_with("x" * 40_000)
    request = ChatRequest(messages=talk.messages)

    assert "4,096 tokens in 40," in talk.counted(ReplyUsage(input_tokens=4_096), request)
    assert talk.tokens_bound(()) > 40_000
    assert talk.counted(ReplyUsage(input_tokens=10_000), request) == ""
    assert talk.counted(ReplyUsage(input_tokens=4_096, reported=False), request) == ""


def talk_with(*results: str) -> Conversation:
    talk = Conversation()
    talk.say("system", "s")
    talk.add_results(
        {"role": "tool", "tool_call_id": str(n), "content": text} for n, text in enumerate(results)
    )
    return talk


def test_large_and_old_results_are_shortened_first():
    talk = talk_with("a" * 5000, "small", "b" * 5000, "c" * 5000)

    first = talk.reduce()
    lengths = [len(message["content"]) for message in talk.messages[1:]]
    assert (first.results, lengths[1], lengths[2:]) == (1, 5, [5000, 5000])
    assert "4400 characters were dropped" in talk.messages[1]["content"]
    while talk.reduce():
        pass
    assert all(len(message["content"]) < 300 for message in talk.messages[1:])
    assert talk.messages[0] == {"role": "system", "content": "s"}


@given(
    st.lists(st.text(max_size=600).map(lambda text: text * 9), max_size=6), st.integers(0, 5), st.floats(1, 9)
)
@settings(max_examples=40)
def test_the_bound_of_tokens_holds_for_every_tokenizer_of_bytes(results, counted, bytes_a_token):
    def tokens(messages) -> int:
        return int(
            sum(len(message["content"].encode("utf-8", "surrogatepass")) for message in messages)
            / bytes_a_token
        )

    talk = talk_with(*results[:counted])
    request = ChatRequest(messages=talk.messages)
    talk.counted(ReplyUsage(input_tokens=tokens(talk.messages)), request)
    talk.add_results({"role": "tool", "content": text} for text in results[counted:])
    assert tokens(talk.messages) <= talk.tokens_bound(())
    while talk.reduce():
        assert tokens(talk.messages) <= talk.tokens_bound(())


class Free:
    """A model that answers with any usage within its request."""

    name = "free"

    def worst_case_cost_usd(self, request):
        return PRICE.of(request.input_tokens_bound(), request.max_output_tokens)


@given(
    seed=st.integers(0, 10_000),
    dollars=st.floats(0.001, 0.5),
    limits=st.builds(Limits, steps=st.integers(1, 20), tokens=st.integers(3_000, 300_000)),
    failures=st.booleans(),
)
@settings(max_examples=60)
def test_no_sequence_of_replies_exceeds_a_limit(seed, dollars, limits, failures):
    rng = random.Random(seed)
    meter = Meter(Free(), Budget(cost_usd=dollars), limits, lambda: 0.0)
    message = {"role": "user", "content": "x" * rng.randint(1, 9000)}
    last = failed = False
    while not last:
        request = ChatRequest(messages=(message,), max_output_tokens=rng.randint(LAST_TURN_TOKENS, 9_000))
        try:
            asked = meter.before(request, last=False)
        except Exhausted:
            last = True
            asked = ChatRequest(messages=(message,), max_output_tokens=LAST_TURN_TOKENS)
            try:
                meter.before(asked, last=True)
            except Exhausted:
                assert failed or not meter.used.steps  # what a reply may cost was kept back
                break
        if failures and not last and rng.random() < 0.3:
            failed = True
            meter.failed(TransientFailure("cut", billable=True), asked, 0.0, cut=False)
            continue
        spent = ReplyUsage(
            input_tokens=rng.randint(0, asked.input_tokens_bound()),
            output_tokens=rng.randint(0, asked.max_output_tokens),
        )
        cost = PRICE.of(spent.input_tokens, spent.output_tokens)
        meter.replied(said("", usage=dataclasses.replace(spent, cost_usd=cost)))
    used = meter.used
    assert used.cost_usd <= dollars * (1 + 1e-9)
    assert used.input_tokens + used.output_tokens <= limits.tokens
    assert used.steps <= limits.steps


def test_prompts_have_the_placeholders_that_are_filled_and_name_no_system():
    prompts = load_prompts()

    assert set(prompts.texts) == set(PLACEHOLDERS)
    for name, placeholders in PLACEHOLDERS.items():
        values = dict.fromkeys(placeholders, "VALUE")
        assert ("VALUE" in prompts.render(name, **values)) == bool(placeholders)
        assert "$" not in prompts.render(name, **values)
    assert len(prompts.version) == 12


def test_prompts_of_the_user_replace_ours_and_change_the_version(tmp_path):
    (tmp_path / "nudge.md").write_text("Go on: $problem. It costs $$1.\n")
    own = load_prompts(tmp_path)

    assert own.render("nudge", problem="silence") == "Go on: silence. It costs $1."
    assert own.texts["system"] == load_prompts().texts["system"]
    assert own.version.endswith("(nudge replaced)")
    assert own.version[:12] != load_prompts().version[:12]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("sistem.md", "x", "did you mean 'system'"),
        ("nudge.md", "$service", r"unknown placeholder \$service; known here: \$problem"),
        ("system.md", "$problem", "known here: none"),
        ("nudge.md", "5 $", r"write \$\$"),
        ("notes.txt", "x", "there is no prompt in"),
    ],
)
def test_prompts_that_cannot_be_used(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)

    with pytest.raises(ConfigurationError, match=message):
        InvestigatorSettings.of(Settings(llm_prompts=str(tmp_path)), ModelOptions())


def test_a_prompt_that_is_no_text(tmp_path):
    (tmp_path / "nudge.md").write_bytes(b"\xff")

    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_prompts(tmp_path)


def test_what_makes_two_investigators_alike(tmp_path):
    def described(settings: Settings, options: ModelOptions):
        model = OpenAiModel("m", "http://h:1", options=options)
        return Investigator(model, InvestigatorSettings.of(settings, options)).describe()

    usual = described(Settings(), ModelOptions())
    assert usual == described(Settings(), ModelOptions(timeout_s=1.0, stream=True))
    (tmp_path / "nudge.md").write_text("Go on: $problem")
    for changed, options in (
        (Settings(llm_steps=3), ModelOptions()),
        (Settings(llm_tokens=3_000), ModelOptions()),
        (Settings(llm_prompts=str(tmp_path)), ModelOptions()),
        (Settings(), ModelOptions(temperature=0.5)),
    ):
        assert described(changed, options) != usual
    assert set(usual) >= {"model", "endpoint", "investigator", "prompts", "tool texts", "steps", "tokens"}


@pytest.mark.parametrize(
    ("context", "characters"), [(None, 12_000), (8_192, 8_192), (500, 4_000), (10**6, 12_000)]
)
def test_results_fit_into_a_context_of_known_size(context, characters):
    settings = InvestigatorSettings(options=ModelOptions(context_tokens=context))

    assert settings.caps.characters == characters
