"""An agent in LangGraph: pip install langchain langchain-openai langchain-mcp-adapters."""

import asyncio
import os
import sys

from langchain.agents import create_agent
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_openai import ChatOpenAI


async def main(question: str) -> None:
    """Let the agent answer with the tools of the gateway."""
    server = {
        "transport": "streamable_http",
        "url": os.environ["OTEL_DIAG_MCP_URL"],
        "headers": {"Authorization": f"Bearer {os.environ['OTEL_DIAG_TOKEN']}"},
    }
    tools = await MultiServerMCPClient({"otel_diag": server}).get_tools()
    for tool in tools:
        tool.handle_tool_error = True  # the model reads an error of ClickHouse and writes a better query
    agent = create_agent(ChatOpenAI(model=os.environ["MODEL"]), tools)
    messages = {"messages": [{"role": "user", "content": question}]}
    result = await agent.ainvoke(messages, {"recursion_limit": 80})
    print(result["messages"][-1].text)


asyncio.run(main(sys.stdin.read()))
