"""The gateway inside an investigation: over the closed line of a session, metered as for any analyzer."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import httpx
import pytest

from pytest_otel_diag.errors import AnalyzerError
from pytest_otel_diag.gateway import Gateway
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.sessions.investigation.run import run_analyzer
from tests.gateway.conftest import client_of
from tests.gateway.hanging import Hanging
from tests.gateway.test_mcp import mcp_client
from tests.support.deadlines import deadline_s
from tests.support.investigations import investigation_over


class Agent:
    """An adapter whose agent is a client in another thread."""

    def __init__(self, gateway: Gateway, *calls: tuple[str, dict]) -> None:
        self._gateway = gateway
        self._calls = calls
        self.answers: list[httpx.Response] = []
        self.access = None

    async def diagnose(self, investigation: Investigation) -> Diagnosis:
        with self._gateway.access(investigation) as access:
            self.access = access
            await asyncio.to_thread(self._agent, access)
        return Diagnosis(detected=access.toolbox.submitted is not None)

    def _agent(self, access) -> None:
        with client_of(access) as client:
            for path, body in self._calls:
                self.answers.append(client.post(path, json=body))


class Kept:
    """A transcript in memory."""

    def __init__(self) -> None:
        self.entries = []

    async def add(self, kind, content) -> None:
        self.entries.append((kind, dict(content)))


async def test_what_is_read_is_metered_and_in_the_transcript(gateway, investigation):
    kept = Kept()
    agent = Agent(
        gateway,
        ("/v1/query", {"sql": "SELECT count() FROM otel_traces"}),
        ("/v1/tools/query", {"sql": "SELECT nothing"}),
        ("/v1/table", {"sql": "SELECT 1"}),
        ("/v1/ask", {"question": "latest"}),
        ("/v1/diagnosis", {"detected": True}),
    )
    given = replace(investigation, transcript=kept)
    diagnosis = await run_analyzer(agent, given, timeout_s=deadline_s(20), grace_s=1)
    assert diagnosis.detected
    assert [answer.status_code for answer in agent.answers] == [200, 422, 200, 200, 200]
    first, second, own = investigation.telemetry.records
    assert own.tool == ""
    assert (first.data_sources, first.rows, first.error) == (("traces",), 1, None)
    assert (first.tool, second.tool) == ("query", "query")
    assert 0 <= first.at_s <= second.at_s
    assert second.error is not None
    assert [(kind, content["name"]) for kind, content in kept.entries] == [
        (kind, name)
        for name in ("query", "query", "submit_diagnosis")
        for kind in ("tool_call", "tool_result")
    ]
    assert kept.entries[3][1]["error"]
    assert client_of(agent.access).get("/v1/clock").status_code == 401


async def test_what_an_agent_reads_over_either_protocol_counts_as_read(gateway, investigation):
    sql = "SELECT DISTINCT ServiceName, TraceId FROM otel_traces WHERE ServiceName = '{}'"

    async def over_mcp(access) -> None:
        async with mcp_client(access, "auto") as client:
            await client.call_tool("query", {"sql": sql.format("middle")})

    class Client:
        async def diagnose(self, given: Investigation) -> Diagnosis:
            with gateway.access(given) as access:
                await over_mcp(access)
                await asyncio.to_thread(over_json, access)
            return Diagnosis(detected=False)

    def over_json(access) -> None:
        with client_of(access) as client:
            assert client.post("/v1/query", json={"sql": sql.format("front")}).status_code == 200

    await run_analyzer(Client(), investigation, timeout_s=deadline_s(20), grace_s=1)
    seen = investigation.telemetry.sightings
    assert seen.queries_that_saw("middle") == {0}
    assert seen.queries_that_saw("front") == {1}
    assert not seen.saw("a name that nobody asked for")


async def test_the_session_goes_on_when_a_call_hangs(gateway, telemetry):
    hanging = Hanging(telemetry)
    agent = Agent(gateway, ("/v1/query", {"sql": "SELECT 1"}))
    with pytest.raises(AnalyzerError, match="no diagnosis within"):
        await run_analyzer(agent, investigation_over(hanging), timeout_s=0.5, grace_s=deadline_s(5))
    assert hanging.cancelled.is_set() or not hanging.begun.is_set()
    assert agent.access is None or client_of(agent.access).get("/v1/clock").status_code == 401


async def test_sessions_in_parallel_have_their_own_tokens(gateway, telemetry):
    agents = [Agent(gateway, ("/v1/diagnosis", {"summary": str(number)})) for number in range(4)]
    runs = (
        run_analyzer(agent, investigation_over(telemetry), timeout_s=deadline_s(20), grace_s=1)
        for agent in agents
    )
    assert all(diagnosis.detected for diagnosis in await asyncio.gather(*runs))
    assert [agent.access.toolbox.submitted["summary"] for agent in agents] == ["0", "1", "2", "3"]


async def test_the_server_thread_holds_nothing_of_the_session(gateway, investigation):
    await run_analyzer(Agent(gateway), investigation, timeout_s=deadline_s(20), grace_s=1)
    threads = [one for one in threading.enumerate() if one.name == "otel-diag gateway"]
    assert threads
    assert all(one._args == ([],) for one in threads)
    assert gateway._running.leases.all() == ()
