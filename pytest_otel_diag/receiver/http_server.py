"""OTLP/HTTP on a thread of its own: one event loop, however many clients.

Why no web framework: three paths, one method, and bounds on header, body, time, memory and connections
that frameworks leave to a proxy in front. h11 (which httpx brings along) reads the protocol; the loop
is the standard library's.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.receiver import packages
from pytest_otel_diag.receiver.addresses import join_address, split_address
from pytest_otel_diag.receiver.desk import Desk
from pytest_otel_diag.receiver.http_connection import Connection, House, Room

_THREADS = 2
_BACKLOG = 512


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that work on bodies; the end does not wait for a body that takes long."""
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="otel-diag-receiver-body")
    try:
        yield threads
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


_END_S = 5.0
"""What the loop may take to end, beyond twice the grace time."""


class HttpServer:
    """Listens from :meth:`start` to :meth:`stop`.

    With ``Limits.connections`` open, a new client pushes out the connection that has been waiting
    longest without ever sending a request, else the one that has been idle longest; when all are at work it
    is the new one that has to go.
    """

    def __init__(self, desk: Desk, address: str) -> None:
        packages.h11()
        self._desk = desk
        self._host, self._port = split_address(address)
        self._bound: Future[str] = Future()
        self._stopping: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._grace_s = 0.0
        self._tasks: dict[asyncio.Task[None], Connection] = {}
        self._never_used: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}
        self._thread = threading.Thread(target=self._run, name="otel-diag-receiver-http", daemon=True)

    def start(self) -> str:
        """Listen and return the address; raises ConfigurationError when that cannot be done."""
        self._thread.start()
        return self._bound.result()

    def stop(self, grace_s: float) -> None:
        """Take no new connections, let requests that are under way end, and end; idle ones end at once."""
        self._grace_s = grace_s
        if self._loop is not None and self._stopping is not None:
            with suppress(RuntimeError):  # the loop is closed: it never got to listen
                self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(2 * grace_s + _END_S)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        limits = self._desk.limits
        with _threads() as threads:
            house = House(self._desk, Room(limits.arriving_bytes), threads, self._stopping, self._waits)

            async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self._accept(reader, writer, house)

            try:
                server = await asyncio.start_server(accept, self._host, self._port, backlog=_BACKLOG)
            except OSError as error:
                self._bound.set_exception(
                    ConfigurationError(
                        f"cannot listen for OTLP/HTTP on {join_address(self._host, self._port)}: {error}; "
                        "stop what listens there, or choose another address"
                    )
                )
                return
            self._bound.set_result(join_address(self._host, server.sockets[0].getsockname()[1]))
            await self._stopping.wait()
            server.close()
            await self._end()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, house: House) -> None:
        connection = Connection(reader, writer, house)
        if len(self._tasks) >= self._desk.limits.connections and not self._push_out():
            self._desk.tally.refused(None, "too many connections at work")
            connection.abort()
            return
        task = asyncio.current_task()
        assert task is not None  # start_server runs this in a task
        self._tasks[task] = connection
        try:
            await connection.serve()
        finally:
            self._waits(connection, False)
            del self._tasks[task]

    def _push_out(self) -> bool:
        for waiting in (self._never_used, self._idle):
            if waiting:
                oldest = next(iter(waiting))
                del waiting[oldest]
                oldest.abort()
                return True
        return False

    def _waits(self, connection: Connection, waits: bool) -> None:
        self._never_used.pop(connection, None)
        self._idle.pop(connection, None)
        if waits:
            (self._idle if connection.served else self._never_used)[connection] = None

    async def _end(self) -> None:
        for connection in [*self._never_used, *self._idle]:
            connection.abort()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=self._grace_s)
        for task, connection in list(self._tasks.items()):
            connection.abort()
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=self._grace_s)
