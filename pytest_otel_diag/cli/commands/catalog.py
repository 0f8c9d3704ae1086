"""``otel-diag catalog``: the known flags of the OpenTelemetry Demo, and how a real document differs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pytest_otel_diag import catalog as shipped
from pytest_otel_diag.catalog.catalog import Catalog
from pytest_otel_diag.catalog.compare import CatalogComparison, FlagDifference, compare
from pytest_otel_diag.catalog.entries import FlagEntry, Period
from pytest_otel_diag.catalog.page import documented_demo, markdown
from pytest_otel_diag.catalog.scenarios import scenario, ungated, users
from pytest_otel_diag.cli.output import print_facts, print_json, print_table
from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags import document_text

app = typer.Typer(
    help="Known flags of the OpenTelemetry Demo: list them, show one, check a flagd document.",
    no_args_is_help=True,
)

_LOG_WIDTH = 80
_KINDS = {"load": "a change of load, not a failure of a service", "inert": "does nothing as shipped"}

Demo = Annotated[str, typer.Option(help="Release, for example 3.0 or 2.x.")]
Extra = Annotated[
    list[Path] | None,
    typer.Option("--catalog", help="Another catalog file, added to the shipped one (repeatable)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(
    demo: Demo = shipped.DEFAULT_DEMO,
    catalog: Extra = None,
    as_json: AsJson = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the flags of all releases as a Markdown table.")
    ] = False,
) -> None:
    """Show the flags of a release."""
    known = _catalog(catalog)
    if as_markdown:
        typer.echo(markdown(known), nl=False)
        return
    generation = known.generation(demo)
    rows = [_summary(known, known.flag(key), generation.demo) for key in generation.flags]
    if as_json:
        print_json({"demo": generation.demo, "system": generation.system, "flags": rows})
        return
    typer.echo(f"{generation.system} {generation.demo}: {len(rows)} flags")
    lines: list[tuple[str, ...]] = []
    for row in sorted(rows, key=lambda row: str(row["category"])):
        heading = (f"{row['category']}:", "", "", "")
        if heading not in lines:
            lines += [("",) * len(heading), heading]
        lines.append((row["flag"], row["severity"], row["variant"], _right_answer(row)))
    print_table(lines, ("flag", "severity", "variant", "root cause"), in_logs=_LOG_WIDTH)


def _right_answer(row: Mapping[str, Any]) -> str:
    causes = ", ".join(dict.fromkeys(row["root_causes"])) or "none"
    return causes if row["counts"] == "gated" else f"{causes} ({row['counts']})"


@app.command()
def show(
    flag: Annotated[str, typer.Argument(help="A flag, by any of its names.")],
    demo: Annotated[
        str | None, typer.Option(help="Release; the default one, or the newest that has the flag.")
    ] = None,
    catalog: Extra = None,
    as_json: AsJson = False,
) -> None:
    """Show everything that the catalog knows about a flag."""
    known = _catalog(catalog)
    entry = known.flag(flag)
    demos = known.demos(entry)
    chosen = demo or (
        shipped.DEFAULT_DEMO if shipped.DEFAULT_DEMO in demos else documented_demo(known, entry)
    )
    period = known.period(entry, chosen)
    if as_json:
        print_json(
            {
                "demo": chosen,
                "demos": demos,
                "entry": entry.model_dump(mode="json"),
                "scenario": scenario(known, entry.key, None, chosen).model_dump(mode="json"),
            }
        )
        return
    typer.echo(f"{period.name}  {entry.category}, severity {entry.severity}\n")
    print_facts(list(_facts(known, entry, period, chosen)), in_logs=_LOG_WIDTH)


@app.command()
def check(
    document: Annotated[Path, typer.Argument(help="A flagd document, for example demo.flagd.json.")],
    demo: Annotated[
        str | None, typer.Option(help="Release; by default the one that fits the flags best.")
    ] = None,
    catalog: Extra = None,
    as_json: AsJson = False,
) -> None:
    """Compare a real flagd document with the catalog; exit code 1 when they differ."""
    try:
        raw = document.read_bytes()
    except OSError as error:
        raise FlagError(f"the document {document} cannot be read: {error}; name a flagd document") from error
    found = compare(_catalog(catalog), document_text.parse(raw, str(document)).flags, demo)
    if as_json:
        print_json(_comparison(found, document))
    else:
        _print_comparison(found, document)
    raise typer.Exit(0 if found.same else 1)


def _catalog(files: Sequence[Path] | None) -> Catalog:
    known = shipped.load()
    for file in files or ():
        known = known.extended(file)
    return known


def _summary(known: Catalog, entry: FlagEntry, demo: str) -> dict[str, Any]:
    period = known.period(entry, demo)
    variant = known.variant(entry, None, demo)
    expected = known.expectation(entry.key, variant, demo)
    reason = ungated(entry, period, variant)
    return {
        "flag": period.name,
        "category": entry.category,
        "severity": entry.severity,
        "variant": variant,
        "variants": dict(period.variants),
        "default": period.default,
        "root_causes": [cause.service for cause in expected.root_causes],
        "counts": "control" if expected.healthy else "not gated" if reason else "gated",
        "ungated": reason,
    }


def _facts(known: Catalog, entry: FlagEntry, period: Period, demo: str) -> Iterable[tuple[str, str]]:
    yield "does", entry.does
    if entry.kind != "fault":
        yield "kind", _KINDS[entry.kind]
    yield "in detail", f"{entry.behaviour} ({entry.source})"
    for key in ("broken", "inert", "note"):
        if text := getattr(period, key):
            yield f"in {demo}", text
    yield from _spellings(known, entry)
    yield "variants", ", ".join(f"{name} = {json.dumps(value)}" for name, value in period.variants.items())
    yield "as shipped", period.default
    yield "switch by", _switch(period)
    variant = known.variant(entry, None, demo)
    wanted = users(entry, period, variant)
    yield "scenario", f"{period.name}={variant}" + (f", at {wanted} users" if wanted else "")
    for note in entry.variants:
        yield f"at {note.variant}", note.ungated or note.why
    traffic = entry.traffic
    yield "traffic", f"{traffic.requests}; {traffic.per_minute:g} a minute at 5 users ({traffic.source})"
    if traffic.why:
        yield "traffic", traffic.why
    shown = entry.visibility
    yield "shows", f"{shown.shows}; after {shown.seconds:g} s, in {', '.join(shown.signals)} ({shown.source})"
    if entry.cleanup is not None:
        yield "leaves", f"{entry.cleanup.residue} {entry.cleanup.reset} ({entry.cleanup.source})"
    yield from _answer(known, entry, demo)
    yield "diagnosable", f"{'yes' if entry.diagnosable.answer else 'no'}. {entry.diagnosable.why}"


def _spellings(known: Catalog, entry: FlagEntry) -> Iterable[tuple[str, str]]:
    for period in entry.periods:
        demos = [demo for demo in known.demos(entry) if known.period(entry, demo) is period]
        # A fact about a flag cannot be surer than what is known about the release as a whole.
        doubtful = [demo for demo in demos if known.generation(demo).release.source != period.source]
        doubt = (
            f", of {', '.join(doubtful)} {known.generation(doubtful[0]).release.source}" if doubtful else ""
        )
        yield "name", f"{period.name} in {', '.join(demos)} ({period.source}{doubt})"
    if entry.absent:
        yield "absent", entry.absent


def _switch(period: Period) -> str:
    if period.targeting is None:
        return "defaultVariant"
    context = ", ".join(f"{key}={value}" for key, value in period.context.items())
    return f"position 1 of its rule, targeting.if[1]; ask with {context or 'no context'}"


def _answer(known: Catalog, entry: FlagEntry, demo: str) -> Iterable[tuple[str, str]]:
    answer = known.answer(entry, demo)

    def name(service: str) -> str:
        return known.service(service, demo)

    if answer.healthy:
        yield "right answer", "nothing is wrong"
    for anomaly in answer.anomalies:
        place = f"{name(anomaly.service)} {anomaly.operation or ''}".strip()
        yield "expected", f"{place}: {anomaly.signal} {anomaly.direction}. {anomaly.why}"
    for path in answer.paths:
        yield "path", " → ".join(map(name, path))
    for cause in answer.root_causes:
        place = f"{name(cause.service)} {cause.operation or ''}".strip()
        yield "root cause", f"{place}: {' or '.join(cause.mechanisms)}. {cause.why}"
    for herring in answer.red_herrings:
        if herring.service not in known.generation(demo).services:
            continue
        yield "red herring", f"{name(herring.service)}. {herring.why}"


def _comparison(found: CatalogComparison, document: Path) -> dict[str, Any]:
    return {
        "document": str(document),
        "demo": found.demo,
        "guessed": found.guessed,
        "alike": found.alike,
        "same": found.same,
        "on": found.on,
        "differences": [vars(difference) for difference in found.differences],
    }


def _print_comparison(found: CatalogComparison, document: Path) -> None:
    how = "fits best" if found.guessed else "was asked for"
    alike = f" (as well as {', '.join(found.alike)})" if found.alike else ""
    typer.echo(f"{document}: demo {found.demo} {how}{alike}")
    if found.on:
        typer.echo(f"on: {', '.join(found.on)}")
    if found.same:
        typer.echo("as shipped")
        return
    rows = [(item.flag, item.kind, _described(item)) for item in found.differences]
    print_table(rows, ("flag", "", "difference"), in_logs=_LOG_WIDTH)
    typer.echo(f"{len(found.differences)} differences")


def _described(item: FlagDifference) -> str:
    if item.kind == "missing":
        return "the document lacks it"
    if item.kind == "unknown":
        return f"the catalog has it {item.note}"
    note = f" ({item.note})" if item.note else ""
    return f"{item.expected} in the catalog, {item.found} in the document{note}"
