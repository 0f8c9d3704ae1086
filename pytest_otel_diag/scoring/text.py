"""Plain text tables that stay aligned in a CI log."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import accumulate

WIDTH = 100
"""Columns of a terminal that every text is made for."""

ELLIPSIS = "…"

_NARROWEST = 4


def cell_width(text: str) -> int:
    """Return how many terminal columns *text* takes: wide characters two, combining marks none."""
    return sum(_char_width(char) for char in text)


def _char_width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def one_line(text: str) -> str:
    """Return *text* on one line, with control characters (escape sequences too) made visible."""
    joined = " ".join(text.split())
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in joined)


def clip(text: str, width: int) -> str:
    """Return *text* on one line, cut to *width* columns with an ellipsis at the cut.

    Prose loses its end; a name (one word) loses its middle, since names differ at both ends.
    """
    line = one_line(text)
    if cell_width(line) <= width:
        return line
    if " " in line:
        return _head(line, width - 1) + ELLIPSIS
    tail = (width - 1) // 2
    end = _head(line[::-1], tail)[::-1]
    return _head(line, width - 1 - tail) + ELLIPSIS + end


def _head(line: str, columns: int) -> str:
    reached = accumulate(map(_char_width, line))
    return "".join(char for char, used in zip(line, reached, strict=True) if used <= columns)


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Return *text* filled with blanks to *width* columns, to the left of it when *right*."""
    blanks = " " * max(0, width - cell_width(text))
    return blanks + text if right else text + blanks


def table(
    rows: Sequence[Sequence[str]],
    *,
    header: Sequence[str] = (),
    right: Sequence[int] = (),
    keep: Sequence[int] = (),
    indent: int = 2,
    width: int = WIDTH,
) -> list[str]:
    """Return aligned lines of at most *width* columns; the widest columns are cut first.

    *right* lists the columns aligned to the right, *keep* those that are cut only when cutting the
    others is not enough. Rows must be equally long.
    """
    lines = [list(map(one_line, row)) for row in ((header, *rows) if header else rows)]
    if not lines:
        return []
    widths = [max(cell_width(row[index]) for row in lines) for index in range(len(lines[0]))]
    room = width - indent - 2 * (len(widths) - 1)
    _shrink(widths, [index for index in range(len(widths)) if index not in keep], room)
    _shrink(widths, range(len(widths)), room)
    shown = []
    for row in lines:
        cells = [
            pad(clip(cell, widths[index]), widths[index], right=index in right)
            for index, cell in enumerate(row)
        ]
        shown.append((" " * indent + "  ".join(cells)).rstrip())
    return shown


def _shrink(widths: list[int], columns: Sequence[int], room: int) -> None:
    """Take from the widest of *columns* until all widths fit, down to _NARROWEST each."""
    while sum(widths) > room and columns:
        widest = max(columns, key=lambda column: widths[column])
        if widths[widest] <= _NARROWEST:
            return
        widths[widest] -= 1
