"""Plain text tables that stay aligned in CI logs."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import accumulate

WIDTH = 100
"""Default width of texts in terminal columns."""

ELLIPSIS = "…"

_NARROWEST = 4


def cell_width(text: str) -> int:
    """Return the width of *text* in terminal columns: two for wide characters, none for combining marks."""
    return sum(_char_width(char) for char in text)


def _char_width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def one_line(text: str) -> str:
    """Return *text* on one line with visible control characters and escape sequences."""
    return visible(" ".join(text.split()))


def visible(text: str) -> str:
    """Return *text* with its lines, and with other control, direction and lone surrogate characters escaped.

    A terminal obeys escape sequences, and a reader cannot see that the direction of text was turned.
    """
    return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)


def clip(text: str, width: int) -> str:
    """Return *text* on one line, shortened to *width* columns with an ellipsis.

    Prose is cut at its end, a single word in its middle, since names differ at both ends.
    """
    line = one_line(text)
    if cell_width(line) <= width:
        return line
    if " " in line:
        return _head(line, width - 1) + ELLIPSIS
    tail = (width - 1) // 2
    end = _head(line[::-1], tail)[::-1]
    return _head(line, width - 1 - tail) + ELLIPSIS + end


def count(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: ``1 session``, ``2 sessions``; *plural* is an irregular plural."""
    return f"{n} {noun if n == 1 else plural or noun + 's'}"


def wrapped(text: str, width: int) -> list[str]:
    """Wrap *text* at *width* columns, between words if possible."""
    lines = [""]
    for whole in one_line(text).split(" "):
        word = whole
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_width(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        while cell_width(word) > width:
            # A character may be wider than the column.
            piece = _head(word, width) or word[0]
            lines[-1:] = [piece, ""]
            word = word[len(piece) :]
        lines[-1] = word
    return lines if lines[-1] or len(lines) == 1 else lines[:-1]


def _head(line: str, columns: int) -> str:
    reached = accumulate(map(_char_width, line))
    return "".join(char for char, used in zip(line, reached, strict=True) if used <= columns)


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Pad *text* with blanks to *width* columns; *right* aligns it to the right."""
    blanks = " " * max(0, width - cell_width(text))
    return blanks + text if right else text + blanks


def table(
    rows: Sequence[Sequence[str]],
    *,
    header: Sequence[str] = (),
    right: Sequence[int] = (),
    wrap: bool = False,
    indent: int = 2,
    width: int = WIDTH,
) -> list[str]:
    """Return one aligned text per row, of at most *width* columns; the widest columns are shortened first.

    *right* lists the right-aligned columns. With *wrap* the last column is prose, which is wrapped instead of
    shortened: in its column if that has half of the width, else below its row; such a text contains newlines.
    Headers are shortened last. All rows must have the same length.
    """
    lines = [list(map(one_line, row)) for row in ((header, *rows) if header else rows)]
    if not lines:
        return []
    widths = [max(cell_width(row[index]) for row in lines) for index in range(len(lines[0]))]
    floors = [max(_NARROWEST, cell_width(name)) for name in header] or [_NARROWEST] * len(widths)
    room = width - indent - 2 * (len(widths) - 1)
    prose = ""
    if wrap and sum(widths) > room:
        used = sum(widths[:-1])
        prose = "beside" if room - used >= room // 2 else "below"
        # Text below the row needs no column, so the last one is as wide as its header.
        widths[-1] = room - used if prose == "beside" else min(widths[-1], floors[-1])
    _shrink(widths, room, floors)
    _shrink(widths, room, [_NARROWEST] * len(widths))
    beside = indent + sum(widths[:-1]) + 2 * (len(widths) - 1)
    shown = []
    for index, row in enumerate(lines):
        cells, under = row, []
        if prose == "beside":
            cells[-1], *under = wrapped(row[-1], widths[-1])
            under = [" " * beside + line for line in under]
        elif prose == "below" and not (header and index == 0):
            cells, under = [*row[:-1], ""], wrapped(row[-1], max(_NARROWEST, width - indent - 4))
            under = [" " * (indent + 4) + line for line in under if line]
        shown.append("\n".join([_row(cells, widths, right, indent), *under]))
    return shown


def _row(cells: Sequence[str], widths: Sequence[int], right: Sequence[int], indent: int) -> str:
    padded = [
        pad(clip(cell, width), width, right=index in right)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return (" " * indent + "  ".join(padded)).rstrip()


def _shrink(widths: list[int], room: int, floors: Sequence[int]) -> None:
    """Shrink the widest columns, each down to its floor, until all fit."""
    while sum(widths) > room:
        able = [index for index, width in enumerate(widths) if width > floors[index]]
        if not able:
            return
        widths[max(able, key=lambda index: widths[index])] -= 1
