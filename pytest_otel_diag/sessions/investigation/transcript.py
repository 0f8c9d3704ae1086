"""Takes the transcript of one investigation: bounds it, numbers its entries and writes each at once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, cast, get_args

from pytest_otel_diag.errors import OtelDiagError, nearest
from pytest_otel_diag.model.base import without_credentials
from pytest_otel_diag.model.diagnosis import Usage
from pytest_otel_diag.model.transcript import TranscriptEntry, TranscriptKind, TranscriptSummary
from pytest_otel_diag.sessions.settings import WallTime

_LOG = logging.getLogger(__name__)

MOST_ENTRIES = 5_000
MOST_BYTES = 20_000_000
"""Limits of one session's transcript, as JSON."""
MOST_ENTRY_CHARACTERS = 400_000
"""Size limit of one entry; longer ones are kept as the beginning of their text."""
_LONGEST_TEXT = 100_000
_DEEPEST = 50

_COUNTED = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "cost_usd")
_KINDS = get_args(TranscriptKind)


class BadEntry(OtelDiagError):
    """An entry of a transcript has a kind that does not exist, or no content that JSON can hold."""


def as_text(content: Mapping[str, Any]) -> str:
    """Return the content as JSON, in the process and thread that made it; raises BadEntry."""
    try:
        return json.dumps(dict(content), default=str, skipkeys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadEntry(f"the content of an entry cannot be written as JSON: {error}") from None


def checked_entry(kind: object, text: object) -> tuple[TranscriptKind, Mapping[str, Any]]:
    """Return kind and content of an entry as plain values; raises BadEntry."""
    if kind not in _KINDS:
        known = ", ".join(_KINDS)
        raise BadEntry(f"no entry of a transcript is a {kind!r}{nearest(str(kind), _KINDS)}; known: {known}")
    if not isinstance(text, str):
        raise BadEntry(f"the content of an entry must be JSON, not {type(text).__name__}")
    return cast("TranscriptKind", str(kind)), _content(str.__str__(text))


def _content(text: str) -> Mapping[str, Any]:
    try:
        # NaN and infinity are no JSON, so they are kept as their names.
        value = _clipped(json.loads(text, parse_constant=str), _DEEPEST)
    except (ValueError, RecursionError):
        value = text
    if len(text) <= MOST_ENTRY_CHARACTERS and isinstance(value, dict):
        return value
    kept = json.dumps(value)[:_LONGEST_TEXT] if isinstance(value, dict) else text[:_LONGEST_TEXT]
    return {"cut": kept, "characters": len(text)}


def _clipped(value: Any, depth: int) -> Any:
    """Return JSON with long texts cut, and what is nested too deep as text."""
    if isinstance(value, str):
        left_out = len(value) - _LONGEST_TEXT
        return value if left_out <= 0 else f"{value[:_LONGEST_TEXT]}… [{left_out} characters left out]"
    if isinstance(value, dict | list) and depth == 0:
        return "[nested too deep]"
    if isinstance(value, dict):
        return {key: _clipped(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_clipped(item, depth - 1) for item in value]
    return value


_MOST_COUNTED = 1e15
"""What an agent states beyond is no count; floats hold smaller ones exactly."""


def _with_call(usage: Usage, call: Mapping[str, Any]) -> Usage:
    """Return the usage with one more call of a model; what is no number in its entry counts as nothing."""
    added: dict[str, float] = {"prompts": usage.prompts + 1, "steps": usage.steps + 1}
    for name in _COUNTED:
        value = call.get(name)
        more = float(value) if isinstance(value, int | float) and 0 < value < _MOST_COUNTED else 0.0
        added[name] = getattr(usage, name) + (more if name == "cost_usd" else int(more))
    return usage.model_copy(update=added)


class SessionTranscript:
    """The transcript of one session; *write* stores an entry, and one that fails ends the transcript.

    The last entry that fits is a note that says that the rest was dropped.
    """

    def __init__(self, write: Callable[[TranscriptEntry], None] | None, wall: WallTime) -> None:
        self._write = write
        self._wall = wall
        self._started_s = wall.monotonic()
        self._entries = 0
        self._bytes = 0
        self._dropped = 0
        self._usage = Usage()

    @property
    def summary(self) -> TranscriptSummary | None:
        """How much was kept; None for a transcript that nobody keeps, or without entries."""
        if not self._entries:
            return None
        return TranscriptSummary(entries=self._entries, dropped=self._dropped, usage=self._usage)

    async def add(self, kind: str, content: Mapping[str, Any]) -> None:
        """Add an entry; raises BadEntry."""
        self.take(*checked_entry(kind, as_text(content)))

    def take(self, kind: TranscriptKind, content: Mapping[str, Any]) -> None:
        """Write a checked entry, or drop it beyond the limits."""
        if self._write is None:
            return
        if kind == "usage":
            self._usage = _with_call(self._usage, content)
        entry = self._entry(kind, content)
        size = len(entry.model_dump_json())
        if self._dropped or self._entries >= MOST_ENTRIES - 1 or self._bytes + size > MOST_BYTES:
            self._drop()
            return
        self._bytes += size
        self._store(entry)

    def _entry(self, kind: TranscriptKind, content: Mapping[str, Any]) -> TranscriptEntry:
        entry = TranscriptEntry(
            step=self._entries + 1,
            at_s=self._wall.monotonic() - self._started_s,
            wall_ns=self._wall.now_ns(),
            kind=kind,
            content=content,
        )
        return without_credentials(entry)

    def _drop(self) -> None:
        if not self._dropped:
            limits = f"{MOST_ENTRIES} entries and {MOST_BYTES / 1e6:g} MB"
            text = f"the transcript ends here: it may have {limits}; what follows was dropped"
            self._store(self._entry("note", {"text": text}))
        self._dropped += 1

    def _store(self, entry: TranscriptEntry) -> None:
        if self._write is None:
            return
        try:
            self._write(entry)
        except OSError as problem:
            _LOG.warning("the transcript of a session ends early, it cannot be written: %s", problem)
            self._write = None
            return
        self._entries += 1
