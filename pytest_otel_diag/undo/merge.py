"""Merges the document of before a fault with external changes that were made since.

A document that differs from the previous one only in the flags that were changed here becomes the previous
one again, byte for byte. Otherwise only those flags get their previous definitions back.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.errors import FlagError, RestoreFailed
from pytest_otel_diag.flags import document_json, document_text
from pytest_otel_diag.flags.comparison import canonical


@dataclass(frozen=True)
class Merge:
    """The document to write.

    ``external`` names the external changes in it, ``overwritten`` those that it drops.
    """

    raw: bytes
    external: tuple[str, ...] = ()
    overwritten: tuple[str, ...] = ()


def merge(previous: bytes, current: bytes, keys: Iterable[str]) -> Merge:
    """Return *current* with the flags *keys* as they are in *previous*.

    A current document that flagd cannot read, or could not with these flags restored, is replaced as a
    whole: a broken edit must not keep a fault on.
    """
    if not readable(current):
        return Merge(previous, overwritten=("the whole document, which flagd cannot read",))
    try:
        return _merged(previous, current, keys)
    except (FlagError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        what = f"the whole document, which cannot be merged ({type(error).__name__}: {error})"
        return Merge(previous, overwritten=(what,))


def _merged(previous: bytes, current: bytes, keys: Iterable[str]) -> Merge:
    old, body = _json(previous), _json(current)
    definitions = document_text.definitions(old)
    for key in keys:
        document_text.define(body, key, definitions.get(key))
    external = tuple(_differences(old, body))
    if not external:
        return Merge(previous)
    merged = document_json.write(body, current)
    whole = readable(merged) and not _broken(merged, keys, document_text.parse(previous).unusable)
    return Merge(merged, external) if whole else Merge(previous, overwritten=external)


def _broken(raw: bytes, keys: Iterable[str], before: Collection[str]) -> set[str]:
    """Return the flags *keys* that cannot be used in the document, without those that could not *before*."""
    return (document_text.parse(raw).unusable.keys() & set(keys)) - set(before)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    flags = document_text.definitions(old), document_text.definitions(new)
    yield from (f"flag {name}" for name in _unequal(*flags))
    apart = document_json.members({**old, **new}, "flags")
    yield from (name for name in _unequal(old, new) if name not in apart)


def _unequal(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    missing = object()
    return [
        name
        for name in dict.fromkeys([*old, *new])
        if old.get(name, missing) is not new.get(name, missing)
        and (name not in old or name not in new or canonical(old[name]) != canonical(new[name]))
    ]


def rewritten(raw: bytes) -> bytes:
    """Return the same content as newly formatted text; raises ValueError, RecursionError for no JSON."""
    return document_json.write(_json(raw), raw)


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except UnicodeDecodeError:
        return json.loads(document_json.text_of(raw))


def readable(raw: bytes) -> bool:
    """Return whether flagd would accept the document."""
    try:
        document_text.parse(raw)
    except FlagError:
        return False
    return True


def check_document(raw: bytes) -> None:
    """Raise RestoreFailed for a document that flagd would refuse."""
    try:
        document_text.parse(raw, "the document to restore")
    except FlagError as error:
        raise RestoreFailed(
            f"{error}; it was not written: restore the document from before the first change"
        ) from error
