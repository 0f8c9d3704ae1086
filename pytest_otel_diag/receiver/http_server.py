"""Serves OTLP/HTTP with uvicorn on a thread, and bounds what uvicorn leaves unbounded.

uvicorn expects a proxy in front of it that limits headers, slow clients and connections. A receiver has
none, so its connections do that here.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from pytest_otel_diag.daemon import start_thread
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.receiver.addresses import join_address, split_address
from pytest_otel_diag.receiver.asgi import OtlpApplication
from pytest_otel_diag.receiver.export_service import ExportService

_THREADS = 2
_BACKLOG = 512
_END_S = 5.0  # for the event loop to end, beyond twice the grace period
_WRITE_S = 10.0  # for a client to read its responses
_DISCARD_S = 2.0  # for the rest of a body whose request was refused
_FREE_PIECES = 1_000  # pieces of any size that a body may arrive in
_PIECE_BYTES = 64  # least mean size of the pieces beyond these


class HttpServer:
    """Listens from :meth:`start` to :meth:`stop`.

    When ``Limits.connections`` are open, a new client replaces the connection that has been waiting longest
    without ever sending a request, else the one that has been idle longest. When all are busy, the new one
    is closed.
    """

    def __init__(self, service: ExportService, address: str) -> None:
        self._host, self._port = split_address(address)
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="otel-diag-receiver-body")
        self._application = OtlpApplication(service, self._executor)
        config = uvicorn.Config(
            self._application,
            loop="asyncio",
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=_BACKLOG,
        )
        self._server = _Server(config, service)
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Listen and return the address; raises ConfigurationError when that is not possible."""
        listener = self._listener()
        port = listener.getsockname()[1]
        self._thread = start_thread(lambda: self._server.run([listener]), "otel-diag-receiver-http")
        return join_address(self._host, port)

    @property
    def requests(self) -> int:
        """The number of requests in progress."""
        return len(self._server.server_state.tasks)

    @property
    def arriving_bytes(self) -> int:
        """The bytes of request bodies in memory."""
        return self._application.arriving_bytes

    def stop(self, grace_s: float) -> None:
        """Stop listening, close idle connections, and give requests in progress *grace_s* seconds."""
        self._server.grace_s = grace_s
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(2 * grace_s + _END_S)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _listener(self) -> socket.socket:
        try:
            found = socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
            return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen for OTLP/HTTP on {join_address(self._host, self._port)}: {error}; "
                "stop the program that uses the port, or choose another address"
            ) from error


class _State(ServerState):
    """What the connections of a server share."""

    def __init__(self, service: ExportService) -> None:
        super().__init__()
        self.limits = service.limits
        self.tally = service.tally
        self._unused: dict[_Connection, None] = {}
        self._idle: dict[_Connection, None] = {}

    def mark_waiting(self, connection: _Connection) -> None:
        """Record that a connection waits for a request, so that a new one may replace it."""
        (self._idle if connection.cycle else self._unused)[connection] = None

    def mark_busy(self, connection: _Connection) -> None:
        """Record that a connection receives or answers a request, or is closed."""
        self._unused.pop(connection, None)
        self._idle.pop(connection, None)

    def has_room(self) -> bool:
        """Return whether another connection may open, closing a waiting one if needed."""
        if len(self.connections) < self.limits.connections:
            return True
        for waiting in (self._unused, self._idle):
            if waiting:
                oldest = next(iter(waiting))
                self.mark_busy(oldest)
                oldest.transport.abort()
                return True
        return False


class _Server(uvicorn.Server):
    """Ends in bounded time: connections still open after ``grace_s`` are aborted."""

    def __init__(self, config: uvicorn.Config, service: ExportService) -> None:
        super().__init__(config)
        self.server_state = _State(service)
        self.grace_s = 0.0

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(self.grace_s, self._abort)
        await super().shutdown(sockets)

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class _Phase(enum.Enum):
    """What a connection reads next."""

    WAITING = enum.auto()
    HEADERS = enum.auto()
    BODY = enum.auto()


