"""Formats attribute values and log bodies as strings, the way the collector's ClickHouse exporter does.

Strings are unchanged; booleans are ``true`` and ``false``; numbers use the formats of JSON and ECMAScript;
bytes are base64; arrays and maps are compact JSON with sorted keys and with ``<``, ``>`` and ``&`` escaped.
For an infinite number or NaN the exporter writes an error message, and the empty string for an array or
map that contains one. An unset value is the empty string.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

_TRUTH = {True: "true", False: "false"}
_NOT_FINITE = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}
_ESCAPED = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


class _NotJsonError(ValueError):
    """JSON cannot represent the number."""


def text(value: Any) -> str:
    """Return an ``AnyValue`` as a string."""
    kind = value.WhichOneof("value")
    return _TEXTS[kind](getattr(value, kind)) if kind else ""


def _number_text(value: float) -> str:
    if math.isfinite(value):
        return number(value)
    return f"json: unsupported value: {_NOT_FINITE[repr(value)]}"


def _bytes_text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _array_text(value: Any) -> str:
    try:
        return _array(value)
    except _NotJsonError:
        return ""


def _object_text(value: Any) -> str:
    try:
        return _object(value)
    except _NotJsonError:
        return ""


def _json(value: Any) -> str:
    kind = value.WhichOneof("value")
    return _WRITERS[kind](getattr(value, kind)) if kind else "null"


def _array(value: Any) -> str:
    return f"[{','.join(map(_json, value.values))}]"


def _object(value: Any) -> str:
    last = {entry.key: entry.value for entry in value.values}
    return "{" + ",".join(f"{_quoted(key)}:{_json(last[key])}" for key in sorted(last)) + "}"


def _quoted(plain: str) -> str:
    return json.dumps(plain, ensure_ascii=False).translate(_ESCAPED)


def number(value: float) -> str:
    """Return a float in the format of ECMAScript: shortest digits, no exponent from 1e-6 up to 1e21."""
    if not math.isfinite(value):
        raise _NotJsonError(value)
    if value == 0:
        return "-0" if math.copysign(1.0, value) < 0 else "0"
    if 1e-6 <= abs(value) < 1e21:
        plain = format(Decimal(repr(value)), "f")
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    digits, _, exponent = repr(value).partition("e")
    power = int(exponent)
    return f"{digits.removesuffix('.0')}e{'+' if power > 0 else '-'}{abs(power):02d}".replace("e-0", "e-")


_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "string_value": str,
    "bool_value": _TRUTH.__getitem__,
    "int_value": str,
    "double_value": _number_text,
    "bytes_value": _bytes_text,
    "array_value": _array_text,
    "kvlist_value": _object_text,
}
_WRITERS: Mapping[str, Callable[[Any], str]] = {
    "string_value": _quoted,
    "bool_value": _TRUTH.__getitem__,
    "int_value": str,
    "double_value": number,
    "bytes_value": lambda value: _quoted(_bytes_text(value)),
    "array_value": _array,
    "kvlist_value": _object,
}
