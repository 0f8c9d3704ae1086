"""The one door to httpx for flags: bounded time, bounded size, and errors that a person can act on.

The environment's proxies are not used: flags are asked where the configuration says, and on this machine in
most cases. One :class:`HttpClient` may be used from several event loops, one after the other.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pytest_otel_diag.errors import ConfigurationError, FlagError
from pytest_otel_diag.extras import require
from pytest_otel_diag.model.secret import masked

MAX_BODY_BYTES = 16 * 1024 * 1024
_SHOWN = 120


@dataclass(frozen=True)
class HttpAnswer:
    """A whole answer. ``url`` is shown in errors and masks credentials."""

    status: int
    content_type: str
    body: bytes
    url: str

    def json(self, expected: str) -> Any:
        """Return the body as JSON; raises FlagError that says what came in place of *expected*."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise FlagError(
                f"{self.url} answered {self.status} with {self.excerpt()}, not with {expected} ({error}); "
                "is this the right address, and is the service behind it up?"
            ) from error

    def excerpt(self) -> str:
        """Return the kind of the body and its beginning, for errors."""
        kind = self.content_type.partition(";")[0].strip() or "no content type"
        text = " ".join(self.body[: 4 * _SHOWN].decode("utf-8", errors="replace").split())
        if not text:
            return f"an empty body ({kind})"
        page = "an HTML page" if "<html" in text.lower() or "html" in kind else kind
        return f"{page}: {text[:_SHOWN]!r}"


class HttpRefused(FlagError):
    """Nothing answered: refused, unknown host, timed out, or broke off in the middle."""


def base_url(text: str, what: str) -> str:
    """Return an ``http://host[:port][/path]`` without a final slash; raises ConfigurationError for others.

    ``host:port`` without a scheme is taken as ``http://``.
    """
    url = text.strip()
    url = (url if "://" in url else f"http://{url}").rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or " " in url or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{what}: {masked(text)!r} is no address; write http://HOST:PORT or http://HOST:PORT/PATH"
        )
    return url


class HttpClient:
    """Asks one service. ``timeout_s`` bounds a whole question, ``way_out`` is told when nothing answers.

    Raises ConfigurationError when httpx is not installed or *base* is no address.
    """

    def __init__(self, base: str, *, way_out: str, timeout_s: float = 5.0) -> None:
        self._httpx = require("httpx", "live", "reaching flags over HTTP")
        self._base = base_url(base, "address")
        self._way_out = way_out
        self._timeout_s = timeout_s
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def name(self) -> str:
        """The address, its login masked."""
        return masked(self._base)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """Return what GET answers, whatever the status; raises HttpRefused when nothing does."""
        return await self.request("GET", path, headers=headers)

    async def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """Return what POST of *body* as JSON answers; raises HttpRefused when nothing does."""
        content = json.dumps(body).encode()
        return await self.request(
            "POST", path, content, {"content-type": "application/json", **(headers or {})}
        )

    async def request(
        self, method: str, path: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """Return the answer, whatever its status; raises HttpRefused when there is none.

        Redirects are not followed. Bodies over 16 MiB are refused.
        """
        url = f"{self._base}/{path.lstrip('/')}" if path else self._base
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask(method, url, content, headers)
        except TimeoutError as error:
            raise self._refused(url, f"did not answer within {self._timeout_s:g} s") from error
        except (self._httpx.HTTPError, self._httpx.InvalidURL) as error:
            detail = str(error) or type(error).__name__
            raise self._refused(url, f"does not answer ({detail})") from error

    async def _ask(
        self, method: str, url: str, content: bytes | None, headers: Mapping[str, str] | None
    ) -> HttpAnswer:
        client = self._connected()
        async with client.stream(method, url, content=content, headers=dict(headers or {})) as answer:
            body = bytearray()
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    raise HttpRefused(
                        f"{masked(url)} answered more than {MAX_BODY_BYTES:,} bytes; {self._way_out}"
                    )
            kind = answer.headers.get("content-type", "")
            return HttpAnswer(answer.status_code, kind, bytes(body), masked(url))

    def _connected(self) -> Any:
        """Return a client of the running loop: connections cannot move from one loop to another."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client = self._httpx.AsyncClient(
                timeout=self._timeout_s, trust_env=False, headers={"accept-encoding": "identity"}
            )
            self._loop = loop
        return self._client

    def _refused(self, url: str, what: str) -> HttpRefused:
        return HttpRefused(f"{masked(url)} {what}; {self._way_out}")

    async def aclose(self) -> None:
        """Close the connections; the client opens new ones when it is asked again."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()
