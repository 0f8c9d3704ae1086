"""Parses, checks and writes the text of a flagd document.

This module refuses what flagd refuses, and names the flag. A single mistake, such as a default variant that
a flag does not have, makes flagd refuse the *whole* file and keep the flags it had (none if it has just
started), which is easy to miss from outside.

Conversely, a flag that flagd accepts but that this package cannot handle (a variant without a value, a rule
that is a string) does not make the document unusable: the flag is left out, and changing it is refused.
Tests compare both with the real flagd.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from pytest_otel_diag.errors import FlagError, nearest
from pytest_otel_diag.model.flags import Flag

STATES = ("ENABLED", "DISABLED")
LONGEST_BYTES = 16 * 1024 * 1024
"""The longest supported document; a ConfigMap holds at most 1 MiB."""
DEEPEST = 150
"""Supported levels of nesting; flagd supports more, but no real document has them."""

_INDENT = re.compile(r"\n([ \t]+)\"")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class DocumentText:
    """A checked document: its bytes, its JSON, and its flags with references to shared rules resolved.

    ``unusable`` maps flags that flagd accepts but this package cannot change to the reason.
    """

    raw: bytes
    body: Mapping[str, Any]
    flags: Mapping[str, Flag]
    unusable: Mapping[str, str] = field(default_factory=dict)


def parse(raw: bytes, source: str = "the flagd document") -> DocumentText:
    """Return the checked document; raises FlagError for one that flagd would refuse or lose."""
    if len(raw) > LONGEST_BYTES:
        raise FlagError(f"{source} has {len(raw):,} bytes, more than the supported {LONGEST_BYTES:,}")
    if not raw.strip():
        raise FlagError(
            f"{source} is empty: a running flagd would keep its flags, and a restarted one have none, so "
            "that services use their defaults; write a temporary file and rename it, never truncate"
        )
    body = _json(raw, source)
    if not isinstance(body, dict) or not isinstance(body.get("flags"), dict):
        found = ", ".join(body) if isinstance(body, dict) else type(body).__name__
        raise FlagError(
            f"{source} has no object 'flags' (it has: {found or 'nothing'}); flagd would have no flags, and "
            'every service would use its defaults. A document is {"flags": {name: {...}}}'
        )
    evaluators = body.get("$evaluators")
    if not isinstance(evaluators, dict | None):
        raise FlagError(f"{source}: '$evaluators' must be an object of named rules, not {evaluators!r}")
    _typed(body, "metadata", dict, source)
    flags: dict[str, Flag] = {}
    unusable: dict[str, str] = {}
    for key, value in body["flags"].items():
        flag = _flag(key, _with_rules(key, value, evaluators or {}, source), source)
        if isinstance(flag, Flag):
            flags[key] = flag
        else:
            unusable[key] = flag
    return DocumentText(raw, body, flags, unusable)


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
    return isinstance(body, dict) and (not body or "flags" in map(str.lower, body))


def _json(raw: bytes, source: str) -> Any:
    """Return the parsed text; raises FlagError, even for texts that Python reads and flagd does not."""
    if raw.startswith(_BYTE_ORDER_MARK):
        raise FlagError(
            f"{source} begins with a byte order mark, which flagd refuses, so it serves an older document; "
            "save the document as UTF-8 without BOM"
        )
    try:
        text = raw.decode("utf-8")  # json would detect other encodings, which flagd does not support
    except UnicodeDecodeError as error:
        raise FlagError(
            f"{source} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8 without BOM"
        ) from error
    try:
        body = json.loads(text, parse_constant=_no_constant, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise FlagError(f"{source} is not JSON: {error}; flagd would keep the flags it had") from error
    if _deeper(body, DEEPEST):
        raise FlagError(
            f"{source} is nested deeper than the supported {DEEPEST} levels; remove the deep part"
        )
    return body


def _deeper(body: Any, levels: int) -> bool:
    """Return whether the JSON is nested deeper; iterates by level, since recursion could overflow."""
    layer = [body]
    for _ in range(levels):
        layer = [
            inner
            for each in layer
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not layer:
            return False
    return True


def _typed(value: Mapping[str, Any], name: str, wanted: type, where: str) -> None:
    """Raise FlagError for a member whose type makes flagd refuse the whole document."""
    found = value.get(name)
    if found is not None and not isinstance(found, wanted):
        allowed = "an object" if wanted is dict else "a string"
        raise FlagError(
            f"{where}: {name!r} must be {allowed}, not {found!r}; flagd refuses the whole document for this"
        )


def write(body: Mapping[str, Any], like: bytes) -> bytes:
    """Return *body* as JSON with the indentation and the final newline of the text it replaces."""
    text = like.decode("utf-8", errors="replace")
    found = _INDENT.search(text)
    indent, end = found.group(1) if found else None, "\n" if text.endswith("\n") else ""
    try:
        return (json.dumps(body, ensure_ascii=False, indent=indent) + end).encode()
    except UnicodeEncodeError:  # half of a surrogate pair such as "\\ud83d": legal JSON, but no character
        return (json.dumps(body, indent=indent) + end).encode()


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text} is too large")
    return number


def _with_rules(key: str, value: Any, evaluators: Mapping[str, Any], source: str) -> Any:
    if isinstance(value, dict):
        if set(value) == {"$ref"}:
            name = value["$ref"]
            if not isinstance(name, str) or name not in evaluators:
                known = ", ".join(evaluators) or "none"
                raise FlagError(
                    f"{source}: flag {key!r} refers to the rule {name!r}{nearest(str(name), evaluators)}; "
                    f"'$evaluators' has {known}"
                )
            return evaluators[name]
        return {inner: _with_rules(key, item, evaluators, source) for inner, item in value.items()}
    if isinstance(value, list):
        return [_with_rules(key, item, evaluators, source) for item in value]
    return value


def _flag(key: str, value: Any, source: str) -> Flag | str:
    """Return the flag, or why it is unusable; raises FlagError for a flag that flagd refuses."""
    if value is None:
        return "it is null"
    if not isinstance(value, dict):
        raise FlagError(f"{source}: flag {key!r} must be an object, not {value!r}")
    where = f"{source}: flag {key!r}"
    state = value.get("state")
    if state not in STATES:
        raise FlagError(f"{where} has state {state!r}; choose from {', '.join(STATES)}")
    variants = value.get("variants")
    if not isinstance(variants, dict) or not variants:
        raise FlagError(f"{where} needs 'variants', an object of names and values")
    default = value.get("defaultVariant")
    if default not in (None, "") and (not isinstance(default, str) or default not in variants):
        raise FlagError(
            f"{where} has the default variant {default!r}"
            f"{nearest(str(default), variants)}; it has {', '.join(variants)}. "
            "flagd refuses the whole document for this, not only the flag"
        )
    _typed(value, "metadata", dict, where)
    for name in ("source", "key"):
        _typed(value, name, str, where)
    try:
        return Flag(
            key=key,
            variants=variants,
            default_variant=default or "",
            targeting=value.get("targeting") or None,
            enabled=state == "ENABLED",
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']} ({first['input']!r})"
