"""One HTTP/1.1 connection: h11 reads and writes the protocol, this module waits, bounds and answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.receiver import http_messages, packages
from pytest_otel_diag.receiver.desk import Desk
from pytest_otel_diag.receiver.http_messages import Answer, Refusal, Route

_CHUNK_BYTES = 1 << 16
_INLINE_BYTES = 1 << 16  # larger bodies, and JSON, are taken on a thread: the loop goes on serving others
_LINGER_S, _LINGER_BYTES = 2.0, 64 << 20
_WRITE_S = 10.0


class Room:
    """Bytes that all connections of a loop may hold together."""

    def __init__(self, size_bytes: int) -> None:
        self._free = size_bytes

    def take(self, size_bytes: int) -> bool:
        """Take so many bytes, or none and return False."""
        if size_bytes > self._free:
            return False
        self._free -= size_bytes
        return True

    def give_back(self, size_bytes: int) -> None:
        """Give bytes back."""
        self._free += size_bytes


@dataclass(frozen=True, slots=True)
class House:
    """What connections share. ``waits`` is told True while a connection waits for a request to begin.

    Once ``stopping`` is set, every answer is a connection's last.
    """

    desk: Desk
    room: Room
    threads: Executor
    stopping: asyncio.Event
    waits: Callable[[Connection, bool], None]


class Connection:
    """Serves one client until it leaves, is too slow, or breaks the protocol."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, house: House) -> None:
        self._h11 = packages.h11()
        self._reader = reader
        self._writer = writer
        self._house = house
        self._limits = house.desk.limits
        self._wire: Any = self._h11.Connection(
            self._h11.SERVER, max_incomplete_event_size=self._limits.header_bytes
        )
        self._held_bytes = 0
        self._bodiless = False
        self.served = 0

    async def serve(self) -> None:
        """Answer requests, one after the other; returns when the connection is over."""
        try:
            while await self._exchange():
                self._wire.start_next_cycle()
        except (OSError, TimeoutError):
            pass  # the client went away, or does not read its answer
        finally:
            self._writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_WRITE_S):
                    await self._writer.wait_closed()

    def abort(self) -> None:
        """End the connection at once."""
        self._writer.transport.abort()

    async def _exchange(self) -> bool:
        """Answer one request; return whether another may follow on this connection."""
        try:
            request = await self._request()
            if request is None:
                return False
            answer = await self._answer(request)
        except Refusal as refusal:
            answer = refusal.answer
        finally:
            self._house.room.give_back(self._held_bytes)
            self._held_bytes = 0
        last = answer.close or self._house.stopping.is_set()
        await self._send(answer, last=last)
        self.served += 1
        if not last and await self._is_over():
            return True
        await self._linger()
        return False

    async def _is_over(self) -> bool:
        """Whether both sides are done with the request; reads over a short body that nobody wanted."""
        wire, done = self._wire, self._h11.DONE
        left = _INLINE_BYTES
        with suppress(TimeoutError, OSError, self._h11.RemoteProtocolError):
            async with asyncio.timeout(_LINGER_S):
                while wire.their_state is self._h11.SEND_BODY and left > 0:
                    event = await self._event()
                    left -= len(event.data) if isinstance(event, self._h11.Data) else 0
        return bool(wire.our_state is done and wire.their_state is done)

    async def _request(self) -> Any:
        """Return the next request's head; None when the client leaves, or sends nothing for too long.

        Raises Refusal for what is no HTTP, or too slow.
        """
        tally = self._house.desk.tally
        self._house.waits(self, True)
        try:
            event = self._wire.next_event()
            if event is self._h11.NEED_DATA:
                if not await self._begins():
                    return None
                async with asyncio.timeout(self._limits.header_s):
                    event = await self._event()
        except self._h11.RemoteProtocolError as error:
            tally.refused(None, "not HTTP")
            raise Refusal(http_messages.bad_request(error.error_status_hint, str(error))) from error
        except TimeoutError:
            tally.refused(None, "header too slow")
            late = f"the header took more than {self._limits.header_s:g} s"
            raise Refusal(http_messages.bad_request(408, late)) from None
        finally:
            self._house.waits(self, False)
        if not isinstance(event, self._h11.Request):
            return None
        self._bodiless = event.method == b"HEAD"
        return event

    async def _begins(self) -> bool:
        """Wait for the first bytes of a request; return False when none come."""
        try:
            async with asyncio.timeout(self._limits.idle_s):
                await self._receive()
        except (TimeoutError, OSError):
            return False
        return True

    async def _answer(self, request: Any) -> Answer:
        desk = self._house.desk
        found = http_messages.route(request, desk)
        body = await self._body(found)
        if len(body) <= _INLINE_BYTES and not found.as_json:
            return http_messages.export(found, body, desk)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._house.threads, http_messages.export, found, body, desk)

    async def _body(self, found: Route) -> bytes:
        """Return the whole body as it came; raises Refusal."""
        if self._wire.they_are_waiting_for_100_continue:
            await self._write(self._wire.send(self._h11.InformationalResponse(status_code=100, headers=[])))
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(self._limits.body_s):
                while isinstance(event := await self._event(), self._h11.Data):
                    pieces.append(self._hold(bytes(event.data), found))
        except TimeoutError:
            raise Refusal(http_messages.too_slow(found, self._house.desk)) from None
        except (self._h11.RemoteProtocolError, OSError) as error:
            raise Refusal(http_messages.broken_off(found, self._house.desk, str(error))) from error
        return b"".join(pieces)

    def _hold(self, piece: bytes, found: Route) -> bytes:
        if self._held_bytes + len(piece) > self._limits.request_bytes:
            raise Refusal(http_messages.too_large(found, self._house.desk))
        if not self._house.room.take(len(piece)):
            raise Refusal(http_messages.no_room(found, self._house.desk))
        self._held_bytes += len(piece)
        return piece

    async def _event(self) -> Any:
        while (event := self._wire.next_event()) is self._h11.NEED_DATA:
            await self._receive()
        return event

    async def _receive(self) -> None:
        self._wire.receive_data(await self._reader.read(_CHUNK_BYTES))

    async def _send(self, answer: Answer, *, last: bool) -> None:
        if self._wire.our_state not in {self._h11.IDLE, self._h11.SEND_RESPONSE}:
            return
        headers = [
            ("content-type", answer.content_type),
            ("content-length", str(len(answer.body))),
            *answer.headers,
            *((("connection", "close"),) if last else ()),
        ]
        response = self._h11.Response(status_code=answer.status, headers=headers)
        data = self._wire.send(response)
        if not self._bodiless:
            data += self._wire.send(self._h11.Data(data=answer.body))
        await self._write(data + self._wire.send(self._h11.EndOfMessage()))

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        async with asyncio.timeout(_WRITE_S):
            await self._writer.drain()

    async def _linger(self) -> None:
        """Read what the client is still sending: closing at once could take the answer from it."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
        left = _LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while left > 0 and (data := await self._reader.read(_CHUNK_BYTES)):
                    left -= len(data)
