"""The loop over a scripted model: what each behaviour of a model leads to."""

import json

import pytest

from pytest_otel_diag.analyzers.investigator.loop.limits import Limits
from pytest_otel_diag.errors import AnalyzerError, BudgetExceeded, ConfigurationError, ModelUnavailable
from pytest_otel_diag.model.diagnosis import Diagnosis, Mechanism
from pytest_otel_diag.model.session import Budget
from pytest_otel_diag.testing.sample_telemetry import ODD_NAME
from tests.support import model_policies as does
from tests.support.deadlines import deadline_s
from tests.support.scripted_model import Call, Fail, Say, ScriptedModel


def causes(diagnosis: Diagnosis) -> list[str]:
    return [cause.service for cause in diagnosis.root_causes]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_competent_model_finds_the_culprit_through_results_of_tools(bench, stream):
    diagnosis = await bench.diagnose(does.competent, stream=stream)

    assert causes(diagnosis) == [ODD_NAME]
    assert diagnosis.root_causes[0].mechanism is Mechanism.ERROR
    assert diagnosis.query is not None
    assert [path.services for path in diagnosis.critical_paths] == [("front", "middle", ODD_NAME)]
    evidence = diagnosis.root_causes[0].evidence[0]
    assert len(evidence.trace_ids) == len(evidence.span_ids) == 3
    assert {figure.measure for figure in evidence.figures} == {"calls", "failed"}
    usage = diagnosis.usage
    assert (usage.steps, usage.prompts, usage.repairs, usage.model) == (8, 8, 0, "tiny")
    assert usage.cost_usd == pytest.approx((usage.input_tokens + 4 * usage.output_tokens) / 1e6)
    assert len(bench.queries) == 4  # three of the model, and the diagnostic query
    assert "ended by: submitted" in bench.transcript.notes()


async def test_initial_and_final_hypothesis_are_recorded_with_their_fate(bench):
    diagnosis = await bench.diagnose(does.competent)

    assert [(one.service, one.status) for one in diagnosis.hypotheses] == [
        ("front", "eliminated"),
        (ODD_NAME, "kept"),
    ]
    recorded = [(one["id"], one["status"]) for one in bench.transcript.of("hypothesis")]
    assert recorded == [("h1", "proposed"), ("h1", "eliminated"), ("h2", "proposed"), ("h2", "kept")]
    kinds = [kind for kind, _ in bench.transcript.entries]
    assert kinds.index("hypothesis") < len(kinds) - 10  # as it happened, not with the answer


async def test_the_model_is_given_windows_and_no_name_of_anything(bench):
    await bench.diagnose(does.competent)

    system, task = (message["content"] for message in bench.requests[0]["messages"])
    incident = bench.investigation.incident
    assert f"start_ns {incident.start_ns}, end_ns {incident.end_ns}" in task
    assert "2023-11-14T22:15:20.000Z" in task
    assert "front" not in system + task
    offered = [tool["function"]["name"] for tool in bench.requests[0]["tools"]]
    assert offered[-4:] == [
        "propose_hypothesis",
        "eliminate_hypothesis",
        "keep_hypothesis",
        "submit_diagnosis",
    ]


@pytest.mark.parametrize("supported", [False, True])
async def test_a_model_without_tools_works_by_the_text_protocol(bench, supported):
    options = {"tools": "text"} if supported else {}
    diagnosis = await bench.diagnose(ScriptedModel(does.as_text, tools=supported), **options)

    assert causes(diagnosis) == [ODD_NAME]
    assert diagnosis.usage.steps == 8
    assert ("takes no tools" in bench.transcript.notes()) is not supported
    assert "tools" not in bench.requests[-1]
    assert {message["role"] for message in bench.requests[-1]["messages"]} == {"system", "user", "assistant"}


async def test_an_invented_service_is_submitted_without_its_query(bench):
    diagnosis = await bench.diagnose(does.hallucinating)

    assert causes(diagnosis) == [does.INVENTED]
    assert diagnosis.query is None
    assert "no diagnostic query: it returns no rows" in diagnosis.summary
    assert diagnosis.usage.repairs == 2
    assert diagnosis.usage.steps == 3


