"""The transcript of an investigation: what an analyzer thought, asked and read, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from pydantic import Field

from pytest_otel_diag.model.base import Finite, Model, Nanos
from pytest_otel_diag.model.diagnosis import Usage

TranscriptKind: TypeAlias = Literal[
    "message", "tool_call", "tool_result", "usage", "hypothesis", "output", "note"
]
"""What an entry is: a message to or from a model, a call of a tool, its result as it was sent, the tokens and
the cost of a call of a model, a hypothesis, output of a process, or a remark."""


class TranscriptEntry(Model):
    """One step of a transcript; a line of ``transcripts/<session_id>.jsonl``.

    ``step`` counts from 1. ``at_s`` are the wall seconds since the investigation began, ``wall_ns`` is this
    machine's time. ``content`` is JSON.
    """

    step: int = Field(ge=1)
    at_s: Finite
    wall_ns: Nanos
    kind: TranscriptKind
    content: Mapping[str, Any] = Field(default_factory=dict)


class TranscriptSummary(Model):
    """How much of a transcript was kept; ``dropped`` are the entries beyond the limits of a session.

    ``usage`` is the sum of its entries of the kind ``usage``: what the analyzer used even without an answer.
    """

    entries: int = 0
    dropped: int = 0
    usage: Usage = Usage()
