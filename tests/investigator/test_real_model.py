"""A real sampler drives the loop, where one is installed; it says nothing about diagnosis."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pytest_otel_diag.analyzers.investigator import Investigator, InvestigatorSettings
from pytest_otel_diag.analyzers.investigator.loop.limits import Limits
from pytest_otel_diag.analyzers.investigator.model_options import split_spec
from pytest_otel_diag.analyzers.investigator.openai_http import OpenAiModel
from pytest_otel_diag.errors import AnalyzerError, BudgetExceeded
from pytest_otel_diag.model.session import Budget
from tests.support.deadlines import deadline_s

SERVER = Path(__file__).parents[1] / "integrations" / "smollm2_server.py"
WHERE = os.environ.get("OTEL_DIAG_TEST_SMOLLM2", "")
"""Interpreter with cyllama, and the model's file, separated by a colon; see the server's docstring."""

pytestmark = pytest.mark.skipif(not WHERE, reason="OTEL_DIAG_TEST_SMOLLM2=PYTHON:MODEL.gguf is not set")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    python, _, model = WHERE.partition(":")
    with subprocess.Popen([python, SERVER, model], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.kill()


@pytest.mark.parametrize("tools", ["native", "text"])
async def test_a_small_model_goes_through_tools_limits_and_the_last_turn(bench, address, tools):
    bench.prepare(Budget(time_s=deadline_s(300)))
    most = f"context_tokens=8192,max_output_tokens=120,timeout_s={deadline_s(100)}"
    _, options = split_spec(f"m#{most},temperature=0,price=0/0,tools={tools}")
    settings = InvestigatorSettings(options=options, limits=Limits(steps=4))
    analyzer = Investigator(OpenAiModel("smollm2", address, options=options), settings)
    with suppress(AnalyzerError, BudgetExceeded):
        await analyzer.diagnose(bench.investigation)

    usage = bench.transcript.of("usage")
    assert 2 <= len(usage) <= 4
    assert all(one["input_tokens"] > 100 for one in usage)
    assert "ended by: " in bench.transcript.notes()
