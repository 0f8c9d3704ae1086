"""Models of every provider that litellm knows, as a chat model."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from pytest_otel_diag.analyzers.investigator.chat_model import (
    ChatReply,
    ChatRequest,
    ContextOverflow,
    ToolsUnsupported,
    TransientFailure,
)
from pytest_otel_diag.analyzers.investigator.litellm_door import DOOR, LitellmDoor, installed_version
from pytest_otel_diag.analyzers.investigator.model_options import ModelOptions
from pytest_otel_diag.analyzers.investigator.openai_wire import failure_of, reply_of, shortened
from pytest_otel_diag.daemon import in_daemon
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.secret import cleaned, masked

_LONG_PROMPT = 128_000
"""Tokens from which providers may charge more; the tables name several thresholds, this is the smallest."""

_SENT_BACK = ("reasoning_content", "thinking_blocks")
"""Fields of an assistant's turn with tool calls that providers check, signatures of reasoning among them."""
_SIGNATURES = "provider_specific_fields"
_NOT_CONNECTED = {"ConnectError", "ConnectTimeout", "ClientConnectorError", "ProxyError"}
_ANSWERED = "HTTPStatusError"
"""Errors of HTTP clients below litellm: it turns a lost connection into the status 500 of nobody."""
_PREFIXES = re.compile(r"^(?:litellm\.)?(?:\w+(?:Error|Exception)(?:: | - ))*")
_NO_KEY = re.compile("missing credentials|api[_ -]?key", re.IGNORECASE)


class LitellmModel:
    """One model by its name for litellm, such as ``anthropic/claude-sonnet-4-5``.

    litellm is imported with the first use, which takes seconds; :meth:`open` does so in a thread.
    """

    def __init__(
        self, name: str, *, options: ModelOptions | None = None, door: LitellmDoor | None = None
    ) -> None:
        self.name = name
        self._options = options or ModelOptions()
        self._door = door or DOOR
        self._version = installed_version()

    @property
    def supports_tools(self) -> bool | None:
        """What the option ``tools`` says, else the table of models; None for a model that is not in it."""
        chosen = {"native": True, "text": False}.get(self._options.tools)
        if chosen is not None or not self._door.loaded:
            return chosen
        info = self._info()
        return None if info is None else bool(info.get("supports_function_calling"))

    def describe(self) -> Mapping[str, str]:
        """Return name, parameters and the version of litellm."""
        return {"model": self.name, "litellm": self._version, **self._options.describe()}

    async def open(self) -> None:
        """Import litellm and check that it knows a provider for the name; raises ConfigurationError."""
        await in_daemon(self._check, "otel-diag litellm import")

    def worst_case_cost_usd(self, request: ChatRequest) -> float | None:
        """Return the price of all tokens that the request may use; None where it is not known."""
        sent, most = request.input_tokens_bound(), request.max_output_tokens
        if self._options.price is not None:
            return self._options.price.of(sent, most)
        info = self._info()
        if info is None:
            return None
        into = _dearest(info, ("input_cost_per_token", "cache_creation_input_token_cost"), sent)
        out = _dearest(info, ("output_cost_per_token", "output_cost_per_reasoning_token"), sent)
        return None if into is None or out is None else sent * into + most * out

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Make one attempt; see :meth:`.ChatModel.complete`."""
        if not self._door.loaded:
            await self.open()
        try:
            async with asyncio.timeout(request.timeout_s):
                answer = await self._door.run(self._ask(request))
        except TimeoutError as error:
            raise TransientFailure(f"no answer within {request.timeout_s:g} s", billable=True) from error
        except (TransientFailure, ConfigurationError):
            raise
        except Exception as error:
            return self._failed(error, request)
        return self._read(answer, request)

    async def close(self) -> None:
        """Keep connections, which all models of the process share and the provider ends."""

    def _check(self) -> None:
        litellm = self._door.module()
        try:
            litellm.get_llm_provider(self.name, api_base=self._options.api_base)
        except Exception as error:
            raise ConfigurationError(
                f"litellm knows no provider for the model {self.name!r}; write llm:PROVIDER/MODEL, for "
                "example llm:openai/gpt-5-mini or llm:ollama/qwen3, or chat:MODEL@URL for an address"
            ) from error

    async def _ask(self, request: ChatRequest) -> Any:
        litellm = self._door.module()
        answer = await litellm.acompletion(**self._arguments(request))
        if not self._options.stream:
            return answer
        chunks = [chunk async for chunk in answer]
        if not any(choice.finish_reason for chunk in chunks for choice in chunk.choices):
            raise TransientFailure(f"the stream broke off after {len(chunks)} chunks", billable=True)
        return litellm.stream_chunk_builder(chunks, messages=list(request.messages))

    def _arguments(self, request: ChatRequest) -> dict[str, Any]:
        given: dict[str, Any] = {
            "model": self.name,
            "messages": [dict(message) for message in request.messages],
            "max_tokens": request.max_output_tokens,
            "timeout": request.timeout_s,
            # Attempts are counted by the caller, who pays for them.
            "num_retries": 0,
            "max_retries": 0,
            "no-log": True,
        }
        if request.tools:
            given["tools"] = [dict(tool) for tool in request.tools]
        optional = {
            "temperature": request.temperature,
            "seed": request.seed,
            "api_base": self._options.api_base,
            "reasoning_effort": self._options.reasoning_effort,
        }
        given |= {name: value for name, value in optional.items() if value is not None}
        if self._options.stream:
            given |= {"stream": True, "stream_options": {"include_usage": True}}
        return given

    def _read(self, answer: Any, request: ChatRequest) -> ChatReply:
        dumped = answer.model_dump()
        reply = reply_of(dumped, request)
        message = dict(reply.message)
        if reply.tool_calls:
            original = dumped["choices"][0]["message"]
            message |= {name: original[name] for name in _SENT_BACK if original.get(name)}
            _keep_signatures(message, original)
        usage = dataclasses.replace(reply.usage, cost_usd=self._cost_usd(answer, reply))
        return dataclasses.replace(reply, message=message, usage=usage)

    def _cost_usd(self, answer: Any, reply: ChatReply) -> float | None:
        usage = reply.usage
        if self._options.price is not None:
            return self._options.price.of(usage.input_tokens, usage.output_tokens)
        if self._info() is None:
            return None
        try:
            return float(self._door.module().completion_cost(completion_response=answer, model=self.name))
        except Exception:  # it raises whatever its tables lead to; then the price is not known
            return None

    def _info(self) -> Mapping[str, Any] | None:
        """Return what litellm's table says of the model, None for one that is not in it."""
        try:
            info: Mapping[str, Any] = self._door.module().get_model_info(self.name)
        except ConfigurationError:
            raise
        except Exception:  # its error for an unknown model is a bare Exception
            return None
        return info

    def _failed(self, error: Exception, request: ChatRequest) -> ChatReply:
        """Return a refusal as a reply; raises for every other error of litellm."""
        kinds = self._door.module().exceptions
        words = shortened(cleaned(_words(error)))
        status = int(getattr(error, "status_code", 0) or 500)
        if isinstance(error, kinds.ContextWindowExceededError):
            raise ContextOverflow(words) from error
        if isinstance(error, kinds.ContentPolicyViolationError):
            message = {"role": "assistant", "content": ""}
            return ChatReply(message=message, finish="content_filter", refusal=words)
        missing = self._missing_keys()
        if status in {401, 403} or (missing and status == 500 and _NO_KEY.search(words)):
            raise ConfigurationError(self._no_key(words, missing)) from error
        if isinstance(error, kinds.UnsupportedParamsError):
            if request.tools and "tools" in words:
                raise ToolsUnsupported(words) from error
            raise ConfigurationError(f"the model {self.name} does not take a parameter: {words}") from error
        if isinstance(error, kinds.NotFoundError):
            raise ConfigurationError(
                f"the provider does not know the model {self.name!r}: {words}"
            ) from error
        if isinstance(error, kinds.Timeout):
            raise TransientFailure(words, billable=True) from error
        found = failure_of(status, words, _headers(error), request)
        if isinstance(found, TransientFailure):
            beneath = {type(each).__name__ for each in _chain(error)}
            found.billable |= _ANSWERED not in beneath and not beneath & _NOT_CONNECTED
        if isinstance(found, Exception):
            raise found from error
        return found

    def _missing_keys(self) -> list[str]:
        """Return the variables that the provider needs, of which none is set."""
        try:
            found = self._door.module().validate_environment(self.name)
        except Exception:  # not all providers are in its list
            return []
        return [] if found["keys_in_environment"] else list(found["missing_keys"])

    def _no_key(self, words: str, missing: list[str]) -> str:
        if missing:
            return f"the model {self.name} needs a key; set {' or '.join(missing)} ({words})"
        provider = self.name.partition("/")[0]
        return f"the provider of {self.name} refuses the key that the variable of {provider} holds ({words})"


