"""A client of the MCP package, by rules: names the service whose failing spans have no failing child."""

import asyncio
import json
import os
import sys

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

SQL = """
SELECT ServiceName AS service, count() AS failed FROM otel_traces
WHERE StatusCode = 'Error'
  AND Timestamp >= fromUnixTimestamp64Nano({start}) AND Timestamp < fromUnixTimestamp64Nano({end})
  AND SpanId NOT IN (SELECT ParentSpanId FROM otel_traces WHERE StatusCode = 'Error')
GROUP BY service ORDER BY failed DESC LIMIT 1"""


async def main(question: dict) -> None:
    headers = {"Authorization": f"Bearer {os.environ['OTEL_DIAG_TOKEN']}"}
    async with (
        streamablehttp_client(os.environ["OTEL_DIAG_MCP_URL"], headers) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        print("protocol", (await session.initialize()).protocolVersion)
        print("tools", len((await session.list_tools()).tools))
        when = question["incident"]
        sql = SQL.replace("{start}", str(when["start_ns"])).replace("{end}", str(when["end_ns"]))
        found = await session.call_tool("query", {"sql": sql})
        rows = (found.structuredContent or {})["rows"]
        causes = [{"service": row[0], "mechanism": "error"} for row in rows]
        query = {"sql": sql, "description": "failures that begin in their service"}
        answer = {"detected": bool(rows), "root_causes": causes, "query": query}
        print((await session.call_tool("submit_diagnosis", answer)).structuredContent)


asyncio.run(main(json.load(sys.stdin)))
