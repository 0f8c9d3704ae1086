"""The HTTP server: uvicorn's connections on an event loop of its own, in a daemon thread.

uvicorn's own server installs logging and wakes ten times a second; its connections are all that is needed.
A connection whose client has not shown a valid token within :data:`_UNKNOWN_S` is closed, so that strangers
cannot hold any; the others end with their access.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from pytest_otel_diag.daemon import start_thread
from pytest_otel_diag.errors import ConfigurationError

HOST = "127.0.0.1"
_BACKLOG = 512
_HEADER_BYTES = 16_384
_UNKNOWN_S = 10.0
_MOST_UNKNOWN = 128
_IDLE_S = 3600  # an access ends before
_END_S = 5.0
_LAST_BYTES_S = 2.0  # for a client to read the last response
_QUIET = logging.Logger("otel-diag gateway", level=logging.CRITICAL + 1)

Application = Callable[[Any, Any, Any], Awaitable[None]]


class Server:
    """Listens on a port of 127.0.0.1, a free one where *port* is 0, from creation to :meth:`stop`."""

    def __init__(self, application: Application, port: int = 0) -> None:
        try:
            self._listener = socket.create_server((HOST, port), family=socket.AF_INET, backlog=_BACKLOG)
        except OSError as error:
            where = f"port {port}" if port else "a port"
            raise ConfigurationError(
                f"cannot listen on {where} of {HOST} for agents: {error}; "
                "the agent under test needs it to reach telemetry"
            ) from error
        # asyncio does this for sockets that name their protocol only; head and body of a response are two
        # writes, and the second would wait 40 ms for the client to acknowledge the first
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._listener.getsockname()[1]
        self._config = uvicorn.Config(
            application,
            interface="asgi3",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            timeout_keep_alive=_IDLE_S,
        )
        self._state = _State()
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = start_thread(self._run, "otel-diag gateway")
        self.loop = self._ready.result()

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._state.connections)

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run *work* on the server's loop and wait until it ends, for a bounded time."""
        if self._thread is threading.current_thread():
            raise RuntimeError("the server's thread cannot wait for itself")

        async def bounded() -> None:
            with suppress(TimeoutError):
                await asyncio.wait_for(work(), _END_S)

        coroutine = bounded()
        try:
            asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(2 * _END_S)
        except RuntimeError:  # the loop has ended
            coroutine.close()
        except TimeoutError:
            return  # the loop is stuck in another call; its thread ends with the process

    def stop(self) -> None:
        """Close every connection and the port, and wait for the thread, for a bounded time."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._state.stopping.set)
        self._thread.join(_END_S)

    def abandon(self) -> None:
        """Close this process's copy of the port; called in a forked child, where the thread is missing."""
        self._listener.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._config.load()
        server = await loop.create_server(self._connection, sock=self._listener, backlog=_BACKLOG)
        self._ready.set_result(loop)
        await self._state.stopping.wait()
        server.close()
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in list(self._state.tasks):
            task.cancel()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=_END_S)

    def _connection(self) -> _Connection:
        return _Connection(self._config, self._state)


class _State(ServerState):
    def __init__(self) -> None:
        super().__init__()
        self.stopping = asyncio.Event()
        self.unknown: dict[_Connection, None] = {}


class _Connection(H11Protocol):
    """uvicorn's HTTP/1.1 connection; unknown clients have little time and few connections."""

    def __init__(self, config: uvicorn.Config, state: _State) -> None:
        super().__init__(config, state, {"connection": self})
        self.logger = _QUIET
        self.access_log = False
        self._state = state
        self._unknown: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        unknown = self._state.unknown
        if len(unknown) >= _MOST_UNKNOWN:
            oldest = next(iter(unknown))
            oldest.admitted()
            oldest.transport.abort()
        unknown[self] = None
        self._unknown = self.loop.call_later(_UNKNOWN_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self.admitted()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self.app_state.clear()  # it leads back here

    @property
    def closed(self) -> bool:
        """Whether it is closed, or about to be."""
        return self.transport.is_closing()

    def admitted(self) -> None:
        """Record that the client has shown a valid token."""
        self._state.unknown.pop(self, None)
        if self._unknown is not None:
            self._unknown.cancel()
            self._unknown = None

    def end(self) -> None:
        """Close the connection, after the response that is being sent."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        else:
            self.transport.close()
        self.loop.call_later(_LAST_BYTES_S, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP as the rest of the API answers errors."""
        if self.transport.is_closing() or self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.close()
            return
        text = f"{msg} Send HTTP/1.1 with at most {_HEADER_BYTES:,} bytes of headers."
        body = json.dumps({"error": {"kind": "bad_http", "message": text}})
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body.encode())
        )
        self.transport.close()