def _words(error: Exception) -> str:
    """Return the provider's words without litellm's own prefixes, or why it was not reached."""
    text = str(getattr(error, "message", "") or error).partition("Traceback (most recent call last)")[0]
    text = _PREFIXES.sub("", text).strip()
    lost = next((each for each in _chain(error) if type(each).__name__ in _NOT_CONNECTED), None)
    return masked(text if lost is None else str(lost))


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error and those that it was raised over."""
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found


def _headers(error: Exception) -> Mapping[str, str]:
    response = getattr(error, "response", None)
    own = getattr(error, "litellm_response_headers", None)
    return own or getattr(response, "headers", None) or {}


def _dearest(info: Mapping[str, Any], names: tuple[str, ...], sent: int) -> float | None:
    """Return the highest price a token among those that a standard request of this size may have."""
    prices = [
        float(price)
        for key, price in info.items()
        if isinstance(price, int | float)
        and (key in names or (sent >= _LONG_PROMPT and _is_long(key, names)))
    ]
    return max(prices) if isinstance(info.get(names[0]), int | float) else None


def _is_long(key: str, names: tuple[str, ...]) -> bool:
    return any(key.startswith(f"{name}_above_") and key.endswith("k_tokens") for name in names)


def _keep_signatures(message: dict[str, Any], original: Mapping[str, Any]) -> None:
    """Add the signatures of reasoning that litellm passes on beside the turn and beside its tool calls."""
    fields = original.get(_SIGNATURES) or {}
    if kept := {name: value for name, value in fields.items() if "signature" in name and value}:
        message[_SIGNATURES] = kept
    calls = zip(message.get("tool_calls", ()), original.get("tool_calls") or (), strict=False)
    message["tool_calls"] = [
        {**call, _SIGNATURES: found[_SIGNATURES]} if found.get(_SIGNATURES) else call for call, found in calls
    ]
