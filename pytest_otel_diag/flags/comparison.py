"""Compares flagd documents by meaning: key order, whitespace and ``1`` against ``1.0`` make no difference."""

from __future__ import annotations

import json
from typing import Any

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.document_text import definitions

_NAMES_SHOWN = 5
_WITHOUT_MEANING = ("$schema",)
"""Members that flagd ignores and some places drop."""


def same_json(one: bytes, other: bytes) -> bool:
    """Return whether two texts hold the same JSON, ``$schema`` aside; False for different texts not JSON."""
    if one == other:
        return True
    try:
        return _without_schema(json.loads(one)) == _without_schema(json.loads(other))
    except (ValueError, RecursionError):
        return False


def differing(one: bytes, other: bytes) -> str:
    """Return how two documents differ, for error messages: names of flags where both can be parsed."""
    try:
        before, after = (definitions(json.loads(text)) for text in (one, other))
        names = [
            name
            for name in dict.fromkeys((*before, *after))
            if canonical(before.get(name)) != canonical(after.get(name))
        ]
    except (FlagError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return f"{len(one)} bytes against {len(other)}"
    if not names:
        return "the flags are the same, another part of the document differs"
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"different: {', '.join(names[:_NAMES_SHOWN])}{more}"


def canonical(value: Any) -> str:
    """Return a text that is equal for equal JSON: sorted keys, whole numbers without a fraction.

    ``true`` and ``1`` stay different; ``1`` and ``1.0`` do not, since some places rewrite numbers.
    """
    return json.dumps(_whole_numbers(value), sort_keys=True)


def _without_schema(document: Any) -> str:
    if isinstance(document, dict):
        document = {key: value for key, value in document.items() if key not in _WITHOUT_MEANING}
    return canonical(document)


def _whole_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
