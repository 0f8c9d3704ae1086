"""Finds values in JSON by dotted paths such as ``usage.input_tokens`` and ``choices.0.message``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def found_at(document: Any, path: str) -> Any:
    """Return the value at *path*, None where it is missing.

    Steps are names of fields and positions in lists; negative ones count from the end. A step by name into a
    list finds it in the last item that has it, so that a path works on JSON lines too.
    """
    steps = [step for step in path.split(".") if step]
    return _found(document, steps)


def _found(value: Any, steps: list[str]) -> Any:
    if not steps:
        return value
    first, *rest = steps
    if isinstance(value, Mapping):
        return _found(value[first], rest) if first in value else None
    if not isinstance(value, list):
        return None
    if first.lstrip("-").isdecimal():
        position = int(first)
        return _found(value[position], rest) if -len(value) <= position < len(value) else None
    return next((found for item in reversed(value) if (found := _found(item, steps)) is not None), None)


def parsed(text: str) -> Any:
    """Return the JSON of a text, a list for JSON lines, None where it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    lines = []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return lines or None
