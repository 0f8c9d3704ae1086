"""Answers of the OpenAI chat API, whole or streamed, as replies; and its errors, by what they mean."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, cast, get_args

from pytest_otel_diag.analyzers.investigator.chat_model import (
    ChatReply,
    ChatRequest,
    ContextOverflow,
    Finish,
    ModelUnavailable,
    ReplyUsage,
    ToolCall,
    ToolsUnsupported,
    TransientFailure,
)

_WORDS = 500
"""Characters of a provider's error that are repeated."""

_CHARS_A_TOKEN = 4
"""For usage that is not reported: the usual estimate of providers for English text."""

_MOST_TOKENS = 1_000_000_000
"""No model reads or writes as much in one request; larger counts are no report."""

_SENT_BACK = ("reasoning_content", "reasoning_details", "reasoning")
"""Fields of an assistant's turn with tool calls that providers of reasoning models want to see again."""

_OVERFLOW = re.compile(
    r"context[ _-]?(?:length|window|size)|maximum (?:prompt|input) length|(?:prompt|input) is too long"
    r"|too many (?:input )?tokens|reduce the length",
    re.IGNORECASE,
)
_NO_TOOLS = re.compile(
    r"tool.{0,80}(?:not support|unsupported|not allowed|requires? --|unrecognized)"
    r"|(?:not support|unsupported|unrecognized|unknown).{0,80}(?:tool|function call)",
    re.IGNORECASE | re.DOTALL,
)
_FILTERED = re.compile(r"content[ _-]?(?:filter|policy)|safety system", re.IGNORECASE)
_NO_CREDIT = re.compile(
    r"insufficient_quota|exceeded your current quota|billing|credit balance", re.IGNORECASE
)
_LATER = {408, 409, 425, 429}
_TOOK_THE_REQUEST = {408, 504, 524}
"""Statuses after which the model may have worked, so that the provider may charge for it."""


def reply_of(answer: Any, request: ChatRequest) -> ChatReply:
    """Return the reply in the body of an answer; raises ModelUnavailable for another shape."""
    with _shape_of("answer", answer):
        choice = answer["choices"][0]
        message = choice["message"]
        return _reply(message, choice.get("finish_reason"), answer.get("usage"), request, answer.get("model"))


