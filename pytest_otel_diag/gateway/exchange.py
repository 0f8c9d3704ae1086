"""One HTTP exchange: bounded reading of bodies, replies, and refusals with their reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.gateway.access import Lease

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

LEASE = "pytest_otel_diag.lease"
"""Key of a request's scope under which the tools of MCP find their access."""

MOST_BODY_BYTES = 8 << 20
"""Size limit of a request: a diagnosis has at most 4 MB, and JSON may escape half of its characters."""

_MOST_ARRIVING_BYTES = 4 * MOST_BODY_BYTES
_BODY_S = 30.0
_DISCARD_BYTES = 4 * MOST_BODY_BYTES
_DISCARD_S = 2.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete response of the JSON API."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """The request is not answered; the response says why.

    ``kind`` is a word for programs, ``details`` are further fields of the error.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.error = {"kind": kind, "message": message, **(details or {})}

    def reply(self) -> Reply:
        """Return the response."""
        return Reply(self.status, json_bytes({"error": self.error}), self.headers)


class Disconnected(Exception):
    """The client left before its request was complete."""


def json_bytes(value: Any) -> bytes:
    """Return strict JSON; lone surrogates become escapes."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers by lower-case name; of several with one name, the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def send_reply(send: Send, reply: Reply) -> None:
    """Send the response."""
    headers = (
        ("content-type", "application/json"),
        ("content-length", str(len(reply.body))),
        ("cache-control", "no-store"),
        *reply.headers,
    )
    encoded = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": encoded})
    await send({"type": "http.response.body", "body": reply.body})


async def discard_body(scope: Scope, receive: Receive) -> None:
    """Read what is left of a small body and drop it.

    A connection that is closed with unread bytes is reset, and the client may not see the response.
    """
    headers = headers_of(scope)
    if "expect" in headers or not ({"content-length", "transfer-encoding"} & headers.keys()):
        return
    read, more = 0, True
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while more and read <= _DISCARD_BYTES:
                event = await receive()
                read += len(event.get("body", b""))
                more = event.get("more_body", False)


async def read_body(lease: Lease, scope: Scope, receive: Receive) -> bytes:
    """Return the body of a request; raises Refused and Disconnected."""
    headers = headers_of(scope)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise Refused(415, "unsupported_encoding", f"content encoding {encoding!r}; send plain JSON")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > MOST_BODY_BYTES:
        raise _too_large()
    pieces: list[bytes] = []
    held = 0
    try:
        async with asyncio.timeout(_BODY_S):
            more = True
            while more:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise Disconnected
                piece = event.get("body", b"")
                held, lease.arriving_bytes = held + len(piece), lease.arriving_bytes + len(piece)
                if held > MOST_BODY_BYTES:
                    raise _too_large()
                if lease.arriving_bytes > _MOST_ARRIVING_BYTES:
                    raise Refused(503, "busy", "too many large requests at once; send them one by one")
                pieces.append(piece)
                more = event.get("more_body", False)
    except TimeoutError:
        raise Refused(408, "too_slow", f"the body did not arrive within {_BODY_S:g} s") from None
    finally:
        lease.arriving_bytes -= held
    return b"".join(pieces)


def _too_large() -> Refused:
    return Refused(413, "too_large", f"a request may have {MOST_BODY_BYTES:,} bytes; send less")


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that *body* is, an empty one for no body; raises Refused."""
    if not body.strip():
        return {}
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise Refused(400, "bad_json", "the body is not UTF-8; send JSON in UTF-8") from None
    except RecursionError:
        raise Refused(400, "bad_json", "the body is nested too deep") from None
    except ValueError as error:
        raise Refused(400, "bad_json", f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise Refused(400, "bad_json", f'the body is a JSON {kind}; send an object such as {{"sql": "…"}}')
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
