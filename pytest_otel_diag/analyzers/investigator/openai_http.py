"""Any OpenAI-compatible endpoint over HTTP, as a chat model: vLLM, llama.cpp, Ollama, gateways, providers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from pytest_otel_diag.analyzers.addresses import on_this_machine
from pytest_otel_diag.analyzers.investigator.chat_model import (
    ChatReply,
    ChatRequest,
    ModelUnavailable,
    TransientFailure,
)
from pytest_otel_diag.analyzers.investigator.model_options import ModelOptions, split_spec
from pytest_otel_diag.analyzers.investigator.openai_wire import (
    StreamedReply,
    failure_of,
    reply_of,
    shortened,
    words_of,
)
from pytest_otel_diag.config.provider_keys import openai_key
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.extras import require
from pytest_otel_diag.secret import SecretText, masked

KEY_VARIABLES = "OTEL_DIAG_CHAT_KEY or OPENAI_API_KEY"

_WRITE = "write chat:MODEL@http://HOST:PORT/v1"

_MOST_BYTES = 16 * 1024 * 1024
_PATH = "/chat/completions"


class OpenAiModel:
    """One model at one endpoint. Each attempt has a connection of its own, so it works on every event loop.

    Proxies of the environment are used, except for addresses of this machine. Redirects are refused, because
    they would carry the key to another address.
    """

    @classmethod
    def from_spec(cls, rest: str, settings: Settings) -> Self:
        """Return the model of ``chat:MODEL@URL#options``; raises ConfigurationError for another form."""
        spec, options = split_spec(rest)
        name, at, url = _split_address(spec)
        if not (name and at):
            raise ConfigurationError(f"chat:{masked(rest)} lacks a model or an address; {_WRITE}")
        return cls(name, url, key=_key(url, settings), options=options)

    def __init__(
        self, name: str, url: str, *, key: SecretText | None = None, options: ModelOptions | None = None
    ) -> None:
        self.name = name
        self._url = _endpoint(url)
        self.key = key
        self.options = options or ModelOptions()
        if self.options.api_base is not None:
            raise ConfigurationError(f"api_base is an option of llm:; {_WRITE}")
        self._httpx = require("httpx", "agents", "an OpenAI-compatible endpoint (chat:)")
        self._tokens_field = "max_tokens"

    @property
    def supports_tools(self) -> bool | None:
        """What the option ``tools`` says; None for ``auto``."""
        return {"native": True, "text": False}.get(self.options.tools)

    def describe(self) -> Mapping[str, str]:
        """Return name, address without credentials, and parameters."""
        return {"model": self.name, "endpoint": masked(self._url.reveal()), **self.options.describe()}

    def worst_case_cost_usd(self, request: ChatRequest) -> float | None:
        """Return the price of all tokens that the request may use; None where no price was given."""
        price = self.options.price
        return None if price is None else price.of(request.input_tokens_bound(), request.max_output_tokens)

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Make one attempt; see :meth:`.ChatModel.complete`."""
        try:
            async with asyncio.timeout(request.timeout_s):
                answer = await self._ask(request)
                if isinstance(answer, str):  # the endpoint knows the limit by its other name only
                    self._tokens_field = answer
                    answer = await self._ask(request)
        except TimeoutError as error:
            raise TransientFailure(f"no answer within {request.timeout_s:g} s", billable=True) from error
        except (self._httpx.ConnectError, self._httpx.ConnectTimeout, self._httpx.ProxyError) as error:
            raise TransientFailure(self._lost(error, "cannot be reached")) from error
        except self._httpx.TransportError as error:
            raise TransientFailure(self._lost(error, "broke the connection"), billable=True) from error
        assert isinstance(answer, ChatReply)
        return self._priced(answer)

    async def close(self) -> None:
        """Hold nothing between attempts."""

    async def _ask(self, request: ChatRequest) -> ChatReply | str:
        """Return the reply, or the other name of the limit of output tokens where the endpoint demands it."""
        body = json.dumps(self._payload(request)).encode()
        async with (
            self._client(request.timeout_s) as client,
            client.stream("POST", self._url.reveal(), content=body, headers=self._headers()) as response,
        ):
            if response.status_code == 200 and "event-stream" in response.headers.get("content-type", ""):
                return await self._streamed(response, request)
            answer = _parsed(await _read(response))
        if response.status_code == 200 and not (isinstance(answer, Mapping) and answer.get("error")):
            return reply_of(answer, request)
        return self._failed(response, answer, request)

    async def _streamed(self, response: Any, request: ChatRequest) -> ChatReply:
        reply = StreamedReply(request)
        try:
            async for line in _lines(response):
                reply.line(line)
        except self._httpx.TransportError:
            if not reply.ended:
                raise
        return reply.reply()

    def _failed(self, response: Any, answer: Any, request: ChatRequest) -> ChatReply | str:
        """Return a refusal as a reply; raises for every other error."""
        status = response.status_code
        words = words_of(status, answer)
        if status == 400 and self._tokens_field == "max_tokens" and "max_completion_tokens" in words:
            return "max_completion_tokens"
        if status in {401, 403}:
            raise ConfigurationError(
                f"{self._shown} refuses the key ({words}); it is read from {KEY_VARIABLES}"
                f"{'' if self.key else ', neither of which is used'}"
            )
        if status == 404:
            raise ConfigurationError(
                f"{self._shown} does not know the model {self.name!r}, or is no chat API ({words}); {_WRITE}"
            )
        if 300 <= status < 400:
            place = masked(response.headers.get("location", "no place"))
            raise ConfigurationError(f"{self._shown} redirects to {place}; write that address")
        found = failure_of(502 if status < 400 else status, answer, response.headers, request)
        if isinstance(found, Exception):
            raise found
        return found

    def _payload(self, request: ChatRequest) -> dict[str, Any]:
        payload: dict[str, Any] = {
            "model": self.name,
            "messages": list(request.messages),
            self._tokens_field: request.max_output_tokens,
        }
        if request.tools:
            payload["tools"] = list(request.tools)
        if request.temperature is not None:
            payload["temperature"] = request.temperature
        if request.seed is not None:
            payload["seed"] = request.seed
        if self.options.reasoning_effort is not None:
            payload["reasoning_effort"] = self.options.reasoning_effort
        if self.options.stream:
            payload |= {"stream": True, "stream_options": {"include_usage": True}}
        return payload

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key.reveal()}"
        return headers

    def _client(self, timeout_s: float) -> Any:
        url = self._url.reveal()
        plain = on_this_machine(url) and urlsplit(url).scheme == "http"
        return self._httpx.AsyncClient(
            timeout=timeout_s,
            follow_redirects=False,
            trust_env=not on_this_machine(url),
            verify=False if plain else self._tls,
        )

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Certificates are read once: that takes longer than a request."""
        context: ssl.SSLContext = self._httpx.create_ssl_context()
        return context

    def _priced(self, reply: ChatReply) -> ChatReply:
        price = self.options.price
        if price is None:
            return reply
        cost = price.of(reply.usage.input_tokens, reply.usage.output_tokens)
        return dataclasses.replace(reply, usage=dataclasses.replace(reply.usage, cost_usd=cost))

    @property
    def _shown(self) -> str:
        return masked(self._url.reveal())

    def _lost(self, error: Exception, what: str) -> str:
        return f"{self._shown} {what} ({shortened(str(error)) or type(error).__name__})"


