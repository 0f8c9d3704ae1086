"""The part of a request that is the same in every run, and what differs from run to run.

Two requests are the same to a tape if they differ only in ids and times that a run invents: ids of tool
calls, traces, spans and sessions, and instants. Each is replaced by its kind and the order in which it first
appears, so equal values stay equal. A reply is kept with the same placeholders, and gets the values of the
request that it answers when it is played back.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pytest_otel_diag.analyzers.investigator.chat_model import ChatRequest
from pytest_otel_diag.secret import cleaned

_VOLATILE = re.compile(
    r"(?:(?<![\w.])|(?<=\\[nrt]))(?:"
    r"(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|\+00:00)?)"
    r"|(?P<uuid>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
    r"|(?P<ns>1[4-9]\d{17})"
    r"|(?P<trace>[0-9a-f]{32})"
    r"|(?P<span>[0-9a-f]{16})"
    r")(?!\w|\.\d)"
)
"""Digits behind a decimal point are a measurement, not an id, however many there are. An id may follow a
line break that JSON within a text has escaped."""

_PLACEHOLDER = re.compile(r"⟦(?:time|uuid|ns|trace|span|call)\d+⟧")


class Volatile:
    """The values of one request that a run invents, by the order of their first appearance."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def call_id(self, value: str) -> str:
        """Return the placeholder of the id of a tool call."""
        return self._name("call", value)

    def masked(self, text: str) -> str:
        """Return the text with placeholders, for what is known and what is new."""
        return _VOLATILE.sub(lambda found: self._name(str(found.lastgroup), found.group()), cleaned(text))

    def known(self, text: str) -> str:
        """Return the text with placeholders for the values that this request has."""
        return _VOLATILE.sub(lambda found: self._names.get(found.group(), found.group()), cleaned(text))

    def filled(self, text: str) -> str:
        """Return the text with the values of this request in place of placeholders."""
        values = {name: value for value, name in self._names.items()}
        return _PLACEHOLDER.sub(lambda found: values.get(found.group(), found.group()), text)

    def _name(self, kind: str, value: str) -> str:
        if value not in self._names:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._names[value] = f"⟦{kind}{self._counts[kind]}⟧"
        return self._names[value]


class TapedRequest:
    """A request as a tape knows it: ``messages`` and ``tools`` as masked JSON, ``key`` their hash."""

    def __init__(self, model: str, request: ChatRequest) -> None:
        self.volatile = Volatile()
        self.messages = tuple(self._text(self._message(message)) for message in request.messages)
        self.tools = self._text(list(request.tools))
        self.parameters = {
            "model": model,
            "max_output_tokens": request.max_output_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        self.key = digest(*self.messages, self.tools, json.dumps(self.parameters, sort_keys=True))

    def _message(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        calls = [
            {**call, "id": self.volatile.call_id(str(call["id"]))} for call in message.get("tool_calls") or ()
        ]
        named = {**message, "tool_calls": calls} if calls else dict(message)
        if "tool_call_id" in named:
            named["tool_call_id"] = self.volatile.call_id(str(named["tool_call_id"]))
        return named

    def _text(self, value: Any) -> str:
        masked = strings_changed(value, self.volatile.masked)
        return json.dumps(masked, sort_keys=True, ensure_ascii=False)


def digest(*texts: str) -> str:
    """Return the SHA-256 of texts, each with its length."""
    whole = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()


def strings_changed(value: Any, change: Any) -> Any:
    """Return JSON with *change* applied to each of its texts."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: strings_changed(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strings_changed(item, change) for item in value]
    return value


def difference(
    wanted: TapedRequest, recorded: Iterable[tuple[tuple[str, ...], str, Mapping[str, Any]]]
) -> str:
    """Return how the nearest recorded request (messages, tools, parameters) differs, in a sentence."""
    best: tuple[int, tuple[str, ...], str, Mapping[str, Any]] | None = None
    for messages, tools, parameters in recorded:
        same = _common(wanted.messages, messages)
        if best is None or same > best[0]:
            best = same, messages, tools, parameters
    if best is None:
        return "the tape holds no request"
    same, messages, tools, parameters = best
    if same < max(len(messages), len(wanted.messages)):
        return _message_difference(same, wanted.messages, messages)
    changed = [name for name, value in wanted.parameters.items() if parameters.get(name) != value]
    if changed:
        parts = (f"{name} is {wanted.parameters[name]}, was {parameters.get(name)}" for name in changed)
        return f"the nearest recorded request has other parameters: {', '.join(parts)}"
    return f"the nearest recorded request offers other tools: {_excerpts(wanted.tools, tools)}"


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    return next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _message_difference(at: int, now: tuple[str, ...], then: tuple[str, ...]) -> str:
    where = f"the nearest recorded request is equal up to message {at}"
    if at >= len(now):
        return f"{where}, and goes on with {len(then) - at} more"
    role = json.loads(now[at]).get("role", "?")
    if at >= len(then):
        return f"{where} and ends there; now message {at + 1} ({role}) follows: {_shown(now[at], 0)}"
    return f"{where}; message {at + 1} ({role}) differs: {_excerpts(now[at], then[at])}"


def _excerpts(now: str, then: str) -> str:
    at = next(
        (i for i, (a, b) in enumerate(zip(now, then, strict=False)) if a != b), min(len(now), len(then))
    )
    return f"recorded {_shown(then, at)}, now {_shown(now, at)}"


def _shown(text: str, at: int) -> str:
    start = max(0, at - 40)
    part = text[start : at + 80]
    return f"{'…' if start else ''}{part}{'…' if at + 80 < len(text) else ''}"
