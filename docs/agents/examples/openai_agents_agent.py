"""An agent in the OpenAI Agents SDK: pip install openai-agents."""

import asyncio
import os
import sys

from agents import Agent, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from agents.mcp import MCPServerStreamableHttp
from openai import AsyncOpenAI

set_tracing_disabled(True)  # traces of runs would go to OpenAI


async def main(question: str) -> None:
    """Let the agent answer with the tools of the gateway."""
    headers = {"Authorization": f"Bearer {os.environ['OTEL_DIAG_TOKEN']}"}
    params = {"url": os.environ["OTEL_DIAG_MCP_URL"], "headers": headers, "timeout": 60}
    async with MCPServerStreamableHttp(params, client_session_timeout_seconds=60) as telemetry:
        model = OpenAIChatCompletionsModel(os.environ["MODEL"], AsyncOpenAI())
        agent = Agent("investigator", model=model, mcp_servers=[telemetry])
        result = await Runner.run(agent, question, max_turns=40)
        print(result.final_output)


asyncio.run(main(sys.stdin.read()))