def _split_address(spec: str) -> tuple[str, str, str]:
    """Return model, ``@`` and address; names of models may have an @ too, and logins in addresses."""
    found = re.search(r"@(?=https?://)", spec)
    return (spec[: found.start()], "@", spec[found.end() :]) if found else (spec, "", "")


def _key(url: str, settings: Settings) -> SecretText | None:
    """Return the key of the endpoint. OpenAI's own goes to no other machine over plain HTTP."""
    if settings.chat_key:
        return settings.chat_key
    return openai_key() if on_this_machine(url) or urlsplit(url).scheme == "https" else None


def _endpoint(url: str) -> SecretText:
    """Return the address of the chat API below a base address, ``/v1`` where the base has no path."""
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.fragment or " " in url.strip():
        raise ConfigurationError(
            f"{masked(url)!r} is no address of a chat API; write chat:MODEL@http://HOST:PORT/v1"
        )
    path = parts.path.rstrip("/")
    if not path.endswith(_PATH):
        path = f"{path or '/v1'}{_PATH}"
    return SecretText(urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")))


async def _lines(response: Any) -> AsyncIterator[str]:
    """Yield the lines of an event stream."""
    size, rest = 0, ""
    async for text in response.aiter_text():
        size += len(text)
        if size > _MOST_BYTES:
            raise ModelUnavailable(f"the answer is longer than {_MOST_BYTES:,} bytes")
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            yield line.rstrip("\r")
    yield rest


async def _read(response: Any) -> bytes:
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > _MOST_BYTES:
            raise ModelUnavailable(f"the answer is longer than {_MOST_BYTES:,} bytes")
    return bytes(body)


def _parsed(body: bytes) -> Any:
    """Return the JSON of a body, or its text where it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body[:2000].decode("utf-8", "replace")