async def test_the_query_of_a_diagnosis_is_repaired_from_what_the_engine_says(bench):
    sqls = iter(
        [
            "SELECT Nothing FROM otel_traces",
            "SELECT 'front' AS ServiceName",
            "SELECT ServiceName FROM otel_traces WHERE ServiceName = 'front' LIMIT 1",
        ]
    )
    problems = []

    def policy(conversation):
        problems.extend(conversation.results()[-1:])
        return does.submitting("front", query={"sql": next(sqls)})(conversation)

    diagnosis = await bench.diagnose(policy)

    assert diagnosis.query.sql.endswith("LIMIT 1")
    assert "Nothing" in problems[0]
    assert "it reads no table of telemetry" in problems[1]
    assert diagnosis.usage.repairs == 2


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("SELECT ServiceName FROM otel_traces WHERE ServiceName = 'middle' LIMIT 3", "names front"),
        ("DROP TABLE otel_traces", "only SELECT"),
        ("SELECT count() FROM otel_traces", "names front"),
    ],
)
async def test_a_query_without_rows_about_the_culprit_is_left_out(bench, sql, problem):
    diagnosis = await bench.diagnose(does.submitting("front", query={"sql": sql}))

    assert diagnosis.query is None
    assert problem in diagnosis.summary


async def test_repeated_calls_are_answered_from_memory(bench):
    with pytest.raises(BudgetExceeded, match="ended by: steps"):
        await bench.diagnose(does.repeating, limits=Limits(steps=6))

    assert len(bench.queries) == 1
    results = [one["text"] for one in bench.transcript.of("tool_result")]
    assert all(text.startswith("This repeats call 1") for text in results[1:])
    assert results[0] in results[-1]


async def test_a_full_context_drops_older_results_and_says_so(bench):
    diagnosis = await bench.diagnose(ScriptedModel(does.verbose, context_tokens=12_000))

    assert causes(diagnosis) == [ODD_NAME]
    assert "results of tools were shortened by" in diagnosis.summary
    assert "maximum context length is 12000" in bench.transcript.notes()
    assert "characters were dropped because the context is full" in json.dumps(bench.requests[-1])


async def test_a_context_of_known_size_is_kept_without_trying(bench):
    sizes = []

    def policy(conversation):
        sizes.append(len(json.dumps(conversation.messages)))
        return does.verbose(conversation)

    await bench.diagnose(ScriptedModel(policy), context_tokens=12_000)

    assert max(sizes) < 12_000 * 4
    assert "of 12,000 tokens" in bench.transcript.notes()


async def test_a_context_that_even_the_question_fills(bench):
    with pytest.raises(BudgetExceeded, match=r"ended by: context \(the messages do not fit: 400: .*length"):
        await bench.diagnose(ScriptedModel(does.competent, context_tokens=500))


async def test_a_refusal_is_an_error_of_the_analyzer(bench):
    with pytest.raises(AnalyzerError, match="refused: I cannot help"):
        await bench.diagnose(does.refusing)

    assert bench.transcript.of("message")[-1]["refusal"] == "I cannot help with this request."


async def test_a_filter_of_the_provider_is_a_refusal_too(bench):
    with pytest.raises(AnalyzerError, match=r"refused: .*content_filter"):
        await bench.diagnose(does.failing(Fail(400, "blocked", "content_filter")))


async def test_a_provider_that_recovers_costs_nothing_but_time(bench):
    failures = [Fail(429, "slow", headers={"retry-after-ms": "1"}), Fail(500)]

    def policy(conversation):
        return failures.pop(0) if failures else does.competent(conversation)

    diagnosis = await bench.diagnose(policy)

    assert causes(diagnosis) == [ODD_NAME]
    assert diagnosis.usage.steps == 8
    assert bench.transcript.notes().count("does not answer") == 2


async def test_a_provider_that_stays_down_is_infrastructure_with_its_words(bench):
    with pytest.raises(ModelUnavailable, match=r"4 attempts.*503: server_error: overloaded"):
        await bench.diagnose(does.failing(Fail(503, "overloaded")))


async def test_a_refused_key_is_the_users(bench):
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        await bench.diagnose(does.failing(Fail(401, "no such key")))


async def test_broken_arguments_come_back_as_errors_of_the_call(bench):
    diagnosis = await bench.diagnose(does.first(does.broken_json))

    assert causes(diagnosis) == [ODD_NAME]
    result = bench.transcript.of("tool_result")[0]
    assert result["error"]
    assert "the arguments are no JSON" in result["text"]


async def test_arguments_that_the_output_limit_cut_say_so(bench):
    cut = Say(calls=(Call("query", '{"sql": "SEL'),), finish="length")
    await bench.diagnose(does.first(lambda _: cut))

    assert "limit of output tokens" in bench.transcript.of("tool_result")[0]["text"]


async def test_wrong_names_of_tools_get_the_nearest(bench):
    diagnosis = await bench.diagnose(does.first(does.wrong_names))

    assert causes(diagnosis) == [ODD_NAME]
    assert "did you mean 'query'" in bench.transcript.of("tool_result")[1]["text"]


