"""Flags through the demo's flagd-ui, over HTTP: ``flagd-ui:http://localhost:8080/feature``.

Which generation of its API answers is found by asking for its routes, never by a version:

- ``read-file`` alone (demo 1.12 to 2.0.2): the whole file, read each time; ``write-to-file`` writes it.
- ``read`` alone (2.1): no way to write. Reads work; writes are refused with what else works.
- both (2.2 and later): one and the same answer from flagd-ui's memory, and only its ``flags``. A write is
  answered before it is kept.

From 2.2 on flagd-ui reads the file once, when it starts. An edit of the file is invisible to it, and the
next write through it takes the edit back. So use one way only, this one or the file. A stale memory cannot
be seen through flagd-ui itself unless its two routes disagree, which is checked; comparing what is written
with what flagd serves shows it (``otel-diag flags list``).

flagd-ui formats by itself, so :meth:`FlagdUiSurface.same` compares JSON, without ``$schema``, which the
newer routes leave out (writes put the demo's own back). They leave out ``$evaluators`` too: a document whose
rules refer to it is refused, because writing it back would break these rules.

In Kubernetes flagd-ui is a container of flagd's pod and writes to a volume that lives as long as the pod: no
restart is needed, and a restart brings the ConfigMap's document back.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.hosts import is_here
from pytest_otel_diag.flags.http import HttpAnswer, HttpClient, HttpRefused, base_url
from pytest_otel_diag.flags.surface import Moved, RemoteLease
from pytest_otel_diag.flags.surfaces.read_back import Doubtful, Patience, replace, same_json
from pytest_otel_diag.model.secret import masked

T = TypeVar("T")

_BASE_PATH = "/feature"
_SCHEMA = "https://flagd.dev/schema/v0/flags.json"
_INSTEAD = (
    "write the file that flagd watches instead (file:PATH, in the demo src/flagd/demo.flagd.json, with "
    "flagd-ui stopped), in Kubernetes its ConfigMap (configmap:NAMESPACE/flagd-config), or use a newer demo"
)


@dataclass(frozen=True)
class _Routes:
    """What answers: ``write`` is empty where nothing can be written, ``whole`` that reads hold it all."""

    generation: str
    read: str
    write: str
    whole: bool


class FlagdUiSurface:
    """The document behind a flagd-ui at *url*, with or without its ``/feature``.

    Raises ConfigurationError for what is no address, and when httpx is missing.
    """

    def __init__(self, url: str, *, patience: Patience | None = None, timeout_s: float = 5.0) -> None:
        self._url = base_url(url, "flagd-ui").removesuffix(_BASE_PATH)
        self._patience = patience or Patience()
        self._client = HttpClient(
            self._url, way_out="check the address and that flagd-ui runs", timeout_s=timeout_s
        )
        self._timeout_s = timeout_s
        self._routes: _Routes | None = None

    @property
    def name(self) -> str:
        """What errors and tables call the place."""
        return f"flagd-ui {masked(self._url)}{_BASE_PATH}"

    @property
    def identity(self) -> str:
        """The address, spelt one way."""
        parts = urlsplit(self._url)
        host = (parts.hostname or "").lower().rstrip(".")
        host = "localhost" if is_here(host) else host
        port = parts.port or (443 if parts.scheme == "https" else 80)
        path = re.sub(r"/{2,}", "/", parts.path + _BASE_PATH)
        return "flagd-ui:" + urlunsplit((parts.scheme, f"{host}:{port}", path, "", ""))

    @property
    def control(self) -> str:
        """``flagd-ui:`` and the address, login included."""
        return f"flagd-ui:{self._url}{_BASE_PATH}"

    @property
    def write_timeout_s(self) -> float:
        """The longest that one write may take, in seconds: every try fails late."""
        patience = self._patience
        return (patience.tries + 2) * (patience.kept_s + 2 * self._timeout_s)

    async def generation(self) -> str:
        """Return which releases of the demo have this API; raises FlagError when there is none."""
        return (await self._found()).generation

    async def read(self) -> bytes:
        """Return the document as flagd-ui tells it; raises FlagError."""
        return await self._patiently(self._read)

    async def write(self, raw: bytes, *, expected: bytes) -> None:
        """Replace the document and return when flagd-ui reads it back; raises LostUpdate, FlagError."""
        await self._writable()
        await replace(self, raw, expected=expected, patience=self._patience)

    async def overwrite(self, raw: bytes) -> None:
        """Replace whatever document flagd-ui holds; raises FlagError."""
        await self._writable()
        await replace(self, raw, expected=None, patience=self._patience)

    async def put(self, raw: bytes) -> None:
        """Send one write; raises Doubtful when it may have been kept, FlagError when it was refused."""
        routes = await self._writable()
        data: Any = json.loads(raw)
        if not routes.whole:
            data = {"$schema": _SCHEMA, **data}
        answer = await self._ask(self._client.post(routes.write, {"data": data}))
        if answer.status != HTTPStatus.OK:
            self._routes = None  # another generation may have been started at this address
            raise FlagError(
                f"{answer.url} refuses the document with {answer.status} ({answer.excerpt()}); {_INSTEAD}"
            )
        if not isinstance(_json(answer), dict):
            raise Doubtful(f"{answer.url} answered {answer.excerpt()}, not as flagd-ui does")

    def same(self, one: bytes, other: bytes) -> bool:
        """Whether two texts hold the same JSON, ``$schema`` aside."""
        return same_json(one, other)

    def lease(self) -> RemoteLease | None:
        """Return None: flagd-ui has no place for a lease."""
        return None

    def moved_from(self, identity: str) -> Moved | None:  # noqa: ARG002 - the port
        """Return None: an address has no links to follow."""
        return None

    async def describe(self) -> str:
        """Return the name and the releases of the demo that have this API; raises FlagError."""
        return f"{self.name}, of demo {await self.generation()}"

    async def aclose(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def _patiently(self, what: Callable[[], Awaitable[T]]) -> T:
        for last in range(self._patience.tries, 0, -1):
            try:
                return await what()
            except Doubtful:
                if last == 1:
                    raise
            await asyncio.sleep(self._patience.poll_s)
        raise AssertionError("tries is at least one")

    async def _ask(self, question: Awaitable[HttpAnswer]) -> HttpAnswer:
        """Return an answer below 500; raises Doubtful for others and for none."""
        try:
            answer = await question
        except HttpRefused as error:
            raise Doubtful(str(error)) from error
        if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise Doubtful(
                f"{answer.url} answered 503 ({answer.excerpt()}): the proxy is there, flagd-ui behind it is "
                "not; start it, or see why it stopped (docker compose ps flagd-ui)"
            )
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Doubtful(f"{answer.url} answered {answer.status} ({answer.excerpt()}); see flagd-ui's log")
        return answer

    async def _read(self) -> bytes:
        routes = await self._found()
        answer = await self._ask(self._client.get(routes.read))
        if answer.status != HTTPStatus.OK or not _is_document(answer):
            self._routes = None
            raise Doubtful(f"{answer.url} answered {answer.status} with {answer.excerpt()}, not with flags")
        if not routes.whole:
            self._complete(answer)
        return answer.body

    def _complete(self, answer: HttpAnswer) -> None:
        if b'"$ref"' in answer.body:
            raise FlagError(
                f"{self.name} tells flags that refer to shared rules ($ref) without these rules "
                "($evaluators); writing them back would break them, so this document cannot be changed "
                "here. Write the file that flagd watches instead: file:PATH"
            )

    async def _writable(self) -> _Routes:
        routes = await self._patiently(self._found)
        if not routes.write:
            raise FlagError(
                f"{self.name} is of demo {routes.generation}, whose API can only read; {_INSTEAD} (2.2 or "
                "later)"
            )
        return routes

    async def _found(self) -> _Routes:
        """Return the routes that answer, asked for once."""
        if self._routes is None:
            self._routes = await self._probe(f"{_BASE_PATH}/api/") or await self._probe("/api/")
        if self._routes is None:
            raise Doubtful(  # a page once is a mishap, a page always is no flagd-ui
                f"there is no flagd-ui at {masked(self._url)}: neither {_BASE_PATH}/api/read nor "
                f"{_BASE_PATH}/api/read-file answers with flags. Demos before 1.12 have none; {_INSTEAD}"
            )
        return self._routes

    async def _probe(self, below: str) -> _Routes | None:
        old = await self._ask(self._client.get(f"{below}read-file"))
        new = await self._ask(self._client.get(f"{below}read"))
        _let_in(old)
        there, other = (old, new) if _is_document(old) else (new, old)
        if other.status == HTTPStatus.OK and not _is_document(other):
            # A page for everything is not flagd-ui; one of two routes, or half a document, is a mishap.
            if _is_document(there) or b'"flags"' in there.body + other.body:
                raise Doubtful(f"{other.url} answered {other.excerpt()}, not with flags")
            return None
        if _is_document(old) and _is_document(new):
            if not same_json(old.body, new.body):
                await self._agree(below)
            return _Routes("2.2 or later", f"{below}read", f"{below}write", whole=False)
        if _is_document(old):
            return _Routes("1.12 to 2.0.2", f"{below}read-file", f"{below}write-to-file", whole=True)
        if _is_document(new):
            return _Routes("2.1", f"{below}read", "", whole=False)
        return None

    async def _agree(self, below: str) -> None:
        """Ask once more, in case somebody wrote between the two; raises FlagError when they still differ."""
        old = await self._ask(self._client.get(f"{below}read-file"))
        new = await self._ask(self._client.get(f"{below}read"))
        if not same_json(old.body, new.body):
            raise FlagError(
                f"{self.name} tells two documents, one from its memory ({below}read) and one from the file "
                f"({below}read-file): the file was edited beside it, and a write here would take that edit "
                "back. Start flagd-ui again, and use one way only"
            )


def _json(answer: HttpAnswer) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None


def _is_document(answer: HttpAnswer) -> bool:
    found = _json(answer) if answer.status == HTTPStatus.OK else None
    return isinstance(found, dict) and isinstance(found.get("flags"), dict)


def _let_in(answer: HttpAnswer) -> None:
    if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise FlagError(
            f"{answer.url} asks for a login ({answer.status}); give user and password in the address "
            "(http://USER:PASSWORD@HOST:PORT/feature), or reach flagd-ui past the proxy that asks"
        )


def open_surface(rest: str) -> FlagdUiSurface:
    """Return the surface of ``flagd-ui:URL``; raises ConfigurationError for what is no address."""
    return FlagdUiSurface(rest)
