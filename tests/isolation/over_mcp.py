"""The rules of ``agents.worst`` as a program that reads the telemetry over MCP."""

import asyncio
import json
import os
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

SQL = """
    SELECT ServiceName, countIf(StatusCode = 'Error') AS failed FROM otel_traces
    WHERE Timestamp >= fromUnixTimestamp64Nano({start_ns}) AND Timestamp < fromUnixTimestamp64Nano({end_ns})
    GROUP BY ServiceName ORDER BY failed DESC LIMIT 1
"""


async def main():
    """Submit the service with most failed spans."""
    incident = json.load(sys.stdin)["incident"]
    headers = {"authorization": f"Bearer {os.environ['OTEL_DIAG_TOKEN']}"}
    async with (
        httpx2.AsyncClient(headers=headers, trust_env=False) as http,
        Client(streamable_http_client(os.environ["OTEL_DIAG_MCP_URL"], http_client=http)) as client,
    ):
        sql = SQL.format(start_ns=incident["start_ns"], end_ns=incident["end_ns"])
        table = await client.call_tool("query", {"sql": sql})
        service = table.structured_content["rows"][0][0]
        await client.call_tool("submit_diagnosis", {"detected": True, "root_causes": [{"service": service}]})


asyncio.run(main())
