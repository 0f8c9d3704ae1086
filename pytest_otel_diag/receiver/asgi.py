"""OTLP/HTTP as an ASGI application: routing, bounded bodies, responses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.receiver import otlp_json, packages
from pytest_otel_diag.receiver.compression import ENCODINGS, BadEncoding, TooLarge, decompress
from pytest_otel_diag.receiver.export_service import Busy, ExportService, Malformed
from pytest_otel_diag.receiver.packages import Signal

PROTOBUF, JSON, TEXT = "application/x-protobuf", "application/json", "text/plain; charset=utf-8"
PATHS: dict[str, Signal] = {"/v1/traces": "traces", "/v1/logs": "logs", "/v1/metrics": "metrics"}

_UNENCODED = frozenset({"", "identity", "none"})
_INLINE_BYTES = 1 << 16  # larger bodies and JSON are handled on a thread, to keep the event loop responsive
# google.rpc.Code
_INVALID_ARGUMENT, _OUT_OF_RANGE, _UNAVAILABLE = 3, 11, 14

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Response:
    """A complete HTTP response."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """The request is answered with ``response`` and not accepted."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class Disconnected(Exception):
    """The client closed the connection, or broke the protocol, before the end of its body."""


@dataclass(frozen=True, slots=True)
class Route:
    """An Export request whose body has not been read; ``length`` is None for a chunked body."""

    signal: Signal
    content_type: str
    encoding: str
    length: int | None

    @property
    def as_json(self) -> bool:
        """Whether request and response are JSON."""
        return self.content_type == JSON


class ByteBudget:
    """Bytes that all requests of a server may hold together; used on its event loop only."""

    def __init__(self, size_bytes: int) -> None:
        self._size = size_bytes
        self.held = 0

    @contextmanager
    def reserve(self) -> Iterator[Reservation]:
        """Yield an empty reservation; its bytes are returned at the end of the block."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            self.held -= reservation.held

    def take(self, size_bytes: int) -> bool:
        """Take *size_bytes*; return False, taking none, when fewer are left."""
        if self.held + size_bytes > self._size:
            return False
        self.held += size_bytes
        return True


class Reservation:
    """The bytes that one request holds."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self.held = 0

    def grow(self, size_bytes: int) -> bool:
        """Hold *size_bytes* more; return False when the budget has fewer left."""
        if not self._budget.take(size_bytes):
            return False
        self.held += size_bytes
        return True


class OtlpApplication:
    """The ASGI application; *executor* handles large and JSON bodies."""

    def __init__(self, service: ExportService, executor: Executor) -> None:
        self.service = service
        self._executor = executor
        self._limits = service.limits
        self._tally = service.tally
        self._budget = ByteBudget(service.limits.arriving_bytes)

    @property
    def arriving_bytes(self) -> int:
        """The bytes of request bodies in memory."""
        return self._budget.held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request."""
        try:
            response = await self._handle(scope, receive)
        except Refused as refused:
            response = refused.response
        except Disconnected:
            return
        headers = {
            "content-type": response.content_type,
            "content-length": str(len(response.body)),
            **dict(response.headers),
        }
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": response.status, "headers": encoded})
        await send({"type": "http.response.body", "body": response.body})

    async def _handle(self, scope: Scope, receive: Receive) -> Response:
        route = self._route(scope)
        with self._budget.reserve() as reservation:
            body = await self._body(route, receive, reservation)
            if len(body) <= _INLINE_BYTES and not route.as_json:
                return self._export(route, body)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, self._export, route, body)

    def _route(self, scope: Scope) -> Route:
        """Return what the request line and the headers ask for; raises Refused."""
        path = scope["path"]
        signal = PATHS.get(path)
        if signal is None:
            raise self._refused(None, "unknown path", _plain(404, f"not found; POST to {', '.join(PATHS)}"))
        if scope["method"] != "POST":
            allow = {"allow": "POST"}
            raise self._refused(None, "not a POST", _plain(405, f"POST to {path}", allow))
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type not in {PROTOBUF, JSON}:
            text = f"content type {content_type!r} is not supported; send {PROTOBUF} or {JSON}"
            raise self._refused(signal, "unknown content type", _plain(415, text))
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in ENCODINGS and encoding not in _UNENCODED:
            text = f"content encoding {encoding!r} is not supported; send gzip, deflate or none"
            accepted = {"accept-encoding": "gzip, deflate"}
            raise self._refused(signal, "unknown content encoding", _plain(415, text, accepted))
        length = headers.get("content-length")
        route = Route(signal, content_type, encoding, None if length is None else int(length))
        if route.length is not None and route.length > self._limits.request_bytes:
            raise Refused(self._too_large(route))
        return route

    async def _body(self, route: Route, receive: Receive, reservation: Reservation) -> bytes:
        """Return the body as sent; raises Refused for one that is too large or slow, Disconnected."""
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(self._limits.body_s):
                more = True
                while more:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        self._tally.refused(route.signal, "broken off")
                        raise Disconnected
                    pieces.append(self._bounded(event["body"], route, reservation))
                    more = event["more_body"]
        except TimeoutError:
            text = f"the body took more than {self._limits.body_s:g} s"
            raise self._refused(route.signal, "too slow", _status(route, 408, _UNAVAILABLE, text)) from None
        return b"".join(pieces)

    def _bounded(self, piece: bytes, route: Route, reservation: Reservation) -> bytes:
        if reservation.held + len(piece) > self._limits.request_bytes:
            raise Refused(self._too_large(route))
        if not reservation.grow(len(piece)):
            text = "too many request bodies are being received"
            retry = {"retry-after": str(self._limits.retry_after_s)}
            busy = _status(route, 503, _UNAVAILABLE, text, retry)
            raise self._refused(route.signal, "too many bodies on their way", busy)
        return piece

    def _export(self, route: Route, body: bytes) -> Response:
        """Decompress and export a body, on any thread, and return the response."""
        try:
            if route.encoding in ENCODINGS:
                body = decompress(body, route.encoding, self._limits.request_bytes)
            result = self.service.export(route.signal, body, as_json=route.as_json)
        except TooLarge:
            return self._too_large(route)
        except BadEncoding as error:
            self._tally.refused(route.signal, "bad compression")
            return _status(route, 400, _INVALID_ARGUMENT, str(error))
        except Malformed as error:
            return _status(route, 400, _INVALID_ARGUMENT, str(error))
        except Busy as error:
            retry = {"retry-after": str(self._limits.retry_after_s)}
            return _status(route, 503, _UNAVAILABLE, str(error), retry)
        return Response(200, route.content_type, _encoded(route, result))

    def _too_large(self, route: Route) -> Response:
        self._tally.refused(route.signal, "too large")
        limit = f"{self._limits.request_bytes:,} bytes after decompression"
        return _status(route, 413, _OUT_OF_RANGE, f"a request may have {limit}; send smaller batches")

    def _refused(self, signal: Signal | None, reason: str, response: Response) -> Refused:
        self._tally.refused(signal, reason)
        return Refused(response)


def _plain(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, TEXT, f"{text}\n".encode(), tuple((headers or {}).items()))


def _status(
    route: Route, status: int, code: int, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error as a ``google.rpc.Status`` in the request's content type."""
    body = _encoded(route, packages.status(code, message))
    return Response(status, route.content_type, body, tuple((headers or {}).items()))


def _encoded(route: Route, message: Any) -> bytes:
    return otlp_json.write(message) if route.as_json else bytes(message.SerializeToString())
