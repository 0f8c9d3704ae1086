"""Writes the steps of an investigation into its transcript."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pytest_otel_diag.analyzers.investigator.chat_model import ChatReply
from pytest_otel_diag.analyzers.investigator.loop.limits import Meter
from pytest_otel_diag.analyzers.investigator.loop.protocols import ParsedCall
from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.ports import Transcript


class Record:
    """The transcript of one investigation; entries that it refuses are dropped, the investigation goes on."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript

    async def message(self, role: str, content: str) -> None:
        """Record a message to the model."""
        await self._add("message", {"role": role, "content": content})

    async def reply(self, reply: ChatReply, meter: Meter) -> None:
        """Record what the model answered, and what that cost."""
        said = {"content": reply.content, "reasoning": reply.reasoning, "refusal": reply.refusal}
        shown = {name: text for name, text in said.items() if text}
        await self._add("message", {"role": "assistant", "finish": reply.finish, **shown})
        usage, used = reply.usage, meter.used
        await self._add(
            "usage",
            {
                "step": used.steps,
                "model": reply.model,
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cached_tokens": usage.cached_tokens,
                "reasoning_tokens": usage.reasoning_tokens,
                "cost_usd": usage.cost_usd,
                "total_cost_usd": used.cost_usd,
                **({} if usage.reported else {"estimated": True}),
            },
        )

    async def call(self, call: ParsedCall) -> None:
        """Record a call of a tool."""
        await self._add("tool_call", {"name": call.name, "id": call.id, "arguments": call.arguments})

    async def result(self, call: ParsedCall, text: str, *, error: bool) -> None:
        """Record the result of a call, as the model gets it."""
        failed = {"error": True} if error else {}
        await self._add("tool_result", {"name": call.name, "id": call.id, "text": text, **failed})

    async def hypothesis(self, content: Mapping[str, Any]) -> None:
        """Record that a hypothesis was proposed, kept or eliminated."""
        await self._add("hypothesis", content)

    async def note(self, text: str) -> None:
        """Record a remark of the investigator itself."""
        await self._add("note", {"text": text})

    async def _add(self, kind: str, content: Mapping[str, Any]) -> None:
        with suppress(OtelDiagError):
            await self._transcript.add(kind, content)
