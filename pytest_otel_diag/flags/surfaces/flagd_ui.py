"""Flags through the demo's flagd-ui, over HTTP: ``flagd-ui:http://localhost:8080/feature``.

The generation of its API is found by probing its routes, never by a version number:

- only ``read-file`` (demo 1.12 to 2.0.2): returns the whole file, read anew; ``write-to-file`` writes it.
- only ``read`` (2.1): reads work; writes are impossible and refused with the alternatives.
- both (2.2 and later): return the same document from flagd-ui's memory, only its ``flags``. A write is
  acknowledged before it is stored.

Since 2.2 flagd-ui reads the file once, at start. It does not notice edits of the file, and its next write
reverts them, so use either flagd-ui or the file. A stale memory is invisible through flagd-ui, unless its two
routes disagree, which is checked; ``otel-diag flags list`` shows it by comparing the document with what flagd
serves.

flagd-ui reformats documents, so :meth:`FlagdUiSurface.same` compares JSON, without ``$schema``, which the
newer routes omit (writes add the demo's own). They omit ``$evaluators`` too: a document whose rules refer to
it is refused, since a write would break these rules.

In Kubernetes flagd-ui is a container of flagd's pod and writes to a volume that lives as long as the pod: a
write needs no restart, and a restart brings back the ConfigMap's document.
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
from pytest_otel_diag.flags.comparison import same_json
from pytest_otel_diag.flags.hosts import is_here
from pytest_otel_diag.flags.http import HttpAnswer, HttpClient, HttpRefused, base_url
from pytest_otel_diag.flags.surface import Moved, RemoteLease
from pytest_otel_diag.flags.surfaces.read_back import RetryPolicy, Uncertain, replace
from pytest_otel_diag.secret import masked

T = TypeVar("T")

_BASE_PATH = "/feature"
_SCHEMA = "https://flagd.dev/schema/v0/flags.json"
_INSTEAD = (
    "write the file that flagd watches instead (file:PATH, in the demo src/flagd/demo.flagd.json, with "
    "flagd-ui stopped), in Kubernetes its ConfigMap (configmap:NAMESPACE/flagd-config), or use a newer demo"
)


@dataclass(frozen=True)
class _Routes:
    """The routes of one API generation.

    ``write`` is empty where writes are impossible. ``whole`` says that reads return the whole document.
    """

    generation: str
    read: str
    write: str
    whole: bool


class FlagdUiSurface:
    """The document behind the flagd-ui at *url*, with or without its ``/feature``.

    Raises ConfigurationError for an invalid address, and when httpx is missing.
    """

    def __init__(self, url: str, *, retry: RetryPolicy | None = None, timeout_s: float = 5.0) -> None:
        self._url = base_url(url, "flagd-ui").removesuffix(_BASE_PATH)
        self._retry = retry or RetryPolicy()
        self._client = HttpClient(
            self._url,
            remedy="check that flagd-ui runs, and its address (--otel-diag-frontend or --otel-diag-flags)",
            timeout_s=timeout_s,
        )
        self._timeout_s = timeout_s
        self._routes: _Routes | None = None

    @property
    def name(self) -> str:
        """The name that errors and tables show."""
        return f"flagd-ui {masked(self._url)}{_BASE_PATH}"

    @property
    def identity(self) -> str:
        """The normalised address."""
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
        """The longest that one write may take, in seconds, when every attempt fails late."""
        return (self._retry.tries + 2) * (self._retry.kept_s + 2 * self._timeout_s)

    async def generation(self) -> str:
        """Return the releases of the demo that have this API; raises FlagError when there is no flagd-ui."""
        return (await self._found()).generation

    async def read(self) -> bytes:
        """Return the document that flagd-ui reports; raises FlagError."""
        return await self._retried(self._read)

    async def write(self, raw: bytes, *, expected: bytes) -> None:
        """Replace the document and return once it reads back; raises LostUpdate, FlagError."""
        await self._writable()
        await replace(self, raw, expected=expected, retry=self._retry)

    async def overwrite(self, raw: bytes) -> None:
        """Replace whatever document flagd-ui holds; raises FlagError."""
        await self._writable()
        await replace(self, raw, expected=None, retry=self._retry)

    async def put(self, raw: bytes) -> None:
        """Send one write; raises Uncertain when it may have been stored, FlagError when it was refused."""
        routes = await self._writable()
        data: Any = json.loads(raw)
        if not routes.whole:
            data = {"$schema": _SCHEMA, **data}
        answer = await self._ask(self._client.post(routes.write, {"data": data}))
        if answer.status != HTTPStatus.OK:
            self._routes = None  # another generation may run at this address by now
            raise FlagError(
                f"{answer.url} refused the document with {answer.status} ({answer.excerpt()}); {_INSTEAD}"
            )
        if not isinstance(_json(answer), dict):
            raise Uncertain(f"{answer.url} answered {answer.excerpt()}, which is not an answer of flagd-ui")

    def same(self, one: bytes, other: bytes) -> bool:
        """Return whether two texts hold the same JSON, ``$schema`` aside."""
        return same_json(one, other)

    def lease(self) -> RemoteLease | None:
        """Return None: flagd-ui cannot store a lease."""
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

    async def _retried(self, what: Callable[[], Awaitable[T]]) -> T:
        for last in range(self._retry.tries, 0, -1):
            try:
                return await what()
            except Uncertain:
                if last == 1:
                    raise
            await asyncio.sleep(self._retry.poll_s)
        raise AssertionError("tries is at least one")

    async def _ask(self, question: Awaitable[HttpAnswer]) -> HttpAnswer:
        """Return an answer with a status below 500; raises Uncertain for others and for none."""
        try:
            answer = await question
        except HttpRefused as error:
            raise Uncertain(str(error)) from error
        if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise Uncertain(
                f"{answer.url} answered 503 ({answer.excerpt()}): the proxy runs, but flagd-ui behind it "
                "does not; start it, or find out why it stopped (docker compose ps flagd-ui)"
            )
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Uncertain(
                f"{answer.url} answered {answer.status} ({answer.excerpt()}); check the log of flagd-ui"
            )
        return answer

    async def _read(self) -> bytes:
        routes = await self._found()
        answer = await self._ask(self._client.get(routes.read))
        if answer.status != HTTPStatus.OK or not _is_document(answer):
            self._routes = None
            raise Uncertain(f"{answer.url} answered {answer.status} with {answer.excerpt()}, not with flags")
        if not routes.whole:
            self._refuse_references(answer)
        return answer.body

    def _refuse_references(self, answer: HttpAnswer) -> None:
        if b'"$ref"' in answer.body:
            raise FlagError(
                f"{self.name} returns flags that refer to shared rules ($ref) without these rules "
                "($evaluators); a write would break them, so this document cannot be changed here. Write the "
                "file that flagd watches instead: file:PATH"
            )

    async def _writable(self) -> _Routes:
        routes = await self._retried(self._found)
        if not routes.write:
            raise FlagError(
                f"{self.name} belongs to demo {routes.generation}, whose API is read-only; {_INSTEAD} (2.2 "
                "or later)"
            )
        return routes

    async def _found(self) -> _Routes:
        """Return the routes of this flagd-ui, which are probed once."""
        if self._routes is None:
            self._routes = await self._probe(f"{_BASE_PATH}/api/") or await self._probe("/api/")
        if self._routes is None:
            raise Uncertain(  # retried, since a proxy may show a page for a moment
                f"there is no flagd-ui at {masked(self._url)}: neither {_BASE_PATH}/api/read nor "
                f"{_BASE_PATH}/api/read-file answers with flags. Demos before 1.12 have none; {_INSTEAD}"
            )
        return self._routes

    async def _probe(self, below: str) -> _Routes | None:
        old = await self._ask(self._client.get(f"{below}read-file"))
        new = await self._ask(self._client.get(f"{below}read"))
        _refuse_login(old)
        there, other = (old, new) if _is_document(old) else (new, old)
        if other.status == HTTPStatus.OK and not _is_document(other):
            # A page on every route is not flagd-ui; a page on one, or a truncated document, is transient.
            if _is_document(there) or b'"flags"' in there.body + other.body:
                raise Uncertain(f"{other.url} answered {other.excerpt()}, not with flags")
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
        """Read again, since a client may have written in between; raises FlagError if both still differ."""
        old = await self._ask(self._client.get(f"{below}read-file"))
        new = await self._ask(self._client.get(f"{below}read"))
        if not same_json(old.body, new.body):
            raise FlagError(
                f"{self.name} returns two documents, one from its memory ({below}read) and one from the file "
                f"({below}read-file): the file was edited directly, and a write here would revert that edit. "
                "Restart flagd-ui, and change flags in one place only"
            )


def _json(answer: HttpAnswer) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None


def _is_document(answer: HttpAnswer) -> bool:
    found = _json(answer) if answer.status == HTTPStatus.OK else None
    return isinstance(found, dict) and isinstance(found.get("flags"), dict)


def _refuse_login(answer: HttpAnswer) -> None:
    if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise FlagError(
            f"{answer.url} requires a login ({answer.status}); put user and password into the address "
            "(http://USER:PASSWORD@HOST:PORT/feature), or bypass the proxy that requires it"
        )


def open_surface(rest: str) -> FlagdUiSurface:
    """Return the surface of ``flagd-ui:URL``; raises ConfigurationError for an invalid address."""
    return FlagdUiSurface(rest)
