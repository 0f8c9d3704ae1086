"""Building blocks of pages: tables, lists, prose."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_otel_diag.reports.blocks import Block
from pytest_otel_diag.reports.markup import Markup, el, join

PROSE_CHARS = 48
"""Only longer texts are wrapped; shorter ones are names and numbers."""


def bullets(lines: Sequence[str]) -> Markup:
    """Return a list, empty markup without lines."""
    return el("ul", [el("li", line) for line in lines]) if lines else Markup("")


def block(shown: Block, *, level: str = "h2") -> Markup:
    """Return a titled table with its notes; *level* is the heading tag."""
    rows = [
        el(
            "tr",
            _cells(shown, index, row),
            class_=shown.style(index),
        )
        for index, row in enumerate(shown.rows)
    ]
    notes = [el("p", note, class_="dim") for note in shown.notes]
    drawn = table(shown.header, rows, shown.right) if shown.header or shown.rows else Markup("")
    return join(el(level, shown.title), drawn, notes)


def _cells(shown: Block, index: int, row: Sequence[str]) -> list[Markup]:
    """Return the cells of a row; the first one leads to the session that the row is about."""
    cells = [cell(text, "right" if column in shown.right else "") for column, text in enumerate(row)]
    if index < len(shown.sessions):
        link = el("a", row[0], href=f"#{session_anchor(shown.sessions[index])}")
        cells[0] = el("td", link, class_="short")
    return cells


def session_anchor(session_id: str) -> str:
    """Return the anchor of a session on the page of its run."""
    return f"session-{session_id}"


def table(header: Sequence[str], rows: Sequence[Markup], right: Sequence[int] = ()) -> Markup:
    """Return a table that scrolls horizontally if it is too wide."""
    names = [el("th", name, class_="right" if i in right else "left") for i, name in enumerate(header)]
    head = el("thead", el("tr", names)) if header else ""
    return el("div", el("table", head, el("tbody", rows)), class_="scroll")


def rows(cells: Sequence[Sequence[str]]) -> list[Markup]:
    """Return rows without style."""
    return [el("tr", [cell(text) for text in row]) for row in cells]


def cell(text: str, kind: str = "") -> Markup:
    """Return a cell: multi-line text preformatted, prose wrapped, other text on one line."""
    if "\n" in text.strip():
        return el("td", el("pre", text.strip("\n")))
    return el("td", text, class_=kind or ("prose" if len(text) > PROSE_CHARS else "short"))
