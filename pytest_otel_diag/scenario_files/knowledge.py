"""What the catalog knows of the faults in a file: expectation, timing, and labels to select by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pytest_otel_diag import catalog
from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.model.scenario import Fault, Scenario


def labels(flags: Iterable[str], tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return markers: the flags, and category and severity from the catalog unless *tags* say otherwise.

    Values are markers as they stand, severity with its name before it (``severity_high``).
    """
    known: dict[str, str] = {}
    flags = tuple(flags)
    for entry in _entries(flags):
        known.setdefault("category", str(entry.category))
        known.setdefault("severity", str(entry.severity))
    merged = {**known, **tags}
    values = [f"severity_{value}" if key == "severity" else value for key, value in merged.items()]
    return tuple(dict.fromkeys((*flags, *values)))


def scenario_of(faults: Sequence[Fault], demo: str) -> Scenario | None:
    """Return what the catalog knows of these faults in a release of the demo; None when it knows not all."""
    try:
        return catalog.scenario_for(faults, demo)
    except OtelDiagError:
        return None


def _entries(flags: Iterable[str]) -> Iterator[Any]:
    for flag in flags if hasattr(catalog, "flag") else ():
        try:
            yield catalog.flag(flag)
        except OtelDiagError:
            continue  # flags of other systems, or recorded incidents