async def test_parallel_calls_are_answered_in_order(bench):
    diagnosis = await bench.diagnose(does.parallel)

    assert causes(diagnosis) == [ODD_NAME]
    assert diagnosis.usage.steps == 7
    roles = [message["role"] for message in bench.requests[1]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "tool"]


async def test_too_many_parallel_calls_are_not_run(bench):
    def policy(conversation):
        if conversation.attempt > 1:
            return does.competent(conversation)
        return Say(calls=tuple(Call("query", {"sql": f"SELECT {number}"}) for number in range(20)))

    await bench.diagnose(policy)

    assert "a turn may make 16 calls" in bench.transcript.of("tool_result")[19]["text"]
    assert len(bench.queries) == 16 + 4


async def test_a_cut_stream_is_asked_again_and_its_worst_case_is_charged(bench):
    whole = await bench.diagnose(does.competent, stream=True)
    cut = Say("a long answer that breaks off", cut_after=2)
    again = await bench.diagnose(does.first(lambda _: cut), stream=True)

    assert causes(again) == [ODD_NAME]
    assert again.usage.cost_usd > whole.usage.cost_usd


async def test_the_last_of_two_submissions_counts(bench):
    diagnosis = await bench.diagnose(does.submits_twice)

    assert causes(diagnosis) == [ODD_NAME]


@pytest.mark.parametrize(
    ("texts", "cause"),
    [
        (("Root cause: front",), "front"),
        (("Let me think about it.", "Root cause: front"), "front"),
        (('```json\n{"detected": true, "root_causes": [{"service": "front"}]}\n```',), "front"),
        (("", "Root cause: front"), "front"),
    ],
)
async def test_prose_is_read_after_one_request_for_a_tool_call(bench, texts, cause):
    diagnosis = await bench.diagnose(does.saying(*texts))

    assert causes(diagnosis) == [cause]
    assert diagnosis.query is None
    asked_for_a_call = "{" not in texts[0]
    assert diagnosis.usage.repairs == 1 + asked_for_a_call
    assert "ended by: answer as text" in bench.transcript.notes()


@pytest.mark.parametrize("texts", [("",), ("I think about it.",), ("Hm.", "")])
async def test_a_model_that_says_nothing_is_asked_once(bench, texts):
    with pytest.raises(AnalyzerError, match="unparsed: "):
        await bench.diagnose(does.saying(*texts))

    assert len(bench.requests) == 2
    assert "ended by: no answer" in bench.transcript.notes()


async def test_an_answer_of_the_wrong_shape_is_repaired_once(bench):
    def policy(conversation):
        name = {"service": 3} if conversation.turn == 1 else {"service": "front"}
        return Say(calls=(Call("submit_diagnosis", {"detected": False, "root_causes": [name]}),))

    diagnosis = await bench.diagnose(policy)

    assert (causes(diagnosis), diagnosis.usage.repairs) == (["front"], 1)


async def test_steps_end_with_a_turn_that_can_only_submit(bench):
    diagnosis = await bench.diagnose(does.competent, limits=Limits(steps=4))

    assert causes(diagnosis) == ["front"]
    assert "(ended by: steps (3 of 4 steps are used))" in diagnosis.summary
    assert [tool["function"]["name"] for tool in bench.requests[-1]["tools"]] == ["submit_diagnosis"]
    assert diagnosis.usage.steps == 4
    assert diagnosis.query is None


async def test_a_last_answer_that_is_no_diagnosis_ends_by_the_budget(bench):
    def policy(conversation):
        if conversation.offered == ("submit_diagnosis",):
            return Say(calls=(Call("submit_diagnosis", {"confidence": 1.0}),))
        return does.curious(conversation)

    with pytest.raises(BudgetExceeded, match=r"ended by: steps .*neither detected nor root_causes"):
        await bench.diagnose(policy, limits=Limits(steps=3))


async def test_a_model_that_never_submits_ends_at_its_steps(bench):
    with pytest.raises(BudgetExceeded, match=r"ended by: steps .*the last turn has no answer"):
        await bench.diagnose(does.curious, limits=Limits(steps=5))

    assert len(bench.requests) == 5


async def test_queries_end_with_some_kept_back_for_the_diagnostic_query(bench):
    def policy(conversation):
        if conversation.offered == ("submit_diagnosis",):
            sql = "SELECT ServiceName FROM otel_traces LIMIT 1"
            return does.submitting("front", query={"sql": sql})(conversation)
        return does.curious(conversation)

    diagnosis = await bench.diagnose(policy, budget=Budget(queries=8, time_s=deadline_s(60)))

    assert "ended by: queries (the budget of 8 queries is used up)" in diagnosis.summary
    assert diagnosis.query is not None
    assert len(bench.queries) == 7


