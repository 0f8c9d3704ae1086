"""HTTP requests of the flags package; its only module that imports httpx.

Requests are bounded in time and size. Proxies of the environment are ignored, since flags are usually on this
machine. An :class:`HttpClient` may be used from several event loops, one after the other.
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
from pytest_otel_diag.flags import own_requests
from pytest_otel_diag.secret import masked

MAX_BODY_BYTES = 16 * 1024 * 1024
_SHOWN = 120


@dataclass(frozen=True)
class HttpAnswer:
    """A complete answer; ``url`` is for errors, with credentials masked."""

    status: int
    content_type: str
    body: bytes
    url: str

    def json(self, expected: str) -> Any:
        """Return the parsed JSON body; raises FlagError that names what was *expected*."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise FlagError(
                f"{self.url} answered {self.status} with {self.excerpt()}, not with {expected} ({error}); "
                "check the address, and that the service behind it runs"
            ) from error

    def excerpt(self) -> str:
        """Return the content type and the beginning of the body, for errors."""
        kind = self.content_type.partition(";")[0].strip() or "no content type"
        text = " ".join(self.body[: 4 * _SHOWN].decode("utf-8", errors="replace").split())
        if not text:
            return f"an empty body ({kind})"
        page = "an HTML page" if "<html" in text.lower() or "html" in kind else kind
        return f"{page}: {text[:_SHOWN]!r}"


class HttpRefused(FlagError):
    """No complete answer: connection refused, unknown host, timeout, or closed connection."""


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
            f"{what}: {masked(text)!r} is not an address; write http://HOST:PORT or http://HOST:PORT/PATH"
        )
    return url


class HttpClient:
    """Client of one service; ``timeout_s`` bounds a whole request, in seconds.

    ``remedy`` says what to do when nothing answers. Raises ConfigurationError when httpx is not installed or
    *base* is not an address.
    """

    def __init__(self, base: str, *, remedy: str, timeout_s: float = 5.0) -> None:
        self._httpx = require("httpx", "live", "reaching flags over HTTP")
        self._base = base_url(base, "address")
        self._remedy = remedy
        self._timeout_s = timeout_s
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def name(self) -> str:
        """The address, its login masked."""
        return masked(self._base)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """Return the answer to GET, whatever its status; raises HttpRefused when there is none."""
        return await self.request("GET", path, headers=headers)

    async def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """Return the answer to POST of *body* as JSON; raises HttpRefused when there is none."""
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
                        f"{masked(url)} answered more than {MAX_BODY_BYTES:,} bytes; {self._remedy}"
                    )
            kind = answer.headers.get("content-type", "")
            return HttpAnswer(answer.status_code, kind, bytes(body), masked(url))

    def _connected(self) -> Any:
        """Return a client of the running loop: connections cannot move from one loop to another."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client = self._httpx.AsyncClient(
                timeout=self._timeout_s,
                trust_env=False,
                headers={**own_requests.headers(), "accept-encoding": "identity"},
            )
            self._loop = loop
        return self._client

    def _refused(self, url: str, what: str) -> HttpRefused:
        return HttpRefused(f"{masked(url)} {what}; {self._remedy}")

    async def aclose(self) -> None:
        """Close the connections; the client opens new ones when it is asked again."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()
