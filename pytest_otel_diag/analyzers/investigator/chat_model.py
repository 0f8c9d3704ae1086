"""The port to a chat model: one request, one reply, and what can go wrong between them.

Messages, tools and tool calls have the shape of the OpenAI chat API, which clients of every provider
understand. An implementation makes exactly one attempt a call. What may succeed later raises
:class:`TransientFailure`; :func:`.retries.complete` waits and tries again, within given limits.
"""

from __future__ import annotations

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
]

Finish = Literal["stop", "tool_calls", "length", "content_filter", "cut"]
"""Why a reply ended: complete, with tool calls, at the limit of output tokens, by a filter of the provider,
or because the connection broke before the reply was complete."""


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
    """

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    max_output_tokens: int = 4096
    temperature: float | None = None
    seed: int | None = None
    timeout_s: float = 120.0


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
    charge for the attempt, because it took the request and did not refuse it.
    """

    def __init__(self, words: str, *, retry_after_s: float | None = None, billable: bool = False) -> None:
        super().__init__(words)
        self.retry_after_s = retry_after_s
        self.billable = billable


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