@pytest.mark.parametrize("dollars", [0.012, 0.02, 0.03, 0.05])
async def test_the_cost_never_exceeds_its_budget(bench, dollars):
    budget = Budget(cost_usd=dollars, time_s=deadline_s(60))
    try:
        diagnosis = await bench.diagnose(does.curious, budget=budget)
    except BudgetExceeded as error:
        assert "ended by: cost" in str(error)
    else:
        pytest.fail(f"a model that never submits answered {diagnosis}")

    usage = bench.transcript.of("usage")
    assert all(one["total_cost_usd"] <= dollars for one in usage)
    assert ("no last turn" in bench.transcript.notes()) == (not usage)


async def test_tokens_end_before_they_are_exceeded(bench):
    with pytest.raises(BudgetExceeded, match="ended by: tokens"):
        await bench.diagnose(does.curious, limits=Limits(tokens=40_000))

    usage = bench.transcript.of("usage")
    assert 0 < sum(one["input_tokens"] + one["output_tokens"] for one in usage) <= 40_000


async def test_time_ends_with_a_last_turn(bench):
    passed_s = 0.0

    def policy(conversation):
        nonlocal passed_s
        passed_s += 0.0 if conversation.offered == ("submit_diagnosis",) else 40.0
        return does.competent(conversation)

    diagnosis = await bench.diagnose(policy, budget=Budget(time_s=300.0), monotonic=lambda: passed_s)

    assert "ended by: time (the budget of 300 s is used up)" in diagnosis.summary
    assert causes(diagnosis) == ["front"]


async def test_a_model_slower_than_the_budget_ends_by_time(bench):
    with pytest.raises(BudgetExceeded, match="ended by: time"):
        await bench.diagnose(does.stalling, budget=Budget(time_s=0.5))


async def test_a_stalling_provider_is_infrastructure(bench):
    with pytest.raises(ModelUnavailable, match=r"4 attempts\): no answer within 0\.05 s"):
        await bench.diagnose(does.stalling, timeout_s=0.05)

    assert bench.server.model.stalled == 4


async def test_an_unknown_price_is_said(bench):
    diagnosis = await bench.diagnose(does.competent, price=None)

    assert diagnosis.usage.cost_usd == 0.0
    assert "the price of the model is not known" in bench.transcript.notes()


async def test_a_diagnosis_stands_although_its_repair_never_comes(bench):
    def policy(conversation):
        bad = does.submitting("front", query={"sql": "SELECT 1"})
        return bad(conversation) if conversation.turn == 1 else Say("")

    diagnosis = await bench.diagnose(policy)

    assert (causes(diagnosis), diagnosis.query) == (["front"], None)
    assert "(ended by: no answer (it was empty))" in diagnosis.summary


async def test_a_wrong_answer_stands_if_the_hint_leads_to_none(bench):
    bench.guidance = Hints("look deeper")
    before = does.submitting("front", query={"sql": "SELECT ServiceName FROM otel_traces"})
    diagnosis = await bench.diagnose(does.guided("look deeper", before=before, then=does.saying("")))

    assert causes(diagnosis) == ["front"]


class Hints:
    """Gives its hints until an attempt names the culprit."""

    def __init__(self, *hints: str) -> None:
        self.left = list(hints)
        self.asked: list[Diagnosis | None] = []

    async def next(self, diagnosis):
        self.asked.append(diagnosis)
        right = diagnosis is not None and causes(diagnosis)[:1] == [ODD_NAME]
        return self.left.pop(0) if self.left and not right else None


async def test_a_hint_goes_on_with_the_same_conversation(bench):
    bench.guidance = Hints("look deeper", "even deeper")
    policy = does.guided("look deeper", before=does.submitting("front"))
    diagnosis = await bench.diagnose(policy)

    assert causes(diagnosis) == [ODD_NAME]
    assert [one and causes(one) for one in bench.guidance.asked] == [["front"], [ODD_NAME]]
    roles = [message["role"] for message in bench.requests[-1]["messages"]]
    assert roles.count("user") == 2


async def test_a_hint_helps_a_model_without_an_answer(bench):
    bench.guidance = Hints("look deeper")
    diagnosis = await bench.diagnose(does.guided("look deeper", before=does.saying("")))

    assert causes(diagnosis) == [ODD_NAME]
    assert bench.guidance.asked[0] is None
