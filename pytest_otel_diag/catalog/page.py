"""The flags of all releases as a Markdown table, for a page of documentation."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_otel_diag.catalog.catalog import Catalog
from pytest_otel_diag.catalog.entries import FlagEntry
from pytest_otel_diag.catalog.scenarios import ungated, users

_HEADER = ("flag", "also called", "releases", "category", "severity", "scenario", "root cause", "counts")


def markdown(catalog: Catalog) -> str:
    """Return one row a flag, each told for the newest release that has it, completely known ones first."""
    rows = [_HEADER, ("---",) * len(_HEADER), *(tuple(_row(catalog, flag)) for flag in catalog.flags)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(catalog: Catalog, flag: FlagEntry) -> Iterator[str]:
    there = catalog.demos(flag)
    demo = documented_demo(catalog, flag)
    period = catalog.period(flag, demo)
    variant = catalog.variant(flag, None, demo)
    expected = catalog.expectation(flag.key, variant, demo)
    asked = users(flag, period, variant)
    yield f"`{flag.key}`"
    yield ", ".join(f"`{name}`" for name in (*flag.names[1:], *flag.aliases))
    yield there[0] if there[0] == there[-1] else f"{there[0]}–{there[-1]}" + _gaps(catalog, there)
    yield flag.category
    yield flag.severity
    yield f"`{variant}`" + (f", {asked} users" if asked else "")
    yield ", ".join(dict.fromkeys(cause.service for cause in expected.root_causes)) or "–"
    if expected.healthy:
        yield "as a control"
    else:
        yield "no" if ungated(flag, period, variant) else "yes"


def documented_demo(catalog: Catalog, flag: FlagEntry) -> str:
    """Return the release that a flag is told for: the newest completely known one that has it."""
    there = catalog.demos(flag)
    complete = [demo for demo in there if catalog.generation(demo).release.known == "complete"]
    return (complete or there)[-1]


def _gaps(catalog: Catalog, there: tuple[str, ...]) -> str:
    order = catalog.demos()
    within = order[order.index(there[0]) : order.index(there[-1]) + 1]
    missing = [demo for demo in within if demo not in there]
    return f" without {', '.join(missing)}" if missing else ""