class _Connection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection with the limits of the receiver."""

    def __init__(self, config: uvicorn.Config, server_state: ServerState, *args: Any, **options: Any) -> None:
        super().__init__(config, server_state, *args, **options)
        assert isinstance(server_state, _State)
        self._state = server_state
        self._limits = server_state.limits
        self.timeout_keep_alive = self._limits.idle_s  # type: ignore[assignment]  # call_later takes floats
        self._phase = _Phase.WAITING
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._body_bytes = 0
        self._pieces = 0
        self._half_closed = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        has_room = self._state.has_room()
        super().connection_made(transport)
        if has_room:
            self._wait()
        else:
            self._state.tally.refused(None, "too many connections at work")
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._phase is _Phase.HEADERS:
            self._state.tally.refused(None, "not HTTP")
        self._enter(_Phase.WAITING)
        self._unset_keepalive_if_required()
        self.resume_writing()
        self._state.mark_busy(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._phase is _Phase.WAITING:
            self._begin_headers()
        self._header_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(400, f"invalid HTTP request: {error}", "not HTTP")
        if self._phase is _Phase.HEADERS and self._header_bytes > self._limits.header_bytes:
            self._refuse_headers()

    def eof_received(self) -> bool:  # type: ignore[override]  # True keeps the transport open
        """Keep a half-closed connection open until the requests that arrived whole are answered."""
        if self._phase is not _Phase.WAITING:
            self._refuse(400, "the request is incomplete", "not HTTP")
        self._half_closed = self._busy()
        return self._half_closed

    def on_message_begin(self) -> None:
        if self._phase is _Phase.WAITING:
            self._begin_headers()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # _decline_upgrade follows
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self._limits.header_bytes:
            self._refuse_headers()
            raise ValueError("the headers are too large")  # ends the parser
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in self.headers}:
            # a proxy may believe the other one, and take a part of the body for the next request
            self._refuse(400, "Content-Length and Transfer-Encoding contradict each other", "not HTTP")
            raise ValueError("the length of the body is not certain")  # ends the parser
        self._enter(_Phase.BODY)
        self._body_bytes = self._pieces = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._pieces += 1
        self._body_bytes += len(body)
        if self._pieces > _FREE_PIECES + self._body_bytes // _PIECE_BYTES:
            raise ValueError("the body arrives in too many small pieces")  # ends the parser
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._phase is _Phase.HEADERS:
            return  # _decline_upgrade follows
        self._enter(_Phase.WAITING)
        super().on_message_complete()
        if not self._busy():
            self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._enter(self._phase, _WRITE_S, self.transport.abort)
        elif self._busy():
            return  # the response to a pipelined request is next
        elif self._half_closed:
            self.transport.close()
        elif self._phase is _Phase.BODY:
            self._enter(_Phase.BODY, _DISCARD_S, self.transport.close)
        elif self._phase is _Phase.WAITING:
            self._wait()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_deadline = self.loop.call_later(_WRITE_S, self.transport.abort)

    def resume_writing(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
        super().resume_writing()

    def _busy(self) -> bool:
        """Whether a request is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        """Wait for a request, not longer than ``Limits.idle_s``."""
        self._state.mark_waiting(self)
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self._limits.idle_s, self.transport.abort)

    def _begin_headers(self) -> None:
        self._state.mark_busy(self)
        self._header_bytes = 0
        self._enter(_Phase.HEADERS, self._limits.header_s, self._headers_late)

    def _decline_upgrade(self, rest: bytes) -> None:
        """Parse the request again without its offer to upgrade, which makes the parser skip the body.

        Java's HTTP client offers HTTP/2 with every first request.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(405, "POST is the only method", "not a POST")
            return
        dropped = {b"connection", b"upgrade", b"http2-settings"}
        kept = [pair for pair in self.headers if pair[0] not in dropped]
        lines = [b"%s %s HTTP/1.1" % (method, self.url), *(b"%s: %s" % pair for pair in kept)]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def _enter(self, phase: _Phase, limit_s: float = 0.0, late: Callable[[], object] | None = None) -> None:
        """Enter *phase*; unless another begins, call *late* after *limit_s* seconds."""
        self._phase = phase
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if late is None else self.loop.call_later(limit_s, late)

    def _headers_late(self) -> None:
        self._refuse(408, f"the headers took more than {self._limits.header_s:g} s", "header too slow")

    def _refuse_headers(self) -> None:
        self._refuse(431, f"the headers have more than {self._limits.header_bytes:,} bytes", "not HTTP")

    def _refuse(self, status: int, text: str, reason: str) -> None:
        """Answer a request that the application does not answer, and close the connection."""
        if self.transport.is_closing():
            return
        if self._phase is not _Phase.BODY:  # else the application counts a body that is broken off
            self._state.tally.refused(None, reason)
        answered = self._phase is _Phase.BODY and not self._busy()
        self._enter(_Phase.WAITING, _WRITE_S, self.transport.abort)
        if not answered:
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: text/plain; charset=utf-8"
            self.transport.write(
                f"{head}\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n{text}".encode()
            )
        self.transport.close()
