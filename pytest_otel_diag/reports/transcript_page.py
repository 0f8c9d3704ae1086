"""The transcript of a session, step by step: as HTML with an anchor for each step, and as text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_otel_diag.model.transcript import TranscriptEntry
from pytest_otel_diag.reports.markup import Markup, el
from pytest_otel_diag.scoring.text import clip, count, visible

STEPS_SHOWN = 400
"""Steps of one session that a page shows; the file of the transcript has all."""
_MOST_CHARS = 6_000
"""Characters of one step that a page shows."""
_OPEN_CHARS = 600
"""Longer results are folded."""
_HEAD_CHARS = 140

Part = tuple[str, str]
"""A label, empty for none, and a text."""


def step_anchor(session_id: str, step: int) -> str:
    """Return the anchor of a step of a session's transcript."""
    return f"{session_id}-step-{step}"


def transcript_markup(session_id: str, entries: Sequence[TranscriptEntry]) -> Markup:
    """Return the transcript as a folded part of a session's page; empty without entries."""
    if not entries:
        return Markup("")
    shown = [_step(session_id, entry) for entry in entries[:STEPS_SHOWN]]
    if len(entries) > STEPS_SHOWN:
        shown.append(el("p", f"and {len(entries) - STEPS_SHOWN} more steps in the file", class_="dim"))
    summary = el("summary", f"transcript: {count(len(entries), 'step')}")
    anchor = f"{session_id}-transcript"  # within the folded part, so that browsers open it
    file = el("p", f"transcripts/{session_id}.jsonl", class_="dim od-anchor", id=anchor)
    return el("details", summary, file, shown)


def transcript_text(entries: Iterable[TranscriptEntry]) -> str:
    """Return the transcript as text, long steps cut."""
    blocks = []
    for entry in entries:
        parts = (_cut(f"{label}: {text}" if label else text) for label, text in _parts(entry))
        blocks.append("\n".join([f"--- {entry.step}, {entry.at_s:.1f} s, {_head(entry)}", *parts]))
    return visible("\n".join([*blocks, ""]))  # terminals obey the escape sequences of a text file


def _step(session_id: str, entry: TranscriptEntry) -> Markup:
    anchor = step_anchor(session_id, entry.step)
    number = el("a", str(entry.step), href=f"#{anchor}", class_="dim")
    time = el("span", f"{entry.at_s:.1f} s", class_="dim")
    style = "od-step bad" if entry.content.get("error") else "od-step"
    what = el("span", _head(entry), class_="dim") if entry.kind == "usage" else el("strong", _head(entry))
    head = el("p", number, " ", time, " ", what)
    return el("div", head, [_part(*part) for part in _parts(entry)], id=anchor, class_=style)


def _part(label: str, text: str) -> Markup:
    shown = el("pre", _cut(text))
    if len(text) <= _OPEN_CHARS and not label:
        return shown
    title = f"{label or 'text'}, {len(text):,} characters: {clip(text[:_MOST_CHARS], _HEAD_CHARS)}"
    return el("details", el("summary", title, class_="dim"), shown)


def _cut(text: str) -> str:
    left_out = len(text) - _MOST_CHARS
    return text if left_out <= 0 else f"{text[:_MOST_CHARS]}\n… {left_out:,} characters more in the file"


def _head(entry: TranscriptEntry) -> str:
    """Return what the step is, in a few words."""
    content = entry.content
    name = content.get("name", "a tool")
    failed = ", an error" if content.get("error") else ""
    service = f": {content['service']}" if content.get("service") else ""
    heads = {
        "message": str(content.get("role", "message")),
        "tool_call": f"calls {name}",
        "tool_result": f"result of {name}{failed}",
        "hypothesis": f"hypothesis {content.get('status', '')}{service}",
        "output": str(content.get("stream", "output")),
    }
    return _usage(content) if entry.kind == "usage" else heads.get(entry.kind, entry.kind)


def _usage(content: Mapping[str, Any]) -> str:
    parts = [
        f"{_number(content, 'input_tokens'):,.0f} tokens read",
        f"{cached:,.0f} of them cached" if (cached := _number(content, "cached_tokens")) else "",
        f"{_number(content, 'output_tokens'):,.0f} written",
        f"{thought:,.0f} of them reasoning" if (thought := _number(content, "reasoning_tokens")) else "",
        f"{_number(content, 'cost_usd'):.4g} USD" if content.get("cost_usd") is not None else "",
        f"by {content['model']}" if content.get("model") else "",
    ]
    return ", ".join(part for part in parts if part)


def _number(content: Mapping[str, Any], name: str) -> float:
    value = content.get(name)
    try:
        return float(value) if isinstance(value, int | float) else 0.0
    except OverflowError:  # agents write what they like
        return math.inf


_KNOWN: Mapping[str, tuple[str, ...]] = {
    "message": ("role", "finish"),
    "tool_call": ("name", "id"),
    "tool_result": ("name", "id", "error"),
    "hypothesis": ("status", "service"),
    "usage": (
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "reasoning_tokens",
        "cost_usd",
        "model",
        "step",
        "total_cost_usd",
    ),
    "output": ("stream",),
}
"""Keys that the head of a step shows, or that mean nothing to a reader."""
_FOLDED = ("reasoning",)


def _parts(entry: TranscriptEntry) -> list[Part]:
    """Return the texts of a step: its main text, what is folded, and keys that nobody knows as JSON."""
    rest = {key: value for key, value in entry.content.items() if key not in _KNOWN.get(entry.kind, ())}
    parts: list[Part] = []
    for key in ("text", "content"):
        if isinstance(rest.get(key), str):
            parts.append(("", rest.pop(key)))
    arguments = rest.pop("arguments", None)
    if isinstance(arguments, dict):
        parts += [("", value) for key, value in arguments.items() if key == "sql" and isinstance(value, str)]
        rest |= {key: value for key, value in arguments.items() if key != "sql" or not isinstance(value, str)}
    elif arguments is not None:
        parts.append(("", str(arguments)))
    parts += [(key, rest.pop(key)) for key in _FOLDED if isinstance(rest.get(key), str)]
    if rest:
        parts.append(("", "\n".join(f"{key}: {_value(value)}" for key, value in rest.items())))
    return [(label, text) for label, text in parts if text]


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
