"""What the catalog knows of the faults in a file: expectation, timing, and labels to select by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pytest_otel_diag import catalog
from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.model.scenario import Environment, Fault, Scenario, Timing


def labels(flags: Iterable[str], tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return markers: the flags, and category and severity from the catalog unless *tags* say otherwise.

    Values are markers as they stand, severity with its name before it (``severity_high``). Of several
    flags the first one gives category and severity.
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


def scenario_of(faults: Sequence[Fault], demo: str) -> Scenario | None:
    """Return what the catalog knows of these faults in a release of the demo; None when it knows not all.

    Several faults together are given the longest times and the most users that one of them needs.
    """
    try:
        parts = [catalog.scenario(fault.flag, fault.variant, demo) for fault in faults]
        expectation = catalog.load().combined(faults, demo)
    except OtelDiagError:
        return None
    merged = tuple(_with_schedule(part.faults[0], given) for part, given in zip(parts, faults, strict=True))
    if len(parts) == 1:
        return parts[0].model_copy(update={"faults": merged})
    first = parts[0]
    return first.model_copy(
        update={
            "id": "+".join(part.id for part in parts),
            "faults": merged,
            "expectation": expectation,
            "environment": Environment(
                demo=first.environment.demo,
                users=_most(part.environment.users for part in parts),
                browser_users=_most(part.environment.browser_users for part in parts),
            ),
            "ungated": "; ".join(dict.fromkeys(part.ungated for part in parts if part.ungated)),
            "timing": Timing(
                baseline_s=max(part.timing.baseline_s for part in parts),
                impact_timeout_s=max(part.timing.impact_timeout_s for part in parts),
                observe_s=max(part.timing.observe_s for part in parts),
            ),
        }
    )


def other_release_only(fault: Fault, demo: str) -> str:
    """Return which releases have the flag and variant when *demo* has not.

    Empty when it has them, and for what no release has: that is a mistake.
    """
    known = catalog.load()
    try:
        entry = catalog.flag(fault.flag)
        own = catalog.generation(demo).demo
    except OtelDiagError:
        return ""
    there = [
        release
        for release in known.demos(entry)
        if fault.variant is None or fault.variant in known.period(entry, release).variants
    ]
    return "" if own in there else ", ".join(there)


def _with_schedule(known: Fault, given: Fault) -> Fault:
    update = {name: getattr(given, name) for name in given.model_fields_set - {"flag", "variant", "context"}}
    return known.model_copy(update=update)


def _most(numbers: Iterable[int | None]) -> int | None:
    return max((number for number in numbers if number is not None), default=None)


def _entries(flags: Iterable[str]) -> Iterator[tuple[str, catalog.FlagEntry | None]]:
    for flag in flags:
        try:
            yield flag, catalog.flag(flag)
        except OtelDiagError:
            yield flag, None  # a flag of another system, or a recorded incident
