"""Opens the gateway on one recorded incident for as long as an agent is developed against it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.analyzers.agents.answers import diagnosis_from
from pytest_otel_diag.gateway import Access, Gateway
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.transcript import TranscriptEntry
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.secret import SecretText

NAME = "serve"
"""Name of the analyzer in the session."""

_LOOK_S = 0.05
"""Seconds between two looks for a submission, which arrives in the thread of the server."""

_SHOWN_CHARACTERS = 200


class ServedAnalyzer:
    """An analyzer that opens the gateway and waits for the diagnosis that an agent submits.

    *opened* gets access and investigation each time. A diagnosis counts once no call has been made for
    *settle_s* seconds, so that an agent may replace it, and gets its reply.
    """

    def __init__(
        self,
        gateway: Gateway,
        token: SecretText,
        opened: Callable[[Access, Investigation], None],
        *,
        settle_s: float = 1.0,
    ) -> None:
        self._gateway = gateway
        self._token = token
        self._opened = opened
        self._settle_s = settle_s

    async def diagnose(self, investigation: Investigation) -> Diagnosis:
        """Return the submitted diagnosis; raises AnalyzerError for one that cannot be read."""
        with self._gateway.access(investigation, token=self._token) as access:
            self._opened(access, investigation)
            answer = await self._answer(access)
        return diagnosis_from(answer)

    async def _answer(self, access: Access) -> Mapping[str, Any]:
        loop, toolbox, seen, since_s = asyncio.get_running_loop(), access.toolbox, 0, 0.0
        while True:
            if toolbox.calls != seen or toolbox.running:
                seen, since_s = toolbox.calls, loop.time()
            elif toolbox.submitted is not None and loop.time() - since_s >= self._settle_s:
                return toolbox.submitted
            await asyncio.sleep(_LOOK_S)


@dataclass(frozen=True)
class ServedCall:
    """A call of a tool as a person sees it; ``rows`` is None for a result without tables."""

    at_s: float
    name: str
    arguments: str
    duration_ms: float
    rows: int | None
    truncated: bool
    error: str


class Calls:
    """Puts the entries of a transcript together as calls."""

    def __init__(self, show: Callable[[ServedCall], None]) -> None:
        self._show = show
        self._open: dict[str, TranscriptEntry] = {}

    def entry(self, _session_id: str, entry: TranscriptEntry) -> None:
        """Take the next entry; a result ends the call with its id."""
        key = str(entry.content.get("id"))
        if entry.kind == "tool_call":
            self._open[key] = entry
        elif entry.kind == "tool_result" and key in self._open:
            self._show(_call(self._open.pop(key), entry))


def _call(call: TranscriptEntry, result: TranscriptEntry) -> ServedCall:
    text = str(result.content.get("text", ""))
    failed = bool(result.content.get("error"))
    tables = [] if failed else list(_tables(text))
    arguments = json.dumps(call.content.get("arguments"), ensure_ascii=False)
    return ServedCall(
        at_s=call.at_s,
        name=str(call.content.get("name")),
        arguments=arguments[:_SHOWN_CHARACTERS] + ("…" if len(arguments) > _SHOWN_CHARACTERS else ""),
        duration_ms=1_000 * (result.at_s - call.at_s),
        rows=sum(len(table["rows"]) for table in tables) if tables else None,
        truncated=any(table.get("truncated") for table in tables),
        error=text if failed else "",
    )


def _tables(text: str) -> Iterator[Mapping[str, Any]]:
    """Yield the tables of a result, which is one or has some as its fields."""
    try:
        result = json.loads(text)
    except ValueError:  # the transcript has cut it
        return
    for part in (result, *result.values()) if isinstance(result, Mapping) else ():
        if isinstance(part, Mapping) and isinstance(part.get("rows"), list):
            yield part
