"""The JSON of flagd documents as flagd's parser (Go's) reads it, and its text.

Go matches the names of members in any case and lets the last one win. It replaces bytes that are not UTF-8,
and refuses numbers that are too large.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_otel_diag.errors import FlagError

DEEPEST = 150
"""Supported levels of nesting; flagd supports more, but no real document has them."""

_INDENT = re.compile(r"\n([ \t]+)\"")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_SPACE = re.compile(r"[ \t\r\n,:]*")
_LONGEST_SAFE_INTEGER = 300


def read(raw: bytes, source: str) -> Any:
    """Return the parsed text; raises FlagError, even for texts that Python reads and flagd does not."""
    if raw.startswith(_BYTE_ORDER_MARK):
        raise FlagError(
            f"{source} begins with a byte order mark, which flagd refuses, so it serves an older document; "
            "save the document as UTF-8 without BOM"
        )
    try:
        body = json.loads(
            text_of(raw), parse_constant=_no_constant, parse_float=_number, parse_int=_whole_number
        )
    except (ValueError, RecursionError) as error:
        raise FlagError(
            f"{source} is not JSON: {error}; flagd would keep the flags it had. Save it as JSON in UTF-8 "
            "without BOM"
        ) from error
    if _deeper(body, DEEPEST):
        raise FlagError(
            f"{source} is nested deeper than the supported {DEEPEST} levels; remove the deep part"
        )
    return body


def text_of(raw: bytes) -> str:
    """Return the text; bytes that are not UTF-8 become U+FFFD, as in flagd."""
    return raw.decode("utf-8", errors="replace")  # json would detect other encodings, which flagd does not


def members(body: Mapping[str, Any], name: str) -> list[str]:
    """Return the members that flagd takes for *name*; the last one wins."""
    return sorted((key for key in body if _folded(key) == _folded(name)), key=str.encode)


def member(body: Mapping[str, Any], name: str) -> Any:
    """Return the value of the member that flagd takes for *name*, None without one."""
    found = members(body, name)
    return body[found[-1]] if found else None


def raw_members(text: str) -> dict[str, str]:
    """Return the text of each member of a JSON object, as it is written."""
    decoder, found = json.JSONDecoder(), {}
    position = _after_space(text, text.index("{") + 1)
    while text[position] != "}":
        key, position = decoder.raw_decode(text, position)
        begin = _after_space(text, position)
        _, end = decoder.raw_decode(text, begin)
        found[key] = text[begin:end]
        position = _after_space(text, end)
    return found


def write(body: Mapping[str, Any], like: bytes) -> bytes:
    """Return *body* as JSON with the indentation and the final newline of the text it replaces."""
    text = text_of(like)
    found = _INDENT.search(text)
    indent, end = found.group(1) if found else None, "\n" if text.endswith("\n") else ""
    try:
        return (json.dumps(body, ensure_ascii=False, indent=indent) + end).encode()
    except UnicodeEncodeError:  # half of a surrogate pair such as "\\ud83d": legal JSON, but no character
        return (json.dumps(body, indent=indent) + end).encode()


def resembles(raw: bytes, *, like: bytes) -> bool:
    """Return whether the text is a flagd document, whole or damaged, rather than something else.

    A JSON object with flags is one, and so is text that begins like such an object and names them, or as the
    document *like* begins: a killed writer or an edit left it. An empty text and an empty object hold nothing
    that could be lost.
    """
    if b"".join(like.split()).startswith(b"".join(raw.split())):
        return True
    encoding = "utf-16" if raw.startswith(_UTF_16_MARKS) else "utf-8-sig"
    text = raw.decode(encoding, errors="replace").strip("\0 \t\r\n")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return not text or (text.startswith("{") and '"flags"' in text.lower())
    return isinstance(body, dict) and (not body or bool(members(body, "flags")))


def _folded(name: str) -> str:
    return name.upper().lower()  # also "ſ" and the Kelvin sign, which Go takes for "s" and "k"


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _deeper(body: Any, levels: int) -> bool:
    """Return whether the JSON is nested deeper; iterates by level, since recursion could overflow."""
    layer = [body]
    for _ in range(levels):
        layer = list(_inner(layer))
        if not layer:
            return False
    return True


def _inner(layer: list[Any]) -> Iterator[Any]:
    for each in layer:
        if isinstance(each, dict | list):
            values = each.values() if isinstance(each, dict) else each
            yield from (value for value in values if isinstance(value, dict | list))


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _whole_number(text: str) -> int:
    if len(text) > _LONGEST_SAFE_INTEGER:
        _number(text)
    return int(text)