@contextmanager
def _shape_of(what: str, value: Any) -> Iterator[None]:
    """Raise ModelUnavailable for what code meets in JSON of another shape than the API's."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise ModelUnavailable(
            f"the {what} is not one of the chat API ({type(error).__name__}: {error}): {shortened(value)}"
        ) from error


class StreamedReply:
    """Puts the chunks of a stream together; ``ended`` once the provider has said that it is complete."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._texts: dict[str, list[str]] = {}
        self._details: list[Any] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._finish: str | None = None
        self._usage: Any = None
        self._model: Any = None
        self._filtered: ChatReply | None = None
        self.ended = False

    def line(self, line: str) -> None:
        """Read one line of the event stream; raises what :func:`failure_of` returns for an error in it."""
        if not line.startswith("data:"):
            return
        data = line[len("data:") :].strip()
        if data == "[DONE]":
            self.ended = True
            return
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise TransientFailure(
                f"a broken chunk in the stream: {shortened(data)}", billable=True
            ) from error
        if not isinstance(chunk, Mapping):
            raise ModelUnavailable(f"a chunk of the stream is no object: {shortened(data)}")
        if chunk.get("error"):
            found = failure_of(_status_in(chunk), chunk, {}, self._request)
            if isinstance(found, Exception):
                raise found
            self._filtered, self.ended = found, True
        with _shape_of("chunk", chunk):
            self._chunk(chunk)

    def reply(self) -> ChatReply:
        """Return the reply; raises TransientFailure when the stream broke off."""
        if not self.ended:
            got = len(self._text("content"))
            raise TransientFailure(
                f"the stream broke off after {got} characters and {len(self._calls)} tool calls",
                billable=True,
            )
        if self._filtered is not None:
            return self._filtered
        message: dict[str, Any] = {name: "".join(parts) for name, parts in self._texts.items()}
        message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        if self._details:
            message["reasoning_details"] = self._details
        with _shape_of("stream", message):
            return _reply(message, self._finish, self._usage, self._request, self._model)

    def _chunk(self, chunk: Mapping[str, Any]) -> None:
        self._usage = chunk.get("usage") or self._usage
        self._model = chunk.get("model") or self._model
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            for name in ("content", "refusal", "reasoning_content", "reasoning"):
                if isinstance(delta.get(name), str):
                    self._texts.setdefault(name, []).append(delta[name])
            self._details += delta.get("reasoning_details") or ()
            for call in delta.get("tool_calls") or ():
                self._call(call)
            if choice.get("finish_reason"):
                self._finish, self.ended = choice["finish_reason"], True

    def _call(self, part: Mapping[str, Any]) -> None:
        """Add a part of a tool call; servers that send whole calls may leave the index out."""
        index = part.get("index")
        if index is None:
            index = len(self._calls) if part.get("id") else max(len(self._calls) - 1, 0)
        call = self._calls.setdefault(int(index), {"id": "", "function": {"name": "", "arguments": ""}})
        function = part.get("function") or {}
        call["id"] = part.get("id") or call["id"]
        call["function"]["name"] += function.get("name") or ""
        arguments = function.get("arguments") or ""
        call["function"]["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)

    def _text(self, name: str) -> str:
        return "".join(self._texts.get(name, ()))


def failure_of(
    status: int, body: Any, headers: Mapping[str, str], request: ChatRequest
) -> Exception | ChatReply:
    """Return what an answer with an error means: an exception of the port, or a refusal as a reply.

    Statuses of wrong keys and addresses are left to the caller, who knows their names.
    """
    words = words_of(status, body)
    if status == 413 or (status not in _LATER and _OVERFLOW.search(words)):
        return ContextOverflow(words)
    if request.tools and status not in _LATER and _NO_TOOLS.search(words):
        return ToolsUnsupported(words)
    if status in _LATER or status >= 500:
        if _NO_CREDIT.search(words):
            return ModelUnavailable(words)
        return TransientFailure(
            words,
            retry_after_s=retry_after_s(headers),
            billable=status in _TOOK_THE_REQUEST,
            rate_limited=status == 429,
        )
    if _FILTERED.search(words):
        message = {"role": "assistant", "content": ""}
        return ChatReply(message=message, finish="content_filter", refusal=words)
    return ModelUnavailable(words)


def words_of(status: int, body: Any) -> str:
    """Return the provider's words: status, code and message of an error."""
    found = body.get("error", body) if isinstance(body, Mapping) else body
    if isinstance(found, Mapping):
        message = found.get("message") or found.get("detail") or shortened(found)
        kind = found.get("code") or found.get("type")
        found = f"{kind}: {message}" if kind and kind != status else message
    return f"{status}: {shortened(found)}"


def shortened(value: Any) -> str:
    """Return a value as one line of at most 500 characters."""
    text = " ".join((value if isinstance(value, str) else json.dumps(value, default=str)).split())
    return text if len(text) <= _WORDS else f"{text[:_WORDS]}…"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the headers ask to wait; a date counts from the answer's own Date."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            value = float(headers.get(name, "")) * scale
        except ValueError:
            continue
        if math.isfinite(value) and value >= 0:
            return value
    try:
        until = parsedate_to_datetime(headers["retry-after"])
        return max(0.0, (until - parsedate_to_datetime(headers["date"])).total_seconds())
    except (KeyError, ValueError, TypeError):
        return None


def _status_in(chunk: Mapping[str, Any]) -> int:
    """Return the status of an error within a stream; without one the stream may succeed another time."""
    error = chunk["error"]
    code = str(error.get("code")) if isinstance(error, Mapping) else ""
    return int(code) if re.fullmatch("[45][0-9]{2}", code) else 502


def _reply(
    message: Mapping[str, Any], finish: Any, usage: Any, request: ChatRequest, model: Any
) -> ChatReply:
    content = _text_of(message.get("content"))
    calls = tuple(_calls(message.get("tool_calls") or ()))
    reasoning = _text_of(message.get("reasoning_content") or message.get("reasoning"))
    resent: dict[str, Any] = {"role": "assistant", "content": content}
    if calls:
        resent["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
        resent |= {name: message[name] for name in _SENT_BACK if message.get(name)}
    return ChatReply(
        message=resent,
        content=content,
        tool_calls=calls,
        finish=_finish(finish, calls),
        usage=_usage(usage, request, len(content) + len(reasoning) + sum(len(c.arguments) for c in calls)),
        refusal=_text_of(message.get("refusal")),
        reasoning=reasoning,
        model=str(model or ""),
    )


def _text_of(content: Any) -> str:
    """Return a content as text; lists of parts are joined."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return ""


def _calls(calls: Iterable[Mapping[str, Any]]) -> Iterable[ToolCall]:
    for number, call in enumerate(calls, 1):
        function = call["function"]
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
        yield ToolCall(str(call.get("id") or f"call_{number}"), str(function.get("name") or ""), text)


def _finish(finish: Any, calls: tuple[ToolCall, ...]) -> Finish:
    if calls and finish != "length":
        return "tool_calls"
    return cast("Finish", finish) if finish in get_args(Finish) and finish != "tool_calls" else "stop"


def _usage(usage: Any, request: ChatRequest, output_chars: int) -> ReplyUsage:
    """Return the reported usage, or an estimate of four characters a token where a number cannot be one."""
    read, written = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if not read or written is None:
        sent = len(json.dumps([*request.messages, *request.tools], ensure_ascii=False))
        return ReplyUsage(
            input_tokens=sent // _CHARS_A_TOKEN,
            output_tokens=math.ceil(output_chars / _CHARS_A_TOKEN),
            reported=False,
        )
    return ReplyUsage(
        input_tokens=read,
        output_tokens=written,
        cached_tokens=min(read, _count(usage.get("prompt_tokens_details"), "cached_tokens") or 0),
        reasoning_tokens=min(
            written, _count(usage.get("completion_tokens_details"), "reasoning_tokens") or 0
        ),
    )


def _count(counts: Any, name: str) -> int | None:
    """Return a number of tokens; None where there is none that a request could have used."""
    value = counts.get(name, 0) if isinstance(counts, Mapping) else None
    return int(value) if isinstance(value, int | float) and 0 <= value <= _MOST_TOKENS else None
