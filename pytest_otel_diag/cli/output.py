"""How commands print: plain aligned text, and JSON for machines."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence

import typer

from pytest_otel_diag.scoring.text import cell_width, pad, table, wrapped

_NARROWEST_TEXT = 20


def width(in_logs: int = 100) -> int:
    """Return how many columns text may take: those of the terminal, *in_logs* where there is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else in_logs


def print_table(rows: Sequence[Sequence[str]], header: Sequence[str], *, in_logs: int = 100) -> None:
    """Print rows as an aligned table; the last column wraps."""
    lines = [header, *rows]
    left = table([row[:-1] for row in lines], indent=0, width=width(in_logs) - _NARROWEST_TEXT - 2)
    _print_beside(zip(left, (row[-1] for row in lines), strict=True), in_logs)


def print_facts(facts: Sequence[tuple[str, str]], *, in_logs: int = 100) -> None:
    """Print labels with their texts, which wrap; a label that repeats is printed once."""
    above = ("", *(label for label, _ in facts))
    _print_beside(
        [
            ("" if label == before else label, text)
            for before, (label, text) in zip(above, facts, strict=False)
        ],
        in_logs,
    )


def _print_beside(rows: Iterable[tuple[str, str]], in_logs: int) -> None:
    """Print each left part, aligned, with the text to the right of it."""
    pairs = list(rows)
    left_width = max((cell_width(left) for left, _ in pairs), default=0)
    room = max(_NARROWEST_TEXT, width(in_logs) - left_width - 2)
    for left, text in pairs:
        first, *rest = wrapped(text, room)
        for line in (f"{pad(left, left_width)}  {first}", *(f"{' ' * left_width}  {line}" for line in rest)):
            sys.stdout.write(f"{line.rstrip()}\n")  # keeps the stream's way to replace unknown characters


def print_json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
