"""An isolated analyzer gets what one in process gets, and nothing of the process that asks it."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import AnalyzerError, BudgetExceeded, ConfigurationError
from pytest_otel_diag.model.session import Budget
from pytest_otel_diag.runs.isolation.isolated import IsolatedAnalyzer
from pytest_otel_diag.runs.opening import open_analyzer
from pytest_otel_diag.runs.runner import Runner
from pytest_otel_diag.sessions.ending import AnalyzerCrashed
from pytest_otel_diag.sessions.investigation.run import run_analyzer
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.testing.analyzer_contract import (
    ODD_NAME,
    AnalyzerContract,
    BrokenTelemetry,
    incident_traces,
)
from tests.isolation.agents import ACTS, FIRST_SEED
from tests.support.deadlines import deadline_s, eventually_async
from tests.support.investigations import investigation_over

SPEC = "tests.isolation.agents:Agent"
KEY = "sk-isolated-0123456789"


class Kept:
    """A transcript in memory."""

    def __init__(self):
        self.entries = []

    async def add(self, kind, content):
        self.entries.append((kind, dict(content)))


class OneHint:
    """Guidance with one hint."""

    async def next(self, diagnosis):
        return f"look again: {diagnosis.detected}"


@pytest.fixture(scope="module")
def runner():
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OPENAI_API_KEY", KEY)
        with Runner(Settings(isolate=True, agent_env="OPENAI_API_KEY", agent_memory_mb=1024)) as runner:
            runner.analyzer(SPEC)
            yield runner


@pytest.fixture(scope="module")
def isolated(runner):
    return runner.analyzer(SPEC)


@pytest.fixture(scope="module")
def telemetry():
    with Store.open("chdb://memory") as store:
        store.create_database("isolation")
        store.ingest_arrow("isolation", "otel_traces", incident_traces())
        yield store.telemetry("isolation")


def asked(telemetry, act, **changes):
    given = investigation_over(telemetry, **changes)
    seed = FIRST_SEED + [one.__name__ for one in ACTS].index(act)
    return replace(given, seed=seed, transcript=Kept(), guidance=OneHint())


async def run(analyzer, question):
    return await run_analyzer(analyzer, question, timeout_s=deadline_s(30), grace_s=deadline_s(10))


def test_it_is_identified_without_being_imported_here(runner, isolated):
    assert isinstance(isolated, IsolatedAnalyzer)
    identity = runner.identity(SPEC)
    assert identity.source == SPEC
    assert len(identity.sha256) == 64
    assert identity.details == {"acts": str(len(ACTS)), "pytest": "False", "isolated": "on"}


async def test_every_handle_answers_as_in_process(telemetry, isolated):
    here, there = asked(telemetry, "everything"), asked(telemetry, "everything")
    expected = await run(open_analyzer(SPEC, Settings()), here)
    answer = await run(isolated, there)
    assert answer.summary.splitlines() == expected.summary.splitlines()
    assert len(answer.summary.splitlines()) > 15
    assert there.transcript.entries[0] == here.transcript.entries[0]
    assert [entry.sql for entry in there.telemetry.records] == [entry.sql for entry in here.telemetry.records]


async def test_a_blocking_function_answers_and_what_it_prints_is_kept(telemetry, isolated):
    question = asked(telemetry, "sync")
    answer = await run(isolated, question)
    assert [cause.service for cause in answer.root_causes] == [ODD_NAME]
    assert question.transcript.entries == [("output", {"stream": "stdout", "text": "printed\nclosed\n"})]


async def test_what_code_in_process_could_reach_is_out_of_reach(telemetry, isolated, monkeypatch):
    monkeypatch.setenv("OTEL_DIAG_TARGET", "replay:the-answer")
    monkeypatch.setenv("SOME_PASSWORD", "the-answer")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    opened = os.open(__file__, os.O_RDONLY)
    os.set_inheritable(opened, True)
    text = (await run(isolated, asked(telemetry, "snoop"))).summary
    os.close(opened)
    found = json.loads(text)
    assert "the-answer" not in text
    assert "OTEL_DIAG_TOKEN" not in text
    environment = found.pop("environment")
    assert not [name for name in environment if name.startswith(("OTEL_DIAG", "PYTEST", "PYTHON"))]
    assert environment["OPENAI_API_KEY"] == KEY
    assert Path(environment["HOME"]) != Path.home()
    assert "tests" not in found.pop("command line")
    assert set(found.pop("open files")) <= {"pipe", "socket", "/dev/null", "gone", "anon_inode"}
    modules = found.pop("modules")
    assert modules == ["tests", "tests.isolation", "tests.isolation.agents"]
    assert found == {
        "argv": [""], "objects": [], "frames": [], "working directory": [], "home": []
    }  # fmt: skip


@pytest.mark.parametrize(
    ("act", "error", "says"),
    [
        ("leave", AnalyzerCrashed, "ended with exit code 0 and without an answer"),
        (
            "crash",
            AnalyzerCrashed,
            r"the analyzer raised LookupError: no such \\x1b\[31mservice \(agents.py:",
        ),
        ("spend", BudgetExceeded, "2 queries"),
        ("grow", AnalyzerCrashed, "the analyzer raised MemoryError"),
        ("fake", AnalyzerError, "no such kind"),
    ],
)
async def test_ends_are_those_of_an_analyzer_in_process(telemetry, isolated, act, error, says):
    question = asked(telemetry, act, budget=Budget(queries=2))
    with pytest.raises(error, match=says) as caught:
        await run(isolated, question)
    if act == "crash":
        assert "in crash" in caught.value.trace
        assert "pytest_otel_diag" not in caught.value.trace


async def test_a_hanging_analyzer_is_killed_with_its_children(telemetry, isolated, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    question = asked(telemetry, "hang")
    running = asyncio.ensure_future(isolated.diagnose(question))
    await eventually_async(lambda: len(started(tmp_path)) == 2)
    children = started(tmp_path)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not alive(children)
    assert list(tmp_path.iterdir()) == []


def alive(processes):
    return [one for one in processes if Path(f"/proc/{one}").exists()]


def started(folder):
    return [line for file in folder.glob("*/started") for line in file.read_text().split()]


async def test_a_broken_store_is_not_mistaken_for_a_healthy_system(isolated):
    question = replace(asked(BrokenTelemetry(), "worst"))
    with pytest.raises(AnalyzerCrashed, match="TelemetryUnavailable"):
        await run(isolated, question)


async def test_it_fulfils_the_contract_of_analyzers(telemetry, isolated):
    contract = AnalyzerContract()
    await contract.test_it_names_services_as_telemetry_does(isolated, telemetry)
    await contract.test_it_can_be_cancelled(isolated)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("tests.isolation.agents:Agnet", "has no 'Agnet' (did you mean 'Agent'?)"),
        ("tests.isolation.no_such:x", "cannot import module"),
    ],
)
def test_a_wrong_analyzer_is_refused_when_it_is_opened(spec, says):
    with pytest.raises(ConfigurationError) as caught:
        open_analyzer(spec, Settings(isolate=True))
    assert says in str(caught.value)
