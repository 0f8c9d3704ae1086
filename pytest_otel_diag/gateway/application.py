"""The ASGI application in front of both doors: who may enter, which door, and the end of what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from pytest_otel_diag.errors import nearest
from pytest_otel_diag.gateway import failures
from pytest_otel_diag.gateway.access import Connection, Lease, Leases
from pytest_otel_diag.gateway.exchange import (
    Disconnected,
    Receive,
    Refused,
    Reply,
    Scope,
    Send,
    discard_body,
    parse_object,
    read_body,
    send_reply,
)
from pytest_otel_diag.gateway.mcp_door import McpDoor
from pytest_otel_diag.gateway.routes import Route, paths, route_of

MCP_PATH = "/mcp"
_MOST_CONNECTIONS = 128  # of one access; an agent must not use up the files that the process may open
_SHOWN = 100  # characters of what a client sent
_LAST_WORDS_S = 1.0
_CLOSE = ("connection", "close")
_BEARER = "bearer"


class Application:
    """Checks Host, Origin and token, then hands the request to MCP or the JSON API."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._mcp = McpDoor()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request."""
        connection = scope["state"]["connection"]
        try:
            lease = self._lease(scope)
            _check_room(lease, connection)
        except Refused as refused:
            await discard_body(scope, receive)
            refusal = refused.reply()
            await send_reply(send, Reply(refusal.status, refusal.body, (*refusal.headers, _CLOSE)))
            return
        connection.admitted()
        lease.connections.add(connection)
        task = asyncio.current_task()
        assert task is not None
        lease.tasks.add(task)
        answer = _Answer(send)
        try:
            await self._serve(lease, scope, receive, answer)
        except Disconnected:
            return
        except asyncio.CancelledError:
            if not lease.over:
                raise
            task.uncancel()
            await answer.cut_short(lease.over)
        finally:
            lease.tasks.discard(task)

    async def end(self, lease: Lease) -> None:
        """Cancel the calls of a revoked access and close its connections; runs on the server's loop."""
        for task in set(lease.tasks):
            task.cancel()
        try:
            if lease.tasks:
                await asyncio.wait(set(lease.tasks))
        finally:
            for connection in set(lease.connections):
                connection.end()

    async def close(self) -> None:
        """End what runs beside requests; runs on the server's loop."""
        await self._mcp.close()

    def _lease(self, scope: Scope) -> Lease:
        """Return the access that the request may use; raises Refused."""
        headers = scope["headers"]
        port = scope["server"][1]
        allowed = (f"127.0.0.1:{port}", f"localhost:{port}")
        hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0] not in allowed:
            text = f"the Host header is {', '.join(hosts)!r}; this server answers as {' and '.join(allowed)}"
            raise Refused(421, "wrong_host", text)
        origins = [value.decode("latin-1").lower() for name, value in headers if name == b"origin"]
        if any(origin not in {f"http://{host}" for host in allowed} for origin in origins):
            text = f"the Origin header is {', '.join(origins)!r}; web pages of other sites have no access"
            raise Refused(403, "wrong_origin", text)
        given = [value for name, value in headers if name == b"authorization"]
        scheme, _, token = (given[0] if len(given) == 1 else b"").strip().partition(b" ")
        if scheme.lower() != _BEARER.encode() or not token:
            text = "send the header 'Authorization: Bearer TOKEN' with the token in OTEL_DIAG_TOKEN"
            raise _unauthorized(text)
        lease, why = self._leases.find(token.strip())
        if lease is None:
            raise _unauthorized(why)
        return lease

    async def _serve(self, lease: Lease, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            if scope["path"].rstrip("/") == MCP_PATH:
                await self._mcp.serve(lease, scope, receive, answer.send)
                return
            reply = await _reply(lease, scope, receive)
        except (Disconnected, asyncio.CancelledError):
            raise
        except Exception as error:
            if answer.begun:
                raise
            reply = failures.refused(error).reply()
        if reply.status in {408, 413, 415}:  # the body is not read to its end
            await discard_body(scope, receive)
            reply = Reply(reply.status, reply.body, (*reply.headers, _CLOSE))
        await send_reply(answer.send, reply)


def _check_room(lease: Lease, connection: Connection) -> None:
    """Refuse a further connection of an access that has as many as it may."""
    if connection in lease.connections:
        return
    if sum(not one.closed for one in lease.connections) >= _MOST_CONNECTIONS:
        text = f"the agent has {_MOST_CONNECTIONS} connections, which is the most; use one for several calls"
        raise Refused(503, "busy", text, headers=(("retry-after", "1"),))


async def _reply(lease: Lease, scope: Scope, receive: Receive) -> Reply:
    """Return the response of the JSON API; raises Refused, Disconnected and what the call raises."""
    route = _route(lease, scope)
    arguments = parse_object(await read_body(lease, scope, receive))
    return Reply(200, await _unless_left(route.answer(lease, arguments), receive))


def _route(lease: Lease, scope: Scope) -> Route:
    path, method = scope["path"], scope["method"]
    route = route_of(lease, path)
    if route is None:
        known = (*paths(lease), MCP_PATH)
        text = (
            f"there is no {path[:_SHOWN]!r}{nearest(path[:_SHOWN], known)}; GET /openapi.json lists the paths"
        )
        raise Refused(404, "not_found", text)
    if method != route.method:
        text = f"{path} takes {route.method}, not {method}"
        raise Refused(405, "wrong_method", text, headers=(("allow", route.method),))
    return route


async def _unless_left(work: Awaitable[bytes], receive: Receive) -> bytes:
    """Return the result of *work*; cancels it and raises Disconnected when the client leaves."""
    call = asyncio.ensure_future(work)
    left = asyncio.ensure_future(receive())
    try:
        await asyncio.wait({call, left}, return_when=asyncio.FIRST_COMPLETED)
        if not call.done():
            raise Disconnected
        return call.result()
    finally:
        call.cancel()
        left.cancel()
        await asyncio.gather(call, left, return_exceptions=True)


def _unauthorized(why: str) -> Refused:
    return Refused(401, "unauthorized", why, headers=(("www-authenticate", "Bearer"),))


class _Answer:
    """The response to one request, of which it knows whether it has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def send(self, message: Any) -> None:
        """Send a part of the response."""
        self.begun = True
        await self._send(message)

    async def cut_short(self, why: str) -> None:
        """End the response of a call that was cancelled because its access ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                if self.begun:
                    await self._send({"type": "http.response.body", "body": b""})
                else:
                    await send_reply(self._send, _unauthorized(f"the token is revoked: {why}").reply())
