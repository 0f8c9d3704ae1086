"""Parses and checks the text of a flagd document.

This module refuses what flagd refuses, and names the flag. A single mistake, such as a default variant that
a flag does not have, makes flagd refuse the *whole* file and keep the flags it had (none if it has just
started), which is easy to miss from outside.

Conversely, a flag that flagd accepts but that this package cannot handle (a variant without a value, a rule
that is a string, a reference to a rule that does not exist) does not make the document unusable: the flag is
left out, and changing it is refused with the reason. Tests compare both with the real flagd.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from pytest_otel_diag.errors import FlagError, nearest
from pytest_otel_diag.flags import document_json
from pytest_otel_diag.flags.document_json import member, members
from pytest_otel_diag.model.flags import Flag

LONGEST_BYTES = 16 * 1024 * 1024
"""The longest supported document; a ConfigMap holds at most 1 MiB."""

_DISABLED = "DISABLED"
_TEXTS = ("state", "defaultVariant", "source", "key")
_OBJECTS = ("variants", "metadata")
_READ = ("state", "defaultVariant", "variants", "targeting")
_EMPTY_RULE_LENGTH = 3
_CHANGED_BY_ESCAPES = frozenset('<>&"\\\u2028\u2029')
"""Characters that flagd escapes before it looks for a reference, so that it does not find the name."""


@dataclass(frozen=True)
class DocumentText:
    """A checked document: its bytes, its JSON, and its flags with references to shared rules resolved.

    ``entries`` are the resolved flags as JSON. ``unusable`` maps flags that flagd accepts but this package
    cannot change to the reason.
    """

    raw: bytes
    body: Mapping[str, Any]
    flags: Mapping[str, Flag]
    entries: Mapping[str, Any] = field(default_factory=dict)
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
    body = document_json.read(raw, source)
    if not isinstance(body, dict) or not members(body, "flags"):
        found = ", ".join(body) if isinstance(body, dict) else type(body).__name__
        raise FlagError(
            f"{source} has no object 'flags' (it has: {found or 'nothing'}), so flagd refuses it and keeps "
            'the flags it had. A document is {"flags": {name: {...}}}'
        )
    _typed(body, "metadata", dict, source)
    rules = _rules(body, raw, source)
    flags: dict[str, Flag] = {}
    unusable: dict[str, str] = {}
    entries: dict[str, Any] = {}
    for key, value in _entries(_resolved(member(body, "flags"), rules), source):
        flag = _flag(key, value, source, member(body, "metadata"))
        flags.pop(key, None)  # the last of several flags with one name counts
        unusable.pop(key, None)
        entries[key] = value
        if isinstance(flag, Flag):
            flags[key] = flag
        else:
            unusable[key] = flag
    return DocumentText(raw, body, flags, entries, unusable)


def definitions(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags of a parsed document as they are written, by name; the last of one name counts.

    Raises FlagError for a document without flags.
    """
    return dict(_entries(member(body, "flags"), "the flagd document"))


def define(body: Mapping[str, Any], key: str, entry: Any) -> None:
    """Replace the definition of a flag in *body*, append a new one, or remove it if *entry* is None."""
    flags = member(body, "flags")
    if isinstance(flags, dict):
        flags.pop(key, None)
        if entry is not None:
            flags[key] = entry
    elif isinstance(flags, list):
        places = [place for place, found in enumerate(flags) if _name(found) == key]
        if entry is not None:
            place = places.pop() if places else len(flags)
            flags[place : place + 1] = [entry]
        for place in reversed(places):
            del flags[place]


def is_reference(value: Any) -> bool:
    """Return whether the JSON value is a reference to a rule in ``$evaluators``."""
    return isinstance(value, dict) and set(value) == {"$ref"}


def _name(entry: Any) -> str:
    name = member(entry, "key") if isinstance(entry, dict) else None
    return name if isinstance(name, str) else ""


def _entries(flags: Any, source: str) -> Iterator[tuple[str, Any]]:
    """Yield names and definitions of an object of flags, or of an array of flags with the member ``key``."""
    if isinstance(flags, dict):
        yield from flags.items()
    elif isinstance(flags, list):
        yield from ((_name(entry), entry) for entry in flags)
    elif flags is not None:
        raise FlagError(
            f"{source}: 'flags' must be an object of flags, or an array of flags with a 'key', not "
            f"{flags!r}; flagd refuses the whole document for this"
        )


