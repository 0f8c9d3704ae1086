"""``chat:`` and ``llm:`` as a run opens them: tape, money of the run, one preflight."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from pytest_otel_diag.analyzers.investigator.opening import open_chat, open_llm
from pytest_otel_diag.analyzers.investigator.shared_calls import SharedCalls
from pytest_otel_diag.analyzers.investigator.tape import TapeMiss
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.session import Blame, Budget, Status
from pytest_otel_diag.ports import PreparedAnalyzer
from tests.sessions.session_fakes import FakeTarget, engine, plan
from tests.support.deadlines import deadline_s
from tests.support.investigations import investigation_over
from tests.support.model_policies import competent
from tests.support.scripted_model import Fail, served


def investigation(telemetry):
    return investigation_over(telemetry, budget=Budget(time_s=deadline_s(60)))


async def test_a_recorded_run_is_replayed_without_the_provider(tmp_path, telemetry):
    tape = tmp_path / "tape"
    recording = Settings(run_folder=tmp_path / "run-1", llm_tape=f"record:{tape}")
    with served(competent) as server:
        spec = f"tiny@{server.url}#price=1/4,temperature=0"
        analyzer = open_chat(spec, recording)
        await analyzer.prepare()
        live = await analyzer.diagnose(investigation(telemetry))
        await analyzer.close()
        asked = len(server.model.requests)

    replaying = open_chat(spec, Settings(llm_tape=f"replay:{tape}"))
    first = await replaying.diagnose(investigation(telemetry))
    again = await replaying.diagnose(investigation(telemetry))

    assert live == first == again
    assert "pay" in live.root_causes[0].service
    assert live.usage.cost_usd > 0 and live.usage.prompts == asked - 1, "and the preflight"
    described = replaying.describe()
    assert described["tape"].startswith(f"replayed from {tape}")
    assert {k: v for k, v in described.items() if k not in ("tape", "endpoint")} == {
        k: v for k, v in analyzer.describe().items() if k != "endpoint"
    }
    (file,) = tape.iterdir()
    header = json.loads(file.read_text().splitlines()[0])
    assert (header["run"], header["analyzer"]["prompts"]) == ("run-1", described["prompts"])
    spent = SharedCalls(tmp_path / "run-1").spent_usd()
    assert spent == pytest.approx(live.usage.cost_usd, rel=0.5) and spent > live.usage.cost_usd


async def test_a_replay_over_other_telemetry_misses_and_names_the_difference(tmp_path, telemetry):
    tape = tmp_path / "tape"
    with served(competent) as server:
        spec = f"tiny@{server.url}#price=1/4"
        await open_chat(spec, Settings(llm_tape=f"record:{tape}")).diagnose(investigation(telemetry))
    seen = investigation(telemetry)

    with pytest.raises(TapeMiss, match=r"message \d+ \(\w+\) differs: recorded .*, now "):
        await open_chat(spec, Settings(llm_tape=f"replay:{tape}")).diagnose(
            dataclasses.replace(seen, incident=seen.baseline, baseline=seen.incident)
        )


@pytest.mark.parametrize(
    ("most", "words", "opened"), [(0.05, "the first call of a session", 0), (0.5, "the next call of tiny", 1)]
)
async def test_a_session_that_the_money_does_not_reach_is_skipped(tmp_path, most, words, opened):
    settings, target = Settings(run_folder=tmp_path, max_cost=most), FakeTarget()
    with served(competent) as server:
        analyzer = open_chat(f"tiny@{server.url}#price=10/40,max_output_tokens=1000", settings)
        result = await engine(target, analyzer).run(plan())

    assert result.status is Status.SKIPPED and result.blame is None
    assert f"--otel-diag-max-cost={most}" in result.reason and words in result.reason
    assert target.opened == opened
    assert SharedCalls(tmp_path).spent_usd() < most


async def test_a_provider_that_refuses_ends_the_session_before_a_flag_is_touched(tmp_path):
    target = FakeTarget()
    with served(lambda _: Fail(401, "no such key")) as server:
        analyzer = open_chat(f"tiny@{server.url}", Settings(run_folder=tmp_path))
        assert isinstance(analyzer, PreparedAnalyzer)
        results = [await engine(target, analyzer).run(plan()) for _ in range(2)]

    assert [(one.status, one.blame) for one in results] == [(Status.ERROR, Blame.USER)] * 2
    assert "preflight of tiny" in results[0].reason and "no such key" in results[0].reason
    assert len(server.model.requests) == 1
    assert results[0].flag_timeline == () and target.opened == 0


@pytest.mark.parametrize(
    ("opened", "words"),
    [
        (lambda: open_chat("tiny", Settings()), "write chat:MODEL@http://HOST"),
        (
            lambda: open_chat("tiny@http://h/v1#api_base=http://x", Settings()),
            "api_base is an option of llm:",
        ),
        (lambda: open_chat("tiny@http://h/v1#temprature=1", Settings()), "did you mean 'temperature'"),
        (lambda: open_llm("", Settings()), "llm: needs a model"),
    ],
)
def test_mistakes_in_a_spec_are_named(opened, words):
    with pytest.raises(ConfigurationError, match=words):
        opened()


def test_opening_a_model_imports_neither_litellm_nor_a_server():
    code = (
        "import sys\n"
        "from pytest_otel_diag.analyzers.investigator.opening import open_llm\n"
        "from pytest_otel_diag.config.settings import Settings\n"
        "open_llm('openai/gpt-5-mini', Settings()).describe()\n"
        "print([name for name in ('litellm', 'mcp', 'uvicorn', 'openai') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_a_replay_of_nothing_is_refused_at_once(tmp_path):
    with pytest.raises(ConfigurationError, match="holds no tape"):
        open_llm("openai/gpt-5-mini", Settings(llm_tape=f"replay:{tmp_path}"))
