"""How ``otel-diag flags`` shows things."""

from __future__ import annotations

import json
import sys
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pytest_otel_diag.operations.flag_overview import Answer, Overview, Row, known
from pytest_otel_diag.operations.manual_flags import AllOff

_NO_PROOF = "not asked"


def told(found: Overview) -> dict[str, Any]:
    """Return what is true of all flags together, for machines."""
    return {
        "demo": found.comparison.demo,
        "alike": list(found.comparison.alike),
        "not_as_shipped": list(found.comparison.on),
        "agrees": found.agrees,
        "unserved": found.unserved,
    }


def print_overview(found: Overview, where: dict[str, str]) -> None:
    """Print the table of all flags."""
    console = _console()
    alike = f" (or {', '.join(found.comparison.alike)})" if found.comparison.alike else ""
    console.print(escape(f"demo {found.comparison.demo}{alike} by its flags"))
    console.print(escape(f"written at {where['written_at']}"), soft_wrap=True)
    console.print(escape(f"served by  {where['served_by']}"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    table.add_column("", no_wrap=True)
    table.add_column("flag", no_wrap=True)
    for title in ("written", "served", "why"):
        table.add_column(title, overflow="fold")
    for row in found.rows:
        mark = "≠" if not row.agrees else "●" if row.on else ""
        table.add_row(mark, *map(escape, (row.flag, row.written, _served(row, found), row.why)))
    console.print(table)
    if found.unserved:
        console.print(f"[red]what is served could not be asked: {escape(found.unserved)}[/red]")
    different = [row.flag for row in found.rows if not row.agrees]
    if different:
        console.print(f"[red]≠ not served as written: {escape(', '.join(different))}[/red]")
    on = [row.flag for row in found.rows if row.on]
    console.print(f"● not as shipped: {escape(', '.join(on))}" if on else "all flags as shipped")


def _served(row: Row, found: Overview) -> str:
    if found.unserved:
        return _NO_PROOF
    return "; ".join(_answers(row))


def _answers(row: Row) -> list[str]:
    return [_answer(one, alone=len(row.answers) == 1) for one in row.answers]


def _answer(one: Answer, *, alone: bool) -> str:
    """Return variant, value and for whom; *alone* is the only answer of its flag."""
    value = "" if one.value is None else f" = {json.dumps(one.value)}"
    whom = ", ".join(f"{key}={value}" for key, value in one.context.items())
    whom = f" for {whom}" if whom else "" if alone else " for others"
    return f"{one.variant or 'nothing'}{value}{whom}"


def print_row(row: Row, found: Overview, variants: dict[str, Any]) -> None:
    """Print one flag."""
    console = _console()
    console.print(f"[bold]{escape(row.flag)}[/bold]  {'not as shipped' if row.on else 'as shipped'}")
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    facts = [("written", row.written), ("default", row.default or "none")]
    if row.rule:
        facts.append(("rule", row.rule))
    facts += [("served", text) for text in _answers(row)]
    facts += [("served", f"{_NO_PROOF}: {found.unserved}")] if found.unserved else []
    facts += [("why", row.why)] if row.why else []
    facts.append(("variants", ", ".join(f"{name} = {json.dumps(value)}" for name, value in variants.items())))
    about = known(row.flag, found.comparison.demo)
    if about is not None:
        facts += [("does", about[0].does), ("names", ", ".join(about[0].names))]
        facts.append(("more", f"otel-diag catalog show {row.flag} --demo {found.comparison.demo}"))
    for label, text in facts:
        grid.add_row(label, escape(text))
    console.print(grid)


def print_all_off(done: AllOff) -> None:
    """Print what was set to off, and what could not be."""
    typer.echo(f"set: {', '.join(done.changed)}" if done.changed else "every flag was off already")
    for text in done.left:
        typer.echo(f"left as it is: {text}")
    if done.saved is not None:
        typer.echo(f"the document from before is {done.saved}")
    if not done.served:
        typer.echo("what is served is not (yet) what is written; see otel-diag flags list", err=True)


def _console() -> Console:
    # Only a terminal is asked for its width: a log is read anywhere.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def print_json(value: object) -> None:
    """Print for machines."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
