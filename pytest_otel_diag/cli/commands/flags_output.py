"""How ``otel-diag flags`` prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import typer

from pytest_otel_diag.cli.output import print_facts, print_json, print_table
from pytest_otel_diag.model.flags import FlagValue
from pytest_otel_diag.operations.flag_overview import FlagOverview, FlagRow, ServedAnswer, catalog_entry
from pytest_otel_diag.operations.manual_flags import AllOff

_NOT_READ = "not read"
_LOG_WIDTH = 120


def overview_json(found: FlagOverview) -> None:
    """Print all flags as JSON."""
    print_json({**_summary(found), "flags": [_row_json(row) for row in found.rows]})


def row_json(row: FlagRow, found: FlagOverview, variants: Mapping[str, FlagValue]) -> None:
    """Print one flag as JSON."""
    print_json({**_summary(found), "variants": dict(variants), **_row_json(row)})


def _summary(found: FlagOverview) -> dict[str, Any]:
    return {
        "written_at": found.written_at,
        "served_by": found.served_by,
        "demo": found.comparison.demo,
        "alike": list(found.comparison.alike),
        "not_as_shipped": list(found.comparison.on),
        "agrees": found.agrees,
        "unserved": found.unserved,
    }


def _row_json(row: FlagRow) -> dict[str, Any]:
    served = [
        {"context": dict(one.context), "variant": one.variant, "value": one.value, "expected": one.expected}
        for one in row.answers
    ]
    return {
        "flag": row.flag,
        "written": row.written,
        "default_variant": row.default,
        "rule": row.rule,
        "served": served,
        "agrees": row.agrees,
        "on": row.on,
        "why": row.why,
        "known": row.known,
    }


def overview_text(found: FlagOverview) -> None:
    """Print the table of all flags."""
    alike = f" (or {', '.join(found.comparison.alike)})" if found.comparison.alike else ""
    typer.echo(f"demo {found.comparison.demo}{alike} by its flags")
    typer.echo(f"written at {found.written_at}")
    typer.echo(f"served by  {found.served_by}")
    print_table(
        [line for row in found.rows for line in _lines(row, found)],
        ("", "flag", "written", "served", "why"),
        in_logs=_LOG_WIDTH,
    )
    if found.unserved:
        typer.echo(f"the served flags cannot be read: {found.unserved}")
    different = [row.flag for row in found.rows if not row.agrees]
    if different:
        typer.echo(f"≠ not served as written: {', '.join(different)}")
    on = [row.flag for row in found.rows if row.on]
    typer.echo(f"● not as shipped: {', '.join(on)}" if on else "all flags as shipped")


def _lines(row: FlagRow, found: FlagOverview) -> list[tuple[str, str, str, str, str]]:
    """Return the lines of a flag: one for each context in which it is evaluated."""
    mark = "≠" if not row.agrees else "●" if row.on else ""
    first, *rest = [_NOT_READ] if found.unserved else _answers(row) or [""]
    return [(mark, row.flag, row.written, first, row.why), *(("", "", "", answer, "") for answer in rest)]


def _answers(row: FlagRow) -> list[str]:
    return [_answer(one, alone=len(row.answers) == 1) for one in row.answers]


def _answer(one: ServedAnswer, *, alone: bool) -> str:
    """Return variant, value and context; *alone* says that the flag is evaluated in one context only."""
    value = "" if one.value is None else f" = {json.dumps(one.value)}"
    context = ", ".join(f"{key}={value}" for key, value in one.context.items())
    context = f" for {context}" if context else "" if alone else " for others"
    return f"{one.variant or 'nothing'}{value}{context}"


def row_text(row: FlagRow, found: FlagOverview, variants: Mapping[str, FlagValue]) -> None:
    """Print one flag."""
    typer.echo(f"{row.flag}  {'not as shipped' if row.on else 'as shipped'}")
    facts = [("written", row.written), ("default", row.default or "none")]
    if row.rule:
        facts.append(("rule", row.rule))
    facts += [("served", text) for text in _answers(row)]
    facts += [("served", f"{_NOT_READ}: {found.unserved}")] if found.unserved else []
    facts += [("why", row.why)] if row.why else []
    facts.append(("variants", ", ".join(f"{name} = {json.dumps(value)}" for name, value in variants.items())))
    known = catalog_entry(row.flag, found.comparison.demo)
    if known is not None:
        facts += [("does", known[0].does), ("names", ", ".join(known[0].names))]
        facts.append(("more", f"otel-diag catalog show {row.flag} --demo {found.comparison.demo}"))
    print_facts(facts, in_logs=_LOG_WIDTH)


def all_off_text(done: AllOff) -> None:
    """Print what was set to off, and what could not be."""
    typer.echo(f"set: {', '.join(done.changed)}" if done.changed else "every flag was off already")
    for one in done.left:
        typer.echo(f"left as it is: {one.flag}: {one.reason}")
    if done.saved is not None:
        typer.echo(f"the document from before is saved as {done.saved}")
    if not done.served:
        typer.echo("the flags are not (yet) served as written; see otel-diag flags list", err=True)
