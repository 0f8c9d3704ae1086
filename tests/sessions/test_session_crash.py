"""What is kept of an analyzer that raised: where, and the traceback of its own code."""

from __future__ import annotations

import asyncio
import json

import pytest

from pytest_otel_diag.errors import QueryFailed
from pytest_otel_diag.model.session import Blame, SessionResult, Status
from pytest_otel_diag.sessions.investigation.crash import TRACE_CHARS, crashed
from tests.sessions.session_fakes import FakeTarget, engine, plan


def parse(text):
    return json.loads(text)


def broken_json():
    parse("{")


class Sync:
    def diagnose(self, investigation):
        broken_json()


class Async:
    async def diagnose(self, investigation):
        await asyncio.sleep(0)
        broken_json()


def awaitable(investigation):
    return Async().diagnose(investigation)


@pytest.mark.parametrize("analyzer", [Sync, Async, awaitable])
async def test_the_frames_are_the_analyzers_own_whatever_its_shape(analyzer):
    result = await engine(FakeTarget(), analyzer).run(plan())

    assert (result.status, result.blame) == (Status.ERROR, Blame.ANALYZER)
    line = parse.__code__.co_firstlineno + 1
    assert result.reason.startswith(
        "investigate: the analyzer raised JSONDecodeError: Expecting property name"
    )
    assert result.reason.endswith(f"(test_session_crash.py:{line} in parse)")
    names = [part.rpartition(" in ")[2] for part in result.trace.splitlines() if part.startswith("  File")]
    assert names[:3] == ["diagnose", "broken_json", "parse"]  # and after them those of json
    assert "pytest_otel_diag" not in result.trace
    assert SessionResult.model_validate_json(result.model_dump_json()) == result


async def test_causes_are_kept_and_the_reason_stays_one_line():
    def analyzer(investigation):
        try:
            broken_json()
        except ValueError as error:
            raise RuntimeError("no\n\nplan") from error

    result = await engine(FakeTarget(), analyzer).run(plan())

    assert "the analyzer raised RuntimeError: no plan (test_session_crash.py:" in result.reason
    assert "JSONDecodeError" in result.trace and "direct cause" in result.trace


async def test_what_telemetry_refuses_points_to_where_it_was_asked():
    target = FakeTarget()

    async def analyzer(investigation):
        target.trouble.raising("telemetry.call_edges", QueryFailed("no such column"))
        await investigation.telemetry.call_edges(investigation.incident)

    result = await engine(target, analyzer).run(plan())

    assert "QueryFailed: no such column (" in result.reason
    assert f'test_session_crash.py", line {analyzer.__code__.co_firstlineno + 2}, in analyzer' in result.trace


async def test_an_analyzer_that_exits_is_located_too():
    def analyzer(investigation):
        raise SystemExit(3)

    result = await engine(FakeTarget(), analyzer).run(plan())

    assert "the analyzer raised SystemExit: 3 (test_session_crash.py:" in result.reason
    assert "raise SystemExit(3)" in result.trace


async def test_a_long_trace_is_cut_in_the_middle_and_a_long_message_at_its_end():
    def deep(left):
        if left:
            deep_too(left - 1)
        raise ValueError("\ud800" * 9000)

    def deep_too(left):
        deep(left)

    result = await engine(FakeTarget(), lambda investigation: deep(60)).run(plan())

    assert len(result.trace) <= TRACE_CHARS
    assert result.trace.startswith("Traceback") and "\n  [...]\n" in result.trace
    assert "…" in result.reason and len(result.reason) < 1200
    json.loads(result.model_dump_json())


async def test_a_session_that_did_not_crash_has_no_trace():
    result = await engine(FakeTarget()).run(plan())
    assert (result.status, result.trace) == (Status.SCORED, "")


class Unspeakable(Exception):
    def __str__(self):
        raise TypeError("no")


async def test_an_error_that_cannot_be_shown_is_still_the_analyzers():
    async def analyzer(investigation):
        raise Unspeakable

    result = await engine(FakeTarget(), analyzer).run(plan())

    assert result.blame is Blame.ANALYZER
    assert "Unspeakable: its message cannot be shown (test_session_crash.py:" in result.reason


def test_an_error_without_frames_has_no_place():
    error = crashed(KeyError("x"))
    assert (str(error), error.trace) == ("the analyzer raised KeyError: 'x'", "KeyError: 'x'")
