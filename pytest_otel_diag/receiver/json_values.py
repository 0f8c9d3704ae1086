"""Converts single values of OTLP/JSON strictly: a value that a field cannot hold is an error, never empty."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

# google.protobuf.FieldDescriptorProto.Type
_DOUBLE, _FLOAT, _INT64, _UINT64, _INT32, _FIXED64, _FIXED32, _BOOL, _STRING = 1, 2, 3, 4, 5, 6, 7, 8, 9
_BYTES, _UINT32, _ENUM, _SFIXED32, _SFIXED64, _SINT32, _SINT64 = 12, 13, 14, 15, 16, 17, 18

_URL_SAFE = str.maketrans("-_", "+/")
_SHOWN = 40


class OddValue(Exception):
    """A value that its field cannot hold. Its place is completed on the way up through the document."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self._message = message
        self._parts: list[str] = []

    def within(self, part: str) -> None:
        """Put a key, or ``[position]`` of a list, in front of the place."""
        self._parts.append(part)

    def at(self, place: str) -> str:
        """Return place and message; *place* is where the outermost part of the place is."""
        path = ".".join([*([place] if place else []), *reversed(self._parts)]).replace(".[", "[")
        return f"{path}: {self._message}" if path else self._message


def shown(value: Any) -> str:
    """Return a value in words, shortened: ``the text "checkout"``."""
    kind = {str: "text", bool: "value", int: "number", float: "number"}
    text = json.dumps(value) if isinstance(value, str | bool | int | float) or value is None else ""
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}…"
    if not text:
        return "an object" if isinstance(value, dict) else "a list"
    return " ".join(part for part in ("the", kind.get(type(value), ""), text) if part)


def hexadecimal(value: Any) -> bytes:
    """Return the bytes of a trace or span id."""
    try:
        return bytes.fromhex(_text(value))
    except ValueError:
        raise OddValue(f"{shown(value)} is not hexadecimal") from None


def _text(value: Any) -> str:
    if type(value) is not str:
        raise OddValue(f"{shown(value)} where a text belongs")
    if value.isascii():
        return value
    # JSON of JavaScript can hold half a character; as in Go, it becomes the replacement character.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _bytes(value: Any) -> bytes:
    text = _text(value).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise OddValue(f"{shown(value)} is not base64") from None


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise OddValue(f"{shown(value)} where true or false belongs")
    return value


def _number(value: Any) -> float:
    if type(value) in {int, float} or (type(value) is str and "_" not in value):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise OddValue(f"{shown(value)} where a number belongs")


def _single(value: Any) -> float:
    number = _number(value)
    try:
        struct.pack("f", number)
    except OverflowError:
        raise OddValue(f"{shown(value)} is beyond the range of its field") from None
    return number


def _whole(value: Any) -> int:
    if type(value) is int:
        return value
    if (type(value) is float and value.is_integer()) or (type(value) is str and "_" not in value):
        try:
            return int(value)
        except ValueError:
            pass
    raise OddValue(f"{shown(value)} where a whole number belongs")


def _integer(lowest: int, highest: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        number = _whole(value)
        if not lowest <= number <= highest:
            raise OddValue(f"{shown(value)} is beyond the range of its field")
        return number

    return convert


def _enumeration(described: Any) -> Callable[[Any], int]:
    numbers: Mapping[str, int] = {each.name: each.number for each in described.enum_type.values}
    integer = _integer(-(1 << 31), (1 << 31) - 1)

    def convert(value: Any) -> int:
        known = numbers.get(value) if type(value) is str else None
        if known is not None:
            return known
        try:
            return integer(value)
        except OddValue:
            raise OddValue(
                f"{shown(value)} where one of {', '.join(numbers)} or its number belongs"
            ) from None

    return convert


_Scalar = Callable[[Any], Any]
_SIGNED_32, _SIGNED_64 = _integer(-(1 << 31), (1 << 31) - 1), _integer(-(1 << 63), (1 << 63) - 1)
_UNSIGNED_32, _UNSIGNED_64 = _integer(0, (1 << 32) - 1), _integer(0, (1 << 64) - 1)
_PLAIN: Mapping[int, _Scalar] = {
    _DOUBLE: _number,
    _FLOAT: _single,
    _BOOL: _boolean,
    _STRING: _text,
    _BYTES: _bytes,
    **dict.fromkeys((_INT32, _SFIXED32, _SINT32), _SIGNED_32),
    **dict.fromkeys((_INT64, _SFIXED64, _SINT64), _SIGNED_64),
    **dict.fromkeys((_UINT32, _FIXED32), _UNSIGNED_32),
    **dict.fromkeys((_UINT64, _FIXED64), _UNSIGNED_64),
}


def scalar(described: Any) -> _Scalar:
    """Return the conversion of values of a field, given by its descriptor, that holds no message."""
    return _enumeration(described) if described.type == _ENUM else _PLAIN[described.type]
