"""The JSON API as an OpenAPI 3.1 document, generated from the schemas of the tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_otel_diag.tools import Tool

_OBJECT = {"type": "object"}
_INTEGER = {"type": "integer"}
_TEXT = {"type": "string"}
_WINDOW: dict[str, Any] = {
    "type": "object",
    "description": "A half-open interval in UTC nanoseconds.",
    "properties": {"start_ns": _INTEGER, "end_ns": _INTEGER},
    "required": ["start_ns", "end_ns"],
}
_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"kind": _TEXT, "message": _TEXT, "code": {"type": ["integer", "null"]}},
            "required": ["kind", "message"],
        }
    },
    "required": ["error"],
}
_ERRORS = {
    "400": "The body is no JSON object, or its arguments do not fit.",
    "401": "The token is missing, unknown or revoked.",
    "422": "The engine refused or stopped the statement.",
    "429": "The budget of the investigation is used up.",
    "503": "Telemetry cannot be reached, or the agent has too many connections.",
}


def _fields(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


_OTHERS: Mapping[str, tuple[str, str, dict[str, Any] | None, dict[str, Any]]] = {
    "/v1/question": (
        "get",
        "What to investigate: the windows, the budget, and an opaque id.",
        None,
        _fields(
            session_id=_TEXT,
            incident=_WINDOW,
            baseline={"oneOf": [_WINDOW, {"type": "null"}]},
            reference={"type": "array", "items": _WINDOW},
            budget=_OBJECT,
            seed=_INTEGER,
        ),
    ),
    "/v1/table": (
        "post",
        "Run one SELECT and return every row by column; values that JSON lacks are {$type, value}.",
        {**_fields(sql=_TEXT, parameters=_OBJECT, limits=_OBJECT), "required": ["sql"]},
        _fields(
            names={"type": "array", "items": _TEXT},
            columns={"type": "array", "items": {"type": "array"}},
            elapsed_s={"type": "number"},
        ),
    ),
    "/v1/ask": (
        "post",
        "Answer a typed question, such as service_health, call_edges or latest.",
        {**_fields(question=_TEXT, arguments=_OBJECT), "required": ["question"]},
        _fields(answer={}),
    ),
    "/v1/schema": (
        "get",
        "The tables and their columns; free of charge.",
        None,
        _fields(database=_TEXT, tables=_OBJECT),
    ),
    "/v1/clock": ("get", "The time of the system under fault.", None, _fields(now_ns=_INTEGER)),
    "/v1/clock/sleep": (
        "post",
        "Return once the seconds have passed on that clock.",
        {**_fields(seconds={"type": "number"}), "required": ["seconds"]},
        _fields(now_ns=_INTEGER),
    ),
    "/v1/guidance": (
        "post",
        "Ask for a hint after an attempt; null for a right answer, or when no hint is left. Each counts as a "
        "human prompt.",
        _fields(diagnosis={"type": ["object", "null"]}),
        _fields(hint={"type": ["string", "null"]}),
    ),
    "/v1/transcript": (
        "post",
        "Record one step for the people who read the report; free of charge.",
        {**_fields(kind=_TEXT, content=_OBJECT), "required": ["kind", "content"]},
        _OBJECT,
    ),
}


def document(tools: Mapping[str, Tool]) -> dict[str, Any]:
    """Return the document for *tools* by path."""
    paths = {
        path: {
            "post": _operation(
                tool.name, tool.description, request=tool.schema(), response=tool.result_schema()
            )
        }
        for path, tool in tools.items()
    }
    for path, (method, text, request, response) in _OTHERS.items():
        name = path.removeprefix("/v1/").replace("/", "_")
        paths[path] = {method: _operation(name, text, request=request, response=response)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Telemetry of one incident",
            "version": "1",
            "description": "Times are UTC nanoseconds. The present is the end of the incident window.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR},
        },
    }


def _operation(
    name: str, text: str, *, request: dict[str, Any] | None, response: dict[str, Any]
) -> dict[str, Any]:
    reference = {"$ref": "#/components/schemas/Error"}
    errors = {
        status: {"description": why, "content": _json(reference)}
        for status, why in _ERRORS.items()
        if request is not None or status in {"401", "503"}
    }
    body = {} if request is None else {"requestBody": {"required": True, "content": _json(request)}}
    return {
        "operationId": name,
        "description": text,
        **body,
        "responses": {"200": {"description": "The answer.", "content": _json(response)}, **errors},
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
