"""Drives rare requests through the frontend, like a customer; the only module of the targets using httpx.

Visits run in the background, a few per second and at a time, so that they do not become the fault. A system
under a fault is expected to fail: errors are counted, never raised, and a visit that the system failed was
made. One that was redirected, refused, or answered by a page or a proxy was not made: it did not reach what
it was for.

A session with a fault makes the visits that trigger its flags. A control makes visits of the same kinds,
drawn by the session's id, so that the requests do not reveal whether there is a fault.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any

from pytest_otel_diag import catalog
from pytest_otel_diag.errors import ConfigurationError, FlagError, ScenarioError
from pytest_otel_diag.extras import require
from pytest_otel_diag.model.flags import FlagValue, ServedFlag
from pytest_otel_diag.targets.live import recipes
from pytest_otel_diag.targets.live.recipes import BY_FLAG, VISITS, Request

AT_ONCE = 4
WAITING = 200
"""Visits that may be queued; more are refused."""

TIMEOUT_S = 20.0
"""Limit of one request, longer than the delay of the demo's slowest fault."""

UNREACHABLE = 3
"""After so many consecutive requests without a connection, or that went astray, no visit is accepted."""

_BY_THE_PROXY = (502, 503)
"""Errors that a proxy answers for a service it cannot reach."""

Served = Callable[[str, Mapping[str, FlagValue]], Awaitable[ServedFlag]]


class LiveTraffic:
    """Visits to *frontend* for one session; an async context manager whose exit cancels running visits.

    *flags* are those of the session's faults, by any name. *served* evaluates a flag. *rate* is in visits per
    second. Raises ConfigurationError when httpx is missing or the address is invalid.
    """

    def __init__(
        self, frontend: str, *, flags: Sequence[str], served: Served, rng: Random, rate: float = 1.0
    ) -> None:
        self._frontend = frontend.rstrip("/")
        self._flags = tuple(_newest(flag) for flag in flags)
        self._served = served
        self._rng = rng
        self._pause_s = 1.0 / rate
        self._waiting: asyncio.Queue[str] = asyncio.Queue(WAITING)
        self._workers: list[asyncio.Task[None]] = []
        self._due_s = 0.0
        self._refused = 0
        self._astray = 0
        self._made = 0
        self._client: Any = None
        self.counts: Counter[str] = Counter()
        """Requests by outcome: an HTTP status as text, ``timeout``, ``unreachable``, ``broken``."""

    async def __aenter__(self) -> LiveTraffic:
        httpx = require(
            "httpx", "live", "driving traffic", alternative="turn it off with --otel-diag-drive=off"
        )
        try:
            self._client = httpx.AsyncClient(
                base_url=self._frontend,
                timeout=TIMEOUT_S,
                trust_env=False,
                headers={"user-agent": "customer"},
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigurationError(
                f"--otel-diag-frontend={self._frontend!r} is not an address ({error}); write http://HOST:PORT"
            ) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers)
        self._workers.clear()
        if self._client is not None:
            with suppress(Exception):  # errors of closing connections do not matter
                await self._client.aclose()

    async def drive(self, services: Sequence[str], calls: int) -> int:
        """Queue *calls* visits that reach the services; return how many were accepted.

        Accepts none when no visit is known, when the frontend cannot be reached, or when it sends the visits
        elsewhere.
        """
        kinds = self._kinds(services)
        if not kinds or self._client is None or self._vain:
            return 0
        accepted = 0
        while accepted < calls and not self._waiting.full():
            self._waiting.put_nowait(kinds[accepted % len(kinds)])
            accepted += 1
        while len(self._workers) < min(AT_ONCE, accepted):
            self._workers.append(asyncio.create_task(self._work()))
        return accepted

    def made(self) -> int:
        """Return how many visits have ended with each of their requests answered by what it was made for."""
        return self._made

    @property
    def _vain(self) -> bool:
        return max(self._refused, self._astray) >= UNREACHABLE

    async def settle(self) -> None:
        """Wait until every accepted visit has ended."""
        await self._waiting.join()

    def _kinds(self, services: Sequence[str]) -> tuple[str, ...]:
        kinds = recipes.chosen(self._flags, map(_newest_service, services))
        if not kinds and not self._flags:  # a control without known flags or services
            return (self._rng.choice(sorted(set(BY_FLAG.values()))),)
        return kinds

    async def _work(self) -> None:
        while True:
            kind = await self._waiting.get()
            try:
                await self._turn()
                await self._visit(kind)
            except Exception as error:  # a failed visit must not stop later ones
                self.counts[f"broken: {type(error).__name__}"] += 1
            finally:
                self._waiting.task_done()

    async def _turn(self) -> None:
        """Wait until the rate allows the next visit."""
        now_s = asyncio.get_running_loop().time()
        self._due_s = max(now_s, self._due_s + self._pause_s)
        await asyncio.sleep(self._due_s - now_s)

    async def _visit(self, kind: str) -> None:
        customer = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        whole = True
        for request in VISITS[kind](self._rng, customer):
            if self._refused >= UNREACHABLE:
                self.counts["unreachable"] += 1
                return
            outcome, reached = await self._outcome(request)
            self.counts[outcome] += 1
            whole = whole and reached
        self._made += whole

    async def _outcome(self, request: Request) -> tuple[str, bool]:
        """Return how the request ended, and whether what it was made for had to do with it."""
        httpx = require(
            "httpx", "live", "driving traffic", alternative="turn it off with --otel-diag-drive=off"
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._client.request(
                    request.method,
                    request.path,
                    params=dict(request.query) or None,
                    json=dict(request.body) if request.body is not None else None,
                    headers=await self._headers(request),
                )
        except (httpx.TimeoutException, TimeoutError):
            self._refused = 0
            return "timeout", True
        except httpx.ConnectError:
            self._refused += 1
            return "unreachable", False
        except httpx.HTTPError:
            return "broken", True
        self._refused = 0
        return self._judged(answer.status_code, answer.headers.get("content-type", ""))

    def _judged(self, status: int, content: str) -> tuple[str, bool]:
        """Return the outcome of an answer; no request of a visit asks for a page."""
        page = 200 <= status < 300 and content.startswith("text/html")
        astray = page or not (200 <= status < 300 or status >= 500)
        self._astray = self._astray + 1 if astray else 0
        return f"{status} page" if page else str(status), not astray and status not in _BY_THE_PROXY

    async def _headers(self, request: Request) -> dict[str, str]:
        """Return the headers of a request, with the flag-dependent header that a browser would send."""
        if not request.flag:
            return {}
        try:
            value = (await self._served(request.flag, {})).value
        except FlagError:
            value = 0
        delay = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
        return {request.flag_header: f"{delay:g}"}


def _newest(flag: str) -> str:
    try:
        return catalog.flag(flag).key
    except ScenarioError:
        return flag


def _newest_service(name: str) -> str:
    entry = catalog.load().service_entry(name)
    return entry.name if entry is not None else name


class NoDriving:
    """Traffic of a system in which none may be driven (``--otel-diag-drive=off``)."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    async def drive(self, services: Sequence[str], calls: int) -> int:  # noqa: ARG002 - the port
        """Drive nothing; return 0."""
        return 0

    def made(self) -> int:
        """Return 0."""
        return 0
