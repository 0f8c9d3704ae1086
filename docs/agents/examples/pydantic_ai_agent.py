"""An agent in Pydantic AI: pip install "pydantic-ai-slim[openai,mcp]"."""

import os
import sys

from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models.openai import OpenAIChatModel

telemetry = MCPToolset(
    os.environ["OTEL_DIAG_MCP_URL"],
    headers={"Authorization": f"Bearer {os.environ['OTEL_DIAG_TOKEN']}"},
    max_retries=5,  # the model reads an error of ClickHouse and writes a better query
)
agent = Agent(OpenAIChatModel(os.environ["MODEL"]), toolsets=[telemetry])

print(agent.run_sync(sys.stdin.read()).output)
