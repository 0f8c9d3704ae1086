"""The port to a chat model: one request, one reply, and what can go wrong between them.

Messages, tools and tool calls have the shape of the OpenAI chat API, which clients of every provider
understand. An implementation makes exactly one attempt a call. What may succeed later raises
:class:`TransientFailure`; :func:`.retries.complete` waits and tries again, within given limits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pytest_otel_diag.errors import ModelUnavailable

__all__ = [
    "ChatModel",
    "ChatReply",
    "ChatRequest",
    "ContextOverflow",
    "Finish",
    "ModelUnavailable",
    "ReplyUsage",
    "ToolCall",
    "ToolsUnsupported",
    "TransientFailure",
    "most_tokens",
]

Finish = Literal["stop", "tool_calls", "length", "content_filter"]
"""Why a reply ended: complete, with tool calls, at the limit of output tokens, or by the provider's filter.
A connection that breaks before the end is a :class:`TransientFailure`, whatever arrived."""

_TOKENS_A_MESSAGE = 16
"""More than the chat templates of known models add around a message."""


@dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for; ``arguments`` is the text that it wrote, which may be broken JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class ChatRequest:
    """What the model gets.

    ``messages`` and ``tools`` have OpenAI's shape; without ``tools`` the model cannot call any. ``timeout_s``
    bounds one attempt. ``temperature`` and ``seed`` are left to the provider where they are None.
    ``most_input_tokens`` is the caller's upper bound of the input tokens, where it knows a better one than
    :func:`most_tokens` of the texts.
    """

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    max_output_tokens: int = 4096
    temperature: float | None = None
    seed: int | None = None
    timeout_s: float = 120.0
    most_input_tokens: int | None = None

    def input_tokens_bound(self) -> int:
        """Return an upper bound of the input tokens, for the worst case of the cost."""
        if self.most_input_tokens is not None:
            return self.most_input_tokens
        return most_tokens(*self.messages, *self.tools)


def most_tokens(*parts: Mapping[str, Any]) -> int:
    """Return an upper bound of the tokens of messages and tools.

    Tokenizers of chat models work on bytes: a token has at least one, usually three or four.
    """
    size = sum(len(json.dumps(part, ensure_ascii=False).encode("utf-8", "surrogatepass")) for part in parts)
    return size + _TOKENS_A_MESSAGE * len(parts)


@dataclass(frozen=True)
class ReplyUsage:
    """Tokens of one call.

    ``cached_tokens`` are among the input tokens, ``reasoning_tokens`` among the output tokens.
    ``cost_usd`` is None where the price is not known. ``reported`` is False where the provider states no
    usage, and the counts are estimates.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None
    reported: bool = True


@dataclass(frozen=True)
class ChatReply:
    """What the model answered.

    ``message`` is the assistant's turn as the next request repeats it, with what the provider wants back,
    such as signatures of its reasoning. ``refusal`` is the text of a refusal, also of one by the provider's
    filter. ``model`` is the model that has answered, as the provider says.
    """

    message: Mapping[str, Any]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Finish = "stop"
    usage: ReplyUsage = field(default_factory=ReplyUsage)
    refusal: str = ""
    reasoning: str = ""
    model: str = ""


class TransientFailure(Exception):
    """One attempt failed and another may succeed: rate limit, overload, timeout, lost connection.

    The text is the provider's. ``retry_after_s`` is how long it asks to wait. ``billable`` says that it may
    charge for the attempt, because it took the request and did not refuse it. ``rate_limited`` says that it
    refused because of the number of requests, so that parallel sessions should wait as well.
    """

    def __init__(
        self,
        words: str,
        *,
        retry_after_s: float | None = None,
        billable: bool = False,
        rate_limited: bool = False,
    ) -> None:
        super().__init__(words)
        self.retry_after_s = retry_after_s
        self.billable = billable
        self.rate_limited = rate_limited


class ContextOverflow(Exception):
    """The messages do not fit into the model's context; the text is the provider's."""


class ToolsUnsupported(Exception):
    """The model or its server takes no ``tools``; the text is the provider's."""


class ChatModel(Protocol):
    """A model behind an API. One object serves several event loops and threads at a time."""

    @property
    def name(self) -> str:
        """Name of the model, as the provider spells it."""
        ...

    @property
    def supports_tools(self) -> bool | None:
        """Whether the model calls tools natively; None where only trying shows."""
        ...

    def describe(self) -> Mapping[str, str]:
        """Return what makes two models alike: name, address without credentials, parameters, versions."""
        ...

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Make one attempt to get an answer.

        Raises TransientFailure, ContextOverflow and ToolsUnsupported; ModelUnavailable, with the provider's
        words, where another attempt does not help; ConfigurationError for what the user must change, such as
        a key. Where the provider's filter blocks the conversation, the reply is a refusal.
        """
        ...

    def worst_case_cost_usd(self, request: ChatRequest) -> float | None:
        """Return the most that the request may cost in US dollars, with all output tokens used.

        None where the price is not known.
        """
        ...

    async def close(self) -> None:
        """Release what the model holds; it may be used again."""
        ...
