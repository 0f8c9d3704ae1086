"""What the catalog adds to the faults of a file: expectation, timing, and labels to select by."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from pytest_otel_diag import catalog
from pytest_otel_diag.errors import OtelDiagError, nearest
from pytest_otel_diag.model.scenario import Fault, Scenario


def labels(flags: Iterable[str], tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return markers: the flags, and category and severity from the catalog unless *tags* say otherwise.

    Values are markers as they are, severity with a prefix (``severity_high``). The first of several flags
    gives category and severity.
    """
    known: dict[str, str] = {}
    names: list[str] = []
    for flag, entry in _entries(flags):
        names.append(entry.key if entry is not None else flag)
        if entry is not None:
            known.setdefault("category", entry.category)
            known.setdefault("severity", entry.severity)
    merged = {**known, **tags}
    values = [f"severity_{value}" if key == "severity" else value for key, value in merged.items()]
    return tuple(dict.fromkeys((*names, *values)))


def unknown_targets(kinds: Iterable[str], known: Collection[str]) -> list[str]:
    """Return a sentence for each kind of target that is not among the *known* ones."""
    return [
        f"no target {kind!r}{nearest(kind, known)}; choose from {', '.join(sorted(known))}"
        for kind in kinds
        if kind not in known
    ]


def scenario_of(faults: Sequence[Fault], demo: str) -> Scenario | None:
    """Return the catalog's scenario of these faults in a release; None unless it knows all of them.

    The faults keep their schedules and contexts; see :func:`pytest_otel_diag.catalog.together`.
    """
    try:
        return catalog.together(faults, demo) if faults else None
    except OtelDiagError:
        return None


def other_release_only(fault: Fault, demo: str) -> str:
    """Return the releases that have the flag and variant when *demo* does not.

    Empty when it has them, and when no release has them, which is a mistake.
    """
    known = catalog.load()
    try:
        entry = catalog.flag(fault.flag)
        own = catalog.generation(demo).demo
    except OtelDiagError:
        return ""
    releases = [
        release
        for release in known.demos(entry)
        if fault.variant is None or fault.variant in known.period(entry, release).variants
    ]
    return "" if own in releases else ", ".join(releases)


def _entries(flags: Iterable[str]) -> Iterator[tuple[str, catalog.FlagEntry | None]]:
    for flag in flags:
        try:
            yield flag, catalog.flag(flag)
        except OtelDiagError:
            yield flag, None  # a flag of another system, or a recorded incident
