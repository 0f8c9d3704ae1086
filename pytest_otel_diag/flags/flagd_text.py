"""The text of a flagd document: reading, checking and writing it.

What flagd refuses is refused here, with the name of the flag. One mistake makes flagd refuse the *whole*
file and keep the flags it had (none at all when it has just started), which is easy to miss from outside:
a default variant that the flag does not have, in any flag, even one that nobody asks for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pytest_otel_diag.errors import FlagError, nearest
from pytest_otel_diag.model.flags import Flag

STATES = ("ENABLED", "DISABLED")
_INDENT = re.compile(r"\n([ \t]+)\"")


@dataclass(frozen=True)
class DocumentText:
    """A checked document: its bytes, its JSON, and its flags with shared rules put in place."""

    raw: bytes
    body: Mapping[str, Any]
    flags: Mapping[str, Flag]


def parse(raw: bytes, source: str = "the flagd document") -> DocumentText:
    """Return the checked document; raises FlagError for what flagd would refuse or lose."""
    if not raw.strip():
        raise FlagError(
            f"{source} is empty: flagd would keep the flags it had, and have none when it starts, so that "
            "services use their defaults; write a new file beside it and rename, never truncate first"
        )
    try:
        body = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FlagError(f"{source} is not JSON: {error}; flagd would keep the flags it had") from error
    if not isinstance(body, dict) or not isinstance(body.get("flags"), dict):
        found = ", ".join(body) if isinstance(body, dict) else type(body).__name__
        raise FlagError(
            f"{source} has no object 'flags' (it holds: {found or 'nothing'}); flagd would see no flag "
            'and every service use its defaults. A document is {"flags": {name: {...}}}'
        )
    evaluators = body.get("$evaluators") or {}
    if not isinstance(evaluators, dict):
        raise FlagError(f"{source}: '$evaluators' must be an object of named rules, not {evaluators!r}")
    rules = {key: _with_rules(key, value, evaluators, source) for key, value in body["flags"].items()}
    return DocumentText(raw, body, {key: _flag(key, value, source) for key, value in rules.items()})


def write(body: Mapping[str, Any], like: bytes) -> bytes:
    """Return *body* as JSON, indented like the text it replaces, with its final newline if it has one."""
    text = like.decode("utf-8", errors="replace")
    found = _INDENT.search(text)
    written = json.dumps(body, ensure_ascii=False, indent=found.group(1) if found else None)
    return (written + ("\n" if text.endswith("\n") else "")).encode()


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


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


def _flag(key: str, value: Any, source: str) -> Flag:
    if not isinstance(value, dict):
        raise FlagError(f"{source}: flag {key!r} must be an object, not {value!r}")
    state = value.get("state")
    if state not in STATES:
        raise FlagError(f"{source}: flag {key!r} has state {state!r}; allowed are {', '.join(STATES)}")
    variants = value.get("variants")
    if not isinstance(variants, dict) or not variants:
        raise FlagError(f"{source}: flag {key!r} needs 'variants', an object of names and values")
    default = value.get("defaultVariant") or ""
    if default and (not isinstance(default, str) or default not in variants):
        raise FlagError(
            f"{source}: flag {key!r} has the default variant {default!r}"
            f"{nearest(str(default), variants)}; it has {', '.join(variants)}. "
            "flagd refuses the whole document for this, not only the one flag"
        )
    try:
        return Flag(
            key=key,
            variants=variants,
            default_variant=default,
            targeting=value.get("targeting") or None,
            enabled=state == "ENABLED",
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise FlagError(f"{source}: flag {key!r}: {place}: {first['msg']} ({first['input']!r})") from error
