"""MCP: clients of the ``mcp`` package in both handshakes, raw HTTP, and the bridge from stdio."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import mcp
import pytest
from mcp.client.streamable_http import streamable_http_client

from pytest_otel_diag.config.agent_access import mcp_access
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.gateway import environment
from pytest_otel_diag.gateway.bridge import Bridge
from pytest_otel_diag.model.session import Budget
from pytest_otel_diag.secret import hidden
from tests.gateway.conftest import client_of
from tests.gateway.hanging import Hanging
from tests.support.deadlines import deadline_s
from tests.support.investigations import investigation_over

MODES = ("auto", "legacy")
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
CALL = {
    "jsonrpc": "2.0",
    "id": 2,
    "method": "tools/call",
    "params": {"name": "query", "arguments": {"sql": "SELECT 1"}},
}


@asynccontextmanager
async def mcp_client(access, mode) -> AsyncIterator[mcp.Client]:
    headers = {"authorization": f"Bearer {access.token.reveal()}"}
    http = httpx2.AsyncClient(headers=headers, timeout=deadline_s(10))
    transport = streamable_http_client(access.mcp_url, http_client=http)
    async with http, mcp.Client(transport, mode=mode) as client:
        yield client


@pytest.mark.parametrize("mode", MODES)
async def test_the_tools_are_listed_with_their_schemas_and_called(access, mode):
    async with mcp_client(access, mode) as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert {tool.name for tool in access.toolbox.tools} <= set(listed)
        assert "sql" in listed["query"].input_schema["properties"]
        assert "truncated" in listed["query"].output_schema["properties"]
        answer = await client.call_tool("query", {"sql": "SELECT 1 AS x"})
        assert answer.structured_content["rows"] == [[1]]
        assert json.loads(answer.content[0].text) == answer.structured_content
        submitted = await client.call_tool("submit_diagnosis", {"detected": False})
        assert submitted.structured_content == {"status": "accepted"}
    assert access.toolbox.submitted == {"detected": False}


async def test_every_tool_answers_with_an_object_of_its_schema(access):
    async with mcp_client(access, "legacy") as client:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools if tool.output_schema["type"] != "object"] == []
        called = [tool.name for tool in tools if not tool.input_schema.get("required")]
        for name in set(called) - {"submit_diagnosis"}:
            answer = await client.call_tool(name, {})  # the client compares the answer with the schema
            assert not answer.is_error, (name, answer.content[0].text)
    assert {"list_services", "describe_tables", "list_tables"} <= set(called)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("query", {"sql": "SELECT nothing FROM otel_traces"}, "nothing"),
        ("query", {"sqll": "SELECT 1"}, "did you mean 'sql'"),
        ("query", {"sql": 3}, "sql: "),
        ("query", {}, "sql is missing"),
        ("qury", {"sql": "SELECT 1"}, "did you mean 'query'"),
    ],
)
async def test_errors_reach_the_model_as_text(access, mode, name, arguments, said):
    async with mcp_client(access, mode) as client:
        answer = await client.call_tool(name, arguments)
    assert answer.is_error
    assert said in answer.content[0].text


async def test_a_budget_that_is_used_up_is_text(gateway, telemetry):
    with gateway.access(investigation_over(telemetry, budget=Budget(queries=1))) as access:
        async with mcp_client(access, "auto") as client:
            await client.call_tool("query", {"sql": "SELECT 1"})
            answer = await client.call_tool("query", {"sql": "SELECT 1"})
    assert answer.is_error
    assert "call submit_diagnosis" in answer.content[0].text


@pytest.mark.parametrize("mode", MODES)
async def test_parallel_calls_get_their_own_answers(access, mode):
    async with mcp_client(access, mode) as client:
        calls = (client.call_tool("query", {"sql": f"SELECT {number}"}) for number in range(16))
        answers = await asyncio.gather(*calls)
    assert [answer.structured_content["rows"] for answer in answers] == [[[n]] for n in range(16)]


async def test_state_hangs_on_the_token_not_on_the_session(gateway, telemetry):
    with (
        gateway.access(investigation_over(telemetry)) as one,
        gateway.access(investigation_over(telemetry)) as two,
    ):
        for access in (one, two, one):
            async with mcp_client(access, "legacy") as client:
                await client.call_tool("submit_diagnosis", {"summary": access.token.reveal()[:6]})
        assert (one.toolbox.submissions, two.toolbox.submissions) == (2, 1)


@pytest.mark.parametrize("mode", MODES)
async def test_a_query_is_cancelled_when_the_client_gives_up(gateway, telemetry, mode):
    hanging = Hanging(telemetry)
    with gateway.access(investigation_over(hanging)) as access:
        async with mcp_client(access, mode) as client:
            call = asyncio.ensure_future(client.call_tool("query", {"sql": "SELECT 1"}))
            await asyncio.to_thread(hanging.begun.wait, deadline_s(10))
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        assert await asyncio.to_thread(hanging.cancelled.wait, deadline_s(10))


async def test_a_call_that_hangs_ends_with_its_access(gateway, telemetry):
    hanging = Hanging(telemetry)
    with gateway.access(investigation_over(hanging)) as access:
        begun = threading.Thread(target=lambda: _post(access, CALL), daemon=True)
        begun.start()
        assert hanging.begun.wait(deadline_s(10))
    assert hanging.cancelled.is_set()
    begun.join(deadline_s(10))
    assert not begun.is_alive()


def _post(access, body, **headers):
    accept = {"accept": "application/json, text/event-stream"}
    with client_of(access) as client:
        return client.post("/mcp", json=body, headers={**accept, **headers})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:1"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"authorization": "Bearer x"}, 401),
        ({"accept": "application/json"}, 406),
        ({"mcp-protocol-version": "1999-01-01"}, 400),
    ],
)
def test_what_http_refuses(access, headers, status):
    assert _post(access, INITIALIZE, **headers).status_code == status


def test_a_slash_at_the_end_is_no_other_address(access):
    with client_of(access) as client:
        accept = {"accept": "application/json, text/event-stream"}
        assert client.post("/mcp/", json=INITIALIZE, headers=accept).status_code == 200


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "HEAD"])
def test_there_are_no_streams_and_sessions_to_open(client, method):
    answer = client.request(method, "/mcp")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_localhost_is_a_name_of_the_server(access):
    host = access.url.removeprefix("http://").replace("127.0.0.1", "localhost")
    assert _post(access, INITIALIZE, host=host).status_code == 200


async def _bridged(access, *messages, url: str = "", token: str = "") -> list[dict]:
    """Return what the bridge answers to lines of text or messages, in the order of their ids."""
    written: list[dict] = []
    bridge = Bridge(
        url or access.mcp_url,
        hidden(token or access.token.reveal()),
        lambda line: written.append(json.loads(line)),
    )

    async def lines():
        for message in messages:
            yield message if isinstance(message, str) else json.dumps(message)

    await bridge.run(lines())
    return sorted(written, key=lambda answer: answer["id"] or 0)


async def test_the_bridge_forwards_both_handshakes(access):
    initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    modern = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": "query", "arguments": {"sql": "SELECT 7"}, "_meta": modern}
    answers = await _bridged(
        access,
        INITIALIZE,
        initialized,
        CALL,
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": params},
    )
    assert answers[0]["result"]["protocolVersion"] == "2025-06-18"
    assert answers[1]["result"]["structuredContent"]["rows"] == [[1]]
    assert answers[2]["result"]["structuredContent"]["rows"] == [[7]]


async def test_the_bridge_states_errors_in_words(access):
    (wrong_json,) = await _bridged(access, "{")
    assert "not JSON" in wrong_json["error"]["message"]
    (refused,) = await _bridged(access, CALL, token="otd_wrong")
    assert "(401): the token is unknown" in refused["error"]["message"]
    (unreachable,) = await _bridged(access, CALL, url="http://127.0.0.1:9/mcp")
    assert "does not answer" in unreachable["error"]["message"]


async def test_the_bridge_passes_a_cancellation_on(gateway, telemetry):
    hanging = Hanging(telemetry)
    with gateway.access(investigation_over(hanging)) as access:
        bridge = Bridge(access.mcp_url, access.token, lambda line: None)
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}

        async def lines():
            yield json.dumps(CALL)
            await asyncio.to_thread(hanging.begun.wait, deadline_s(10))
            yield json.dumps(cancel)
            assert await asyncio.to_thread(hanging.cancelled.wait, deadline_s(10))

        await bridge.run(lines())
    assert hanging.cancelled.is_set()


def test_the_bridge_is_a_command(access):
    command = [sys.executable, "-m", "pytest_otel_diag.cli", "mcp-bridge"]
    lines = "".join(f"{json.dumps(message)}\n" for message in (INITIALIZE, CALL))
    done = subprocess.run(
        command,
        input=lines,
        env={"PATH": os.environ["PATH"], **environment(access)},
        capture_output=True,
        text=True,
        timeout=deadline_s(20),
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[1]["result"]["structuredContent"]["rows"] == [[1]]


def test_the_bridge_says_which_variables_are_missing():
    with pytest.raises(ConfigurationError, match="OTEL_DIAG_MCP_URL and OTEL_DIAG_TOKEN not set"):
        mcp_access({})
    url, token = mcp_access({"OTEL_DIAG_MCP_URL": "http://x/mcp", "OTEL_DIAG_TOKEN": "otd_x"})
    assert (url, token.reveal(), str(token)) == ("http://x/mcp", "otd_x", "***")
