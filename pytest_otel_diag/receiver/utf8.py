"""Replaces what is not UTF-8 in the texts of a protobuf body.

protobuf refuses a whole request because of one such text. Senders in Go do not check theirs, so one attribute
that was cut in the middle of a character would cost every span beside it.
"""

from __future__ import annotations

from typing import Any

MOST_BYTES = 8 << 20
"""Larger bodies are not repaired: it takes about a second for each 8 MiB of small fields."""

_VARINT, _FIXED64, _MESSAGE_OR_TEXT, _FIXED32 = 0, 1, 2, 5  # wire types
_TEXT, _MESSAGE = 9, 11  # google.protobuf.FieldDescriptorProto.Type
_DEEPEST = 100


def repaired(body: bytes, descriptor: Any, depth: int = 0) -> bytes:
    """Return the body of a message with U+FFFD in place of bytes that are no text; raises ValueError."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    fields = descriptor.fields_by_number
    made = bytearray()
    at = 0
    while at < len(body):
        begin = at
        key, at = _varint(body, at)
        kind = key & 7
        if kind != _MESSAGE_OR_TEXT:
            at = _after(body, at, kind)
            made += body[begin:at]
            continue
        size, begin_of_value = _varint(body, at)
        made += body[begin:at]
        at = begin_of_value + size
        if at > len(body):
            raise ValueError("a field ends after the message")
        field = fields.get(key >> 3)
        value = _value(body[begin_of_value:at], field, depth)
        made += _as_varint(len(value)) + value
    return bytes(made)


def _value(value: bytes, field: Any, depth: int) -> bytes:
    if field is None:
        return value
    if field.type == _TEXT:
        return value.decode("utf-8", "replace").encode()
    return repaired(value, field.message_type, depth + 1) if field.type == _MESSAGE else value


def _after(body: bytes, at: int, kind: int) -> int:
    """Return where a field of fixed size or a number ends."""
    if kind == _VARINT:
        return _varint(body, at)[1]
    if kind not in {_FIXED64, _FIXED32}:
        raise ValueError(f"unknown wire type {kind}")
    end = at + (8 if kind == _FIXED64 else 4)
    if end > len(body):
        raise ValueError("a field ends after the message")
    return end


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    number = shift = 0
    while at < len(body) and shift < 70:
        byte = body[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise ValueError("a number does not end")


def _as_varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)
