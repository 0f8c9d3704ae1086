"""The same rules give the same diagnosis in process, isolated, over JSON, over MCP and behind HTTP."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from pytest_otel_diag.analyzers.agents.definition import READY, read_agent
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.runs.opening import open_analyzer
from pytest_otel_diag.sessions.investigation.run import run_analyzer
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.testing.analyzer_contract import ODD_NAME, incident_traces
from tests.isolation.agents import WORST
from tests.support.deadlines import deadline_s
from tests.support.investigations import investigation_over

OVER_MCP = Path(__file__).with_name("over_mcp.py")
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


@pytest.fixture
def service():
    with ThreadingHTTPServer(("127.0.0.1", 0), Rules) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("way", ["in process", "isolated", "node", "mcp", "http"])
async def test_it_gives_the_same_diagnosis(way, tmp_path, service):
    if way == "node" and shutil.which("node") is None:
        pytest.skip("node is not on the PATH")
    over_mcp = tmp_path / "mcp.yaml"
    over_mcp.write_text(json.dumps({"command": [sys.executable, str(OVER_MCP)], "stdin": "json"}))
    spec = {"node": f"agent:{NODE}", "mcp": f"agent:{over_mcp}", "http": service}.get(
        way, "tests.isolation.agents:worst"
    )
    analyzer = open_analyzer(spec, Settings(isolate=way == "isolated"))
    with Store.open("chdb://memory") as store:
        store.create_database("same")
        store.ingest_arrow("same", "otel_traces", incident_traces())
        question = investigation_over(store.telemetry("same"))
        answer = await run_analyzer(analyzer, question, timeout_s=deadline_s(30), grace_s=deadline_s(5))
    assert (answer.detected, [cause.service for cause in answer.root_causes]) == (True, [ODD_NAME])


@pytest.mark.parametrize("file", sorted(READY.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_files_that_come_with_the_package_can_be_read(file, monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "CODEX_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "some-key-for-tests")
    assert read_agent(file).command
