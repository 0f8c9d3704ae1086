"""HTML that is safe from injection: all text is escaped unless it is Markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


Child: TypeAlias = "str | Markup | Iterable[str | Markup]"

_DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_EMPTY_ELEMENTS = frozenset({"meta", "br", "hr"})


def text(value: str) -> Markup:
    """Escape *value*; characters that are invalid in documents become a replacement character.

    Those that turn the direction of text are shown as escapes: with them a page could look as if it said
    something else.
    """
    if isinstance(value, Markup):
        return value
    value = _DIRECTION.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
    clean = "".join(char if _allowed(char) else "\N{REPLACEMENT CHARACTER}" for char in value)
    return Markup(html.escape(clean, quote=True))


def _allowed(char: str) -> bool:
    code = ord(char)
    return code in (9, 10, 13) or (
        code >= 32
        and not 0x7F <= code <= 0x9F
        and not 0xD800 <= code <= 0xDFFF
        and code not in (0xFFFE, 0xFFFF)
    )


def el(tag: str, *children: Child, **attributes: str | bool) -> Markup:
    """Return an element. Children are escaped; ``class_`` stands for ``class``, True for a bare attribute.

    *tag* and attribute names come from code, never from data.
    """
    opening = tag
    for name, value in attributes.items():
        key = name.rstrip("_").replace("_", "-")
        if value is True:
            opening += f" {key}"
        elif value is not False:
            opening += f' {key}="{text(value)}"'
    if tag in _EMPTY_ELEMENTS:
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{join(*children)}</{tag}>")


def join(*children: Child) -> Markup:
    """Concatenate the children, escaping plain text."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, str):
            parts.append(text(child))
        else:
            parts.extend(text(item) for item in child)
    return Markup("".join(parts))
