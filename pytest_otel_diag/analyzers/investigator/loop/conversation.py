"""The messages of an investigation, what they weigh, and how they shrink when they no longer fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.analyzers.investigator.chat_model import ChatRequest, ReplyUsage, most_tokens

_LEVELS = ((2_000, 600, 2), (2_000, 600, 0), (400, 300, 2), (200, 80, 0))
"""Reductions, mildest first: results longer than this are cut to so many characters, but not the last few."""


_NOTE_BYTES = 200
"""More than a reduction adds to a result."""
_MOST_BYTES_A_TOKEN = 8
"""Texts of known tokenizers have fewer."""
_BYTES_A_TOKEN = 3
"""Before the first count: results of tools are mostly numbers and ids."""


@dataclass
class _Entry:
    message: Mapping[str, Any]
    result: bool


@dataclass(frozen=True)
class Reduction:
    """How many results were shortened, and by how many characters."""

    results: int
    characters: int


class Conversation:
    """Messages in order; results of tools are the part that may shrink."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._counted = 0
        self._tokens: int | None = None
        self._tokens_a_byte = 1 / _BYTES_A_TOKEN
        self._reductions = 0

    @property
    def messages(self) -> tuple[Mapping[str, Any], ...]:
        """The messages as the next request sends them."""
        return tuple(entry.message for entry in self._entries)

    def say(self, role: str, content: str) -> None:
        """Append a message of *role*."""
        self._entries.append(_Entry({"role": role, "content": content}, result=False))

    def add(self, message: Mapping[str, Any]) -> None:
        """Append the turn of the model."""
        self._entries.append(_Entry(message, result=False))

    def add_results(self, messages: Iterable[Mapping[str, Any]]) -> None:
        """Append results of tools."""
        self._entries.extend(_Entry(message, result=True) for message in messages)

    def counted(self, usage: ReplyUsage, request: ChatRequest) -> str:
        """Note how many tokens the messages so far have, as the provider counted those of the request.

        Returns a remark when there are too few for the messages: some servers cut them without an error.
        """
        if not usage.reported or not usage.input_tokens:
            return ""
        size = most_tokens(*request.messages, *request.tools)
        self._tokens_a_byte = usage.input_tokens / size
        if usage.input_tokens * _MOST_BYTES_A_TOKEN < most_tokens(*request.messages):
            self._tokens = None
            return (
                f"the server counted {usage.input_tokens:,} tokens in {size:,} bytes: its context is smaller "
                "and it cuts messages; raise it (Ollama: num_ctx), or set context_tokens"
            )
        self._tokens, self._counted = usage.input_tokens, len(self._entries)
        return ""

    def tokens_bound(self, tools: Iterable[Mapping[str, Any]]) -> int:
        """Return an upper bound of the tokens of messages and tools: those counted, and the rest's bytes."""
        if self._tokens is None:
            return most_tokens(*self.messages, *tools)
        return self._tokens + most_tokens(*(entry.message for entry in self._entries[self._counted :]))

    def tokens_estimate(self, tools: Iterable[Mapping[str, Any]]) -> int:
        """Return about how many tokens messages and tools have, by the last count."""
        return round(most_tokens(*self.messages, *tools) * self._tokens_a_byte)

    def reduce(self) -> Reduction | None:
        """Shorten results of tools; None when nothing is left to shorten."""
        while self._reductions < len(_LEVELS):
            longest, characters, spared = _LEVELS[self._reductions]
            self._reductions += 1
            results = [entry for entry in self._entries if entry.result]
            older = results[: max(len(results) - spared, 0)]
            long = [entry for entry in older if len(entry.message["content"]) > longest]
            saved = [_shorten(entry, characters) for entry in long]
            if saved:
                if self._tokens is not None:
                    self._tokens += _NOTE_BYTES * len(saved)
                return Reduction(len(saved), sum(saved))
        return None

    def grown(self) -> None:
        """Note that the last reduction was enough, so that the next overflow begins with older results."""
        self._reductions = 0


def _shorten(entry: _Entry, characters: int) -> int:
    """Shorten a result in place; return by how many characters."""
    content = entry.message["content"]
    kept = (
        f"{content[:characters]}… ({len(content) - characters} characters were dropped because the context "
        "is full; repeat the call to see them)"
    )
    entry.message = {**entry.message, "content": kept}
    return len(content) - len(kept)
