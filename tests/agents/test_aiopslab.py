"""Agents of AIOpsLab: what they may write in a turn, and investigations that they end."""

from __future__ import annotations

import sys
import types

import pytest

from pytest_otel_diag.analyzers.agents.aiopslab import NEXT, NoCall, read_call, submitted
from pytest_otel_diag.analyzers.agents.answers import diagnosis_from
from pytest_otel_diag.analyzers.agents.opening import open_aiopslab
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import AnalyzerError, ConfigurationError
from pytest_otel_diag.testing.analyzer_contract import BrokenTelemetry
from tests.support.investigations import investigation_over


@pytest.mark.parametrize(
    "text",
    [
        "```\nget_trace('a', pick=\"failed\")\n```",
        "I look at a trace first.\n```python\nget_trace('a', pick='failed')\n```\nThen I go on.",
        "```get_trace('a', pick='failed')```",
        "get_trace('a', pick='failed')",
        "The log says\n```\nconnection refused\n```\nso\n```\nget_trace('a', pick='failed')\n```",
    ],
)
def test_a_call_is_read_in_the_shapes_that_agents_write(text):
    call = read_call(text)
    assert (call.name, list(call.positional), call.named) == ("get_trace", ["a"], {"pick": "failed"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("I think it is payment", "0 calls"),
        ("```\na()\n```\n```\nb()\n```", "2 calls"),
        ("```\na(open('x'))\n```", "cannot be read"),
        ("```\na(**{'b': 1})\n```", "unpacked"),
        ("```\na(1\n```", "cannot be read"),
        ("```\na(1).b()\n```", "no call"),
        ("a(" + "[" * 5000, "cannot be read"),
    ],
)
def test_a_turn_that_is_no_call_is_answered_with_what_to_write(text, said):
    with pytest.raises(NoCall, match=said.replace("**", "")):
        read_call(text)


@pytest.mark.parametrize(
    ("written", "detected", "services"),
    [
        ("submit(['payment', 'checkout'])", True, ["payment", "checkout"]),
        ("submit([])", False, []),
        ("submit('payment')", True, ["payment"]),
        ("submit('Yes')", True, []),
        ("submit('No')", False, []),
        ("submit()", False, []),
        ("submit(None)", False, []),
        ("submit(solution=['payment'])", True, ["payment"]),
        ("submit({'system_level': 'Application', 'fault_type': 'Code Defect'})", True, []),
        ("submit({'detected': True, 'root_causes': [{'service': 'payment'}]})", True, ["payment"]),
    ],
)
def test_answers_of_each_task_become_a_diagnosis(written, detected, services):
    diagnosis = diagnosis_from(submitted(read_call(written)))
    assert diagnosis.detected is detected
    assert [cause.service for cause in diagnosis.root_causes] == services


def opened(monkeypatch, agent, **settings):
    monkeypatch.setitem(sys.modules, "lab_agent", types.SimpleNamespace(Agent=agent))
    return open_aiopslab("lab_agent:Agent", Settings(**settings))


async def test_an_agent_gets_the_problem_calls_tools_and_submits(monkeypatch):
    seen = []

    class Agent:
        def init_context(self, problem_desc, instructions, apis):
            seen.append((problem_desc, instructions, apis))

        async def get_action(self, observation):
            seen.append(observation)
            turns = [
                "no call at all",
                "```\nexec_shell('ls')\n```",
                "```\nquery(1, 2, 3, 4, 5, 6, 7)\n```",
                "```\nsubmit(['payment'])\n```",
            ]
            return turns[len(seen) - 2]

    analyzer = opened(monkeypatch, Agent)
    diagnosis = await analyzer.diagnose(investigation_over(BrokenTelemetry()))

    problem, instructions, apis = seen[0]
    assert "start_ns" in problem
    assert "one call" in instructions
    assert {"query", "compare_windows", "submit"} <= apis.keys()
    assert "submit_diagnosis" not in apis
    assert seen[1] == NEXT
    assert seen[2].startswith("Error: the text has 0 calls")
    assert "there is no tool 'exec_shell'" in seen[3]
    assert "arguments" in seen[4]
    assert [cause.service for cause in diagnosis.root_causes] == ["payment"]
    assert diagnosis.usage.steps == 4
    assert analyzer.describe()["protocol"] == "AIOpsLab"


async def test_an_agent_without_context_gets_the_problem_in_its_first_observation(monkeypatch):
    class Agent:
        def get_action(self, observation):
            assert "list_services(" in observation
            return "submit('No')"

    diagnosis = await opened(monkeypatch, Agent).diagnose(investigation_over(BrokenTelemetry()))
    assert not diagnosis.detected


async def test_an_agent_that_never_submits_gives_no_answer(monkeypatch):
    class Agent:
        async def get_action(self, observation):
            return "I am thinking"

    with pytest.raises(AnalyzerError, match="submitted nothing in 3 turns"):
        await opened(monkeypatch, Agent, llm_steps=3).diagnose(investigation_over(BrokenTelemetry()))


def test_what_is_no_agent_is_refused_before_anything_runs(monkeypatch):
    with pytest.raises(ConfigurationError, match="no method get_action"):
        opened(monkeypatch, object())
    with pytest.raises(ConfigurationError, match="cannot import module 'nowhere'"):
        open_aiopslab("nowhere:Agent", Settings())
    with pytest.raises(ConfigurationError, match="isolate rules out"):
        opened(monkeypatch, object, isolate=True)
