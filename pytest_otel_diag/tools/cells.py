"""Values of telemetry as JSON of limited length."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue

T = TypeVar("T")

MOST_DEEP = 20
"""Levels of nesting that a value may have; what lies deeper becomes text."""

LEAST = 40
"""Characters that every value may have, however many share the room: the longest number needs 24."""

_SMALLEST, _LARGEST = -(2**63), 2**64 - 1


def text_size(text: str) -> int:
    """Return the number of characters of the text as JSON, with its quotes."""
    return len(json.dumps(text, ensure_ascii=False))


def readable(text: str) -> str:
    """Return the text with a replacement character for each lone surrogate, which JSON cannot carry."""
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


def shortened(text: str, characters: int) -> str:
    """Return the text, or its beginning and how many characters are left out, within *characters* of JSON."""
    text = readable(text)
    if len(text) + 2 <= characters and text_size(text) <= characters:
        return text
    room = max(0, characters - 2 - len(f"…(+{len(text)})"))
    kept = text[:room]
    while (size := text_size(kept) - 2) > room:
        kept = kept[: len(kept) * room // size]
    return f"{kept}…(+{len(text) - len(kept)})"


def json_value(value: Any, characters: int) -> JsonValue:
    """Return the value as JSON of at most *characters* (40 or more).

    NaN and infinities, integers beyond 64 bits, times, decimals and the like become text; bytes become the
    text that they encode, or hexadecimal digits. What is too long becomes text that says how much is missing.
    """
    plain = _plain(value, MOST_DEEP)
    if isinstance(plain, str):
        return shortened(plain, characters)
    if isinstance(plain, list | dict):
        text = json.dumps(plain, ensure_ascii=False)
        return plain if len(text) <= characters else shortened(text, characters)
    return plain


def _plain(value: Any, deep: int) -> JsonValue:
    if value is None or isinstance(value, bool | int | float):
        return _number(value)
    if isinstance(value, str):
        return readable(str.__str__(value))
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        if deep == 0:
            return f"{type(value).__name__} nested deeper than {MOST_DEEP} levels"
        if isinstance(value, Mapping):
            return {_key(key): _plain(item, deep - 1) for key, item in value.items()}
        return [_plain(item, deep - 1) for item in value]
    return readable(_bytes_text(value) if isinstance(value, bytes) else _shown(value))


def _number(value: float | None) -> JsonValue:
    """Return the number, or text where JSON has none; Python writes no digits of very long integers."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if _SMALLEST <= value <= _LARGEST:
            return int(value)
        return str(value) if value.bit_length() <= 512 else hex(value)
    return float(value) if math.isfinite(value) else repr(float(value))


def _bytes_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return f"0x{value.hex()}"


def _key(key: Any) -> str:
    return readable(str.__str__(key)) if isinstance(key, str) else _shown(key)


def _shown(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # of code that belongs to the value
        return f"a {type(value).__name__} that cannot be shown"


def model_size(value: BaseModel) -> int:
    """Return the number of characters of the model as JSON."""
    return len(value.model_dump_json())


def prefix(items: Iterable[T], *, most: int, characters: int, size: Callable[[T], int]) -> list[T]:
    """Return the first items, *most* at most, whose JSON with commas has at most *characters*."""
    kept: list[T] = []
    left = characters
    for item in items:
        left -= size(item) + 1
        if left < 0 or len(kept) >= most:
            break
        kept.append(item)
    return kept


def row_size(row: Sequence[JsonValue]) -> int:
    """Return the number of characters of the row as JSON."""
    return len(json.dumps(row, ensure_ascii=False, separators=(",", ":")))
