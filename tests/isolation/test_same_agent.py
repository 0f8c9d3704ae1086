"""The same rules get the same verdict in process, isolated, over JSON, over MCP and behind HTTP."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import threading
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from pytest_otel_diag.analyzers.agents.definition import READY, read_agent
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.model.scenario import Expectation, ExpectedAnomaly, ExpectedRootCause
from pytest_otel_diag.model.session import Status
from pytest_otel_diag.model.windows import seconds_to_ns
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.runs.opening import open_analyzer
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.testing.telemetry_contract import ODD_NAME, span, traces_table
from tests.isolation.agents import WORST
from tests.sessions.session_fakes import (
    QUICK,
    START_NS,
    Behaviour,
    FakeTarget,
    FakeTelemetry,
    engine,
    plan,
    scenario,
)
from tests.support.deadlines import deadline_s

OVER_MCP = Path(__file__).with_name("over_mcp.py")
OWN = "tests.isolation.agents:worst"
NODE = Path(__file__).parents[2] / "docs/agents/examples/node.yaml"


class Rules(BaseHTTPRequestHandler):
    """The rules of ``agents.worst`` as a service that reads the telemetry over JSON."""

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["content-length"])))
        gateway, incident = question["gateway"], question["incident"]
        headers = {"authorization": f"Bearer {gateway['token']}"}
        sql = WORST.replace("{start:Int64}", str(incident["start_ns"])).replace(
            "{end:Int64}", str(incident["end_ns"])
        )
        with httpx.Client(trust_env=False, headers=headers) as client:
            table = client.post(f"{gateway['url']}/v1/query", json={"sql": sql}).raise_for_status().json()
        answer = {"detected": True, "root_causes": [{"service": table["rows"][0][0]}]}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *parts):
        pass


@pytest.fixture(scope="module")
def service():
    with ThreadingHTTPServer(("127.0.0.1", 0), Rules) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@dataclass
class WithTraces(FakeTelemetry):
    """The telemetry of the target, and spans that say the same once somebody queries them."""

    store: Store | None = None
    traces: Telemetry | None = None

    async def query(self, sql, parameters=None, limits=None):
        if self.traces is None:
            self.store.create_database("same")
            self.store.ingest_arrow("same", "otel_traces", traces_table(self._spans()))
            self.traces = self.store.telemetry("same")
        return await self.traces.query(sql, parameters, limits)

    def _spans(self):
        rows = []
        for second, at_ns in enumerate(range(START_NS, self.clock.now(), seconds_to_ns(1))):
            on = self.flags.at("paymentFailure", at_ns) != "off"
            failing = {"front": on and second % 2 == 0, ODD_NAME: on}
            for index, (name, error) in enumerate(failing.items()):
                row = span(f"{second:032x}", f"{2 * second + index + 1:016x}", service=name, error=error)
                rows.append(row | {"Timestamp": at_ns})
        return rows


async def session_with(analyzer):
    """Return the result of a session in which a service with an odd name is at fault."""
    services = {
        "front": Behaviour(rate=20),
        ODD_NAME: Behaviour(rate=8, flag="paymentFailure", errors_on=0.5),
    }
    expected = Expectation(
        anomalies=(ExpectedAnomaly(service=ODD_NAME),), root_causes=(ExpectedRootCause(service=ODD_NAME),)
    )
    timing = {"analyze_timeout_s": deadline_s(30)}
    case = scenario("paymentFailure=50%", expectation=expected, timing=timing)
    target = FakeTarget(services=services)
    with Store.open("chdb://memory") as store:
        target.telemetry = WithTraces(
            target.clock, target.flags, target.trouble, services, START_NS, store=store
        )
        settings = replace(QUICK, cancel_grace_s=deadline_s(5))
        return await engine(target, analyzer, settings=settings).run(plan(case))


def verdict_on(result):
    """Return what the judge says, without the wall time that the analyzer took."""
    assert (result.status, result.reason) == (Status.SCORED, "")
    return result.verdict.model_dump(exclude={"time_to_diagnosis_s"})


@pytest.fixture(scope="module")
def in_process():
    return asyncio.run(session_with(open_analyzer(OWN, Settings())))


def test_the_verdict_in_process_is_that_the_cause_was_found(in_process):
    verdict = in_process.verdict
    assert (verdict.detected, verdict.service_rank, verdict.solved) == (True, 1, True)
    assert verdict.queries_total == 1


@pytest.mark.parametrize(
    ("way", "tool"), [("isolated", ""), ("node", "query"), ("mcp", "query"), ("http", "query")]
)
async def test_the_verdict_is_the_same(way, tool, tmp_path, service, in_process):
    if way == "node" and shutil.which("node") is None:
        pytest.skip("node is not on the PATH")
    over_mcp = tmp_path / "mcp.yaml"
    over_mcp.write_text(json.dumps({"command": [sys.executable, str(OVER_MCP)], "stdin": "json"}))
    spec = {"isolated": OWN, "node": f"agent:{NODE}", "mcp": f"agent:{over_mcp}", "http": service}[way]
    result = await session_with(open_analyzer(spec, Settings(isolate=way == "isolated")))
    assert verdict_on(result) == verdict_on(in_process)
    assert [(query.tool, query.rows, query.error) for query in result.queries] == [(tool, 1, None)]


@pytest.mark.parametrize("file", sorted(READY.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_files_that_come_with_the_package_can_be_read(file, monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "CODEX_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "some-key-for-tests")
    agent = read_agent(file)
    assert bool(agent.command) != bool(agent.http)
