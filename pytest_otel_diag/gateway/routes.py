"""The paths of the JSON API: the tools of an access, and what a remote analyzer needs beside them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pytest_otel_diag.daemon import in_daemon
from pytest_otel_diag.gateway import wire
from pytest_otel_diag.gateway.access import Lease
from pytest_otel_diag.gateway.calls import call_tool
from pytest_otel_diag.gateway.exchange import Refused, json_bytes
from pytest_otel_diag.gateway.openapi import document
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.tools import Tool

TOOLS_PATH = "/v1/tools/"
_SHORT = {"/v1/query": "query", "/v1/diagnosis": "submit_diagnosis"}
_LARGE_CELLS = 20_000  # larger tables are written in a thread, so that other calls go on

Answer = Callable[[Lease, dict[str, Any]], Awaitable[bytes]]


@dataclass(frozen=True)
class Route:
    """One path: its method, and the function that answers it with JSON."""

    method: Literal["GET", "POST"]
    answer: Answer


def paths(lease: Lease) -> Sequence[str]:
    """Return every path of the JSON API for this access."""
    return (*_SHORT, *(f"{TOOLS_PATH}{tool.name}" for tool in _tools(lease)), *_ROUTES)


def route_of(lease: Lease, path: str) -> Route | None:
    """Return the route of *path*, None where there is none."""
    name = _SHORT.get(path) or (path.removeprefix(TOOLS_PATH) if path.startswith(TOOLS_PATH) else "")
    if any(tool.name == name for tool in _tools(lease)):
        return Route("POST", partial(_call, name))
    return _ROUTES.get(path)


def _tools(lease: Lease) -> Sequence[Tool]:
    return (*lease.toolbox.tools, *lease.toolbox.aliases)


async def _call(name: str, lease: Lease, arguments: dict[str, Any]) -> bytes:
    return (await call_tool(lease, name, arguments)).encode()


async def _openapi(lease: Lease, _: dict[str, Any]) -> bytes:
    short = {name: path for path, name in _SHORT.items()}
    tools = {short.get(tool.name, f"{TOOLS_PATH}{tool.name}"): tool for tool in _tools(lease)}
    return json_bytes(document(tools))


async def _question(lease: Lease, _: dict[str, Any]) -> bytes:
    investigation = lease.investigation
    budget = investigation.budget
    return json_bytes(
        {
            "session_id": investigation.session_id,
            "incident": _window(investigation.incident),
            "baseline": investigation.baseline and _window(investigation.baseline),
            "reference": [_window(window) for window in investigation.reference],
            "budget": {name: wire.encoded(value) for name, value in budget},
            "seed": investigation.seed,
        }
    )


def _window(window: Window) -> dict[str, int]:
    return {"start_ns": window.start_ns, "end_ns": window.end_ns}


async def _table(lease: Lease, arguments: dict[str, Any]) -> bytes:
    given = _Arguments("/v1/table", arguments, required=("sql",), optional=("parameters", "limits"))
    table = await lease.investigation.telemetry.query(
        given.text("sql"),
        wire.decoded(given.object("parameters")),
        wire.decoded_limits(given.object("limits")),
    )
    write = partial(_written, table)
    if len(table) * len(table.names) > _LARGE_CELLS:
        return await in_daemon(write, "otel-diag gateway table")
    return write()


def _written(table: Any) -> bytes:
    return json_bytes(wire.encoded_table(table))


async def _ask(lease: Lease, arguments: dict[str, Any]) -> bytes:
    given = _Arguments("/v1/ask", arguments, required=("question",), optional=("arguments",))
    question = wire.decoded_question(given.text("question"), given.object("arguments") or {})
    answer = await lease.investigation.telemetry.ask(question)
    return json_bytes({"answer": wire.encoded_answer(answer)})


async def _schema(lease: Lease, _: dict[str, Any]) -> bytes:
    return json_bytes(wire.encoded_schema(await lease.investigation.telemetry.schema()))


async def _clock(lease: Lease, _: dict[str, Any]) -> bytes:
    return json_bytes({"now_ns": lease.investigation.clock.now()})


async def _sleep(lease: Lease, arguments: dict[str, Any]) -> bytes:
    given = _Arguments("/v1/clock/sleep", arguments, required=("seconds",))
    await lease.investigation.clock.sleep(given.number("seconds"))
    return await _clock(lease, {})


async def _guidance(lease: Lease, arguments: dict[str, Any]) -> bytes:
    given = _Arguments("/v1/guidance", arguments, optional=("diagnosis",))
    attempt = given.object("diagnosis")
    diagnosis = None if attempt is None else Diagnosis.model_validate(attempt)
    return json_bytes({"hint": await lease.investigation.guidance.next(diagnosis)})


async def _transcript(lease: Lease, arguments: dict[str, Any]) -> bytes:
    given = _Arguments("/v1/transcript", arguments, required=("kind", "content"))
    content = wire.decoded(given.object("content") or {})
    await lease.investigation.transcript.add(given.text("kind"), content)
    return json_bytes({})


_ROUTES: Mapping[str, Route] = {
    "/v1/question": Route("GET", _question),
    "/v1/table": Route("POST", _table),
    "/v1/ask": Route("POST", _ask),
    "/v1/schema": Route("GET", _schema),
    "/v1/clock": Route("GET", _clock),
    "/v1/clock/sleep": Route("POST", _sleep),
    "/v1/guidance": Route("POST", _guidance),
    "/v1/transcript": Route("POST", _transcript),
    "/openapi.json": Route("GET", _openapi),
}


class _Arguments:
    """The arguments of one call, read with their types; raises Refused."""

    def __init__(
        self,
        path: str,
        given: Mapping[str, Any],
        *,
        required: Sequence[str] = (),
        optional: Sequence[str] = (),
    ) -> None:
        self._path = path
        self._given = given
        known = (*required, *optional)
        missing = [name for name in required if name not in given]
        unknown = [name for name in given if name not in known]
        if missing or unknown:
            wrong = [f"{name} is missing" for name in missing] + [f"{name!r} is unknown" for name in unknown]
            raise self._refused(f"{', '.join(wrong)}; {path} takes {', '.join(known)}")

    def text(self, name: str) -> str:
        """Return a text."""
        value = self._given[name]
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        return value

    def number(self, name: str) -> float:
        """Return a finite number."""
        value = self._given[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number")
        return float(value)

    def object(self, name: str) -> dict[str, Any] | None:
        """Return an object, None where it is missing or null."""
        value = self._given.get(name)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return value

    def _wrong(self, name: str, wanted: str) -> Refused:
        return self._refused(f"{name} is {type(self._given[name]).__name__}; {self._path} takes {wanted}")

    def _refused(self, text: str) -> Refused:
        return Refused(400, "bad_arguments", text)
