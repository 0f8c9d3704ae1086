"""The flags of all releases as a Markdown table, for a page of documentation."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_otel_diag.catalog.catalog import Catalog
from pytest_otel_diag.catalog.entries import FlagEntry
from pytest_otel_diag.catalog.scenarios import ungated, users

_HEADER = ("flag", "also called", "releases", "category", "severity", "scenario", "root cause", "counts")


def markdown(catalog: Catalog) -> str:
    """Return one row per flag, described for the newest completely known release that has it."""
    rows = [_HEADER, ("---",) * len(_HEADER), *(tuple(_row(catalog, flag)) for flag in catalog.flags)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(catalog: Catalog, flag: FlagEntry) -> Iterator[str]:
    demos = catalog.demos(flag)
    demo = documented_demo(catalog, flag)
    period = catalog.period(flag, demo)
    variant = catalog.variant(flag, None, demo)
    expected = catalog.expectation(flag.key, variant, demo)
    asked = users(flag, period, variant)
    yield f"`{flag.key}`"
    yield ", ".join(f"`{name}`" for name in (*flag.names[1:], *flag.aliases))
    yield demos[0] if demos[0] == demos[-1] else f"{demos[0]}–{demos[-1]}" + _gaps(catalog, demos)
    yield flag.category
    yield flag.severity
    yield f"`{variant}`" + (f", {asked} users" if asked else "")
    yield ", ".join(dict.fromkeys(cause.service for cause in expected.root_causes)) or "–"
    if expected.healthy:
        yield "as a control"
    else:
        yield "no" if ungated(flag, period, variant) else "yes"


def documented_demo(catalog: Catalog, flag: FlagEntry) -> str:
    """Return the release for which a flag is described: the newest completely known one that has it."""
    demos = catalog.demos(flag)
    complete = [demo for demo in demos if catalog.generation(demo).release.known == "complete"]
    return (complete or demos)[-1]


def _gaps(catalog: Catalog, demos: tuple[str, ...]) -> str:
    order = catalog.demos()
    within = order[order.index(demos[0]) : order.index(demos[-1]) + 1]
    missing = [demo for demo in within if demo not in demos]
    return f" without {', '.join(missing)}" if missing else ""