def _typed(value: Mapping[str, Any], name: str, wanted: type, where: str) -> None:
    """Raise FlagError for a member whose type makes flagd refuse the whole document."""
    for written in members(value, name):
        found = value[written]
        if found is not None and not isinstance(found, wanted):
            allowed = "an object" if wanted is dict else "a string"
            raise FlagError(
                f"{where}: {written!r} must be {allowed}, not {found!r}; flagd refuses the whole document "
                "for this"
            )


def _rules(body: Mapping[str, Any], raw: bytes, source: str) -> Mapping[str, Any]:
    """Return the shared rules; raises FlagError for rules that make flagd refuse the document."""
    _typed(body, "$evaluators", dict, source)
    rules: Mapping[str, Any] = member(body, "$evaluators") or {}
    if not rules:
        return rules
    written = document_json.raw_members(document_json.text_of(raw))[members(body, "$evaluators")[-1]]
    for name, text in document_json.raw_members(written).items():
        if len(text) < _EMPTY_RULE_LENGTH:
            raise FlagError(
                f"{source}: the rule {name!r} in '$evaluators' is {text}; flagd refuses the whole document "
                "for an empty rule, also for one that no flag refers to"
            )
    return rules


def _resolved(value: Any, rules: Mapping[str, Any]) -> Any:
    """Return the JSON with references replaced by the rules, as far as flagd finds them."""
    if is_reference(value):
        name = value["$ref"]
        known = isinstance(name, str) and name in rules and not _CHANGED_BY_ESCAPES & set(name)
        return rules[name] if known else value
    if isinstance(value, dict):
        return {inner: _resolved(item, rules) for inner, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, rules) for item in value]
    return value


def _references(value: Any) -> Iterator[Any]:
    """Yield the names in references that were not resolved."""
    if is_reference(value):
        yield value["$ref"]
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _references(inner)


def _flag(key: str, value: Any, source: str, shared: Any) -> Flag | str:
    """Return the flag, or why it is unusable; raises FlagError for a flag that flagd refuses.

    *shared* is the metadata of the document.
    """
    if value is None:
        return "it is null"
    if not isinstance(value, dict):
        raise FlagError(f"{source}: flag {key!r} must be an object, not {value!r}")
    where = f"{source}: flag {key!r}"
    for name in _TEXTS:
        _typed(value, name, str, where)
    for name in _OBJECTS:
        _typed(value, name, dict, where)
    variants, default = member(value, "variants") or {}, member(value, "defaultVariant") or ""
    if default and default not in variants:
        raise FlagError(
            f"{where} has the default variant {default!r}"
            f"{nearest(str(default), variants)}; it has {', '.join(variants) or 'no variants'}. "
            "flagd refuses the whole document for this, not only the flag"
        )
    problem = _problem(key, value) or _set_problem(value, shared)
    if problem:
        return problem
    try:
        return Flag(
            key=key,
            variants=variants,
            default_variant=default,
            targeting=member(value, "targeting") or None,
            enabled=member(value, "state") != _DISABLED,
        )
    except ValidationError as error:  # a name holds half a character, which is legal JSON
        return f"it cannot be read: {error.errors()[0]['msg']}"


def _problem(key: str, value: Mapping[str, Any]) -> str:
    """Return why a flag that flagd accepts cannot be used, empty if it can."""
    if not key:
        return "it has no name, so flagd leaves it out"
    twice = [spelt for name in _READ if len(spelt := members(value, name)) > 1]
    if twice:
        return f"it has one member more than once, as {', '.join(map(repr, twice[0]))}"
    variants, rule = member(value, "variants") or {}, member(value, "targeting")
    if not variants:
        return "it has no variants, so services use their own defaults"
    for name, found in variants.items():
        if found is None or isinstance(found, list):
            kind = "null" if found is None else "an array"
            return f"its variant {name!r} is {kind}; supported are booleans, numbers, strings and objects"
    missing = list(_references(rule))
    if missing:
        return f"its rule refers to {missing[0]!r}, which flagd does not find in '$evaluators'"
    return "" if isinstance(rule, dict | None) else f"its rule is {rule!r}, which is no object"


def _set_problem(value: Mapping[str, Any], shared: Any) -> str:
    named = {**(shared or {}), **(member(value, "metadata") or {})}
    return "its flag set has an empty name, so flagd leaves it out" if named.get("flagSetId") == "" else ""
