"""The text of a flagd document: reading, checking and writing it.

What flagd refuses is refused here, with the name of the flag. One mistake makes flagd refuse the *whole*
file and keep the flags it had (none at all when it has just started), which is easy to miss from outside:
a default variant that the flag does not have, in any flag, even one that nobody asks for.

The other way round, a flag that flagd takes, but that cannot be worked with here (a variant without a value,
a rule that is a text), is no reason to refuse the document: it is left out of the flags and refused once it
is to be changed. Tests compare both with the real flagd.
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
DEEPEST = 150
"""Levels of nesting that are worked with; flagd takes more, no document of flags has them."""

_INDENT = re.compile(r"\n([ \t]+)\"")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class DocumentText:
    """A checked document: its bytes, its JSON, and its flags with shared rules put in place.

    ``unusable`` are the flags that flagd takes but that cannot be changed here, and why.
    """

    raw: bytes
    body: Mapping[str, Any]
    flags: Mapping[str, Flag]
    unusable: Mapping[str, str] = field(default_factory=dict)


def parse(raw: bytes, source: str = "the flagd document") -> DocumentText:
    """Return the checked document; raises FlagError for what flagd would refuse or lose."""
    if not raw.strip():
        raise FlagError(
            f"{source} is empty: flagd would keep the flags it had, and have none when it starts, so that "
            "services use their defaults; write a new file beside it and rename, never truncate first"
        )
    body = _json(raw, source)
    if not isinstance(body, dict) or not isinstance(body.get("flags"), dict):
        found = ", ".join(body) if isinstance(body, dict) else type(body).__name__
        raise FlagError(
            f"{source} has no object 'flags' (it holds: {found or 'nothing'}); flagd would see no flag "
            'and every service use its defaults. A document is {"flags": {name: {...}}}'
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


def _json(raw: bytes, source: str) -> Any:
    """Return what the text says; raises FlagError, also where only Python could have read it."""
    if raw.startswith(_BYTE_ORDER_MARK):
        raise FlagError(
            f"{source} begins with a byte order mark, which flagd refuses, so that it serves an older "
            "document than this; save it as UTF-8 without BOM"
        )
    try:
        text = raw.decode("utf-8")  # json would guess other encodings, which flagd does not read
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
            f"{source} is nested deeper than {DEEPEST} levels, which cannot be worked with here; take the "
            "deep part out"
        )
    return body


def _deeper(body: Any, levels: int) -> bool:
    """Whether the JSON is nested deeper; level by level, since recursion is what has to be avoided."""
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
    """Raise FlagError for a member of a type for which flagd refuses the whole document."""
    found = value.get(name)
    if found is not None and not isinstance(found, wanted):
        allowed = "an object" if wanted is dict else "a text"
        raise FlagError(
            f"{where}: {name!r} must be {allowed}, not {found!r}; flagd refuses the whole document for this"
        )


def write(body: Mapping[str, Any], like: bytes) -> bytes:
    """Return *body* as JSON, indented like the text it replaces, with its final newline if it has one."""
    text = like.decode("utf-8", errors="replace")
    found = _INDENT.search(text)
    indent, end = found.group(1) if found else None, "\n" if text.endswith("\n") else ""
    try:
        return (json.dumps(body, ensure_ascii=False, indent=indent) + end).encode()
    except UnicodeEncodeError:  # half of a pair of "\\ud83d" escapes: legal JSON, but no character
        return (json.dumps(body, indent=indent) + end).encode()


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large a number")
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
    """Return the flag, or why it cannot be worked with; raises FlagError for what flagd refuses."""
    if value is None:
        return "it is null"
    if not isinstance(value, dict):
        raise FlagError(f"{source}: flag {key!r} must be an object, not {value!r}")
    where = f"{source}: flag {key!r}"
    state = value.get("state")
    if state not in STATES:
        raise FlagError(f"{where} has state {state!r}; allowed are {', '.join(STATES)}")
    variants = value.get("variants")
    if not isinstance(variants, dict) or not variants:
        raise FlagError(f"{where} needs 'variants', an object of names and values")
    default = value.get("defaultVariant")
    if default not in (None, "") and (not isinstance(default, str) or default not in variants):
        raise FlagError(
            f"{where} has the default variant {default!r}"
            f"{nearest(str(default), variants)}; it has {', '.join(variants)}. "
            "flagd refuses the whole document for this, not only the one flag"
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
