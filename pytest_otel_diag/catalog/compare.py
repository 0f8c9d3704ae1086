"""Compares the flags of a real document with the catalog and finds the release that fits best."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pytest_otel_diag.catalog.catalog import Catalog
from pytest_otel_diag.catalog.entries import Period
from pytest_otel_diag.catalog.system import Generation
from pytest_otel_diag.errors import OtelDiagError, nearest
from pytest_otel_diag.model.flags import Flag

DifferenceKind = Literal["missing", "unknown", "variants", "value", "default", "targeting", "state"]


@dataclass(frozen=True)
class FlagDifference:
    """One difference between a document and the catalog."""

    kind: DifferenceKind
    flag: str
    expected: str
    found: str
    note: str = ""


@dataclass(frozen=True)
class CatalogComparison:
    """A document compared with one release.

    ``alike`` are further releases that fit equally well; ``on`` are the flags that are set to another variant
    than as shipped, as ``flag=variant``.
    """

    demo: str
    guessed: bool
    alike: tuple[str, ...]
    differences: tuple[FlagDifference, ...]
    on: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the document is as shipped."""
        return not self.differences


def compare(catalog: Catalog, flags: Mapping[str, Flag], demo: str | None = None) -> CatalogComparison:
    """Return how *flags* differ from the release (None: the one that fits best).

    Of releases that fit equally well the newest wins. Raises ConfigurationError for an unknown release.
    """
    if demo is not None:
        return _against(catalog, flags, catalog.generation(demo))
    tried = [_against(catalog, flags, catalog.generation(name)) for name in catalog.demos()]
    fit = {one.demo: _misfit(one) for one in tried}
    best = min(reversed(tried), key=lambda one: fit[one.demo])
    alike = tuple(one.demo for one in tried if fit[one.demo] == fit[best.demo] and one.demo != best.demo)
    return CatalogComparison(best.demo, guessed=True, alike=alike, differences=best.differences, on=best.on)


def _misfit(one: CatalogComparison) -> tuple[int, int]:
    """Return how badly a release fits: unknown flags and other contents first, then missing flags.

    Switched flags do not count, since switching is what the document is for.
    """
    kinds = [item.kind for item in one.differences]
    other = sum(kind in ("variants", "value", "targeting") for kind in kinds)
    return 2 * kinds.count("unknown") + other, kinds.count("missing")


def _against(catalog: Catalog, flags: Mapping[str, Flag], generation: Generation) -> CatalogComparison:
    shipped = {period.name: period for period in generation.flags.values()}
    differences = [
        FlagDifference("missing", name, "a flag", "none", "services use their own defaults")
        for name in shipped
        if name not in flags
    ]
    on = []
    for name, flag in flags.items():
        period = shipped.get(name)
        if period is None:
            differences.append(
                FlagDifference("unknown", name, "no such flag", "a flag", _elsewhere(catalog, name))
            )
            continue
        differences += _flag(flag, period)
        served = _served(flag)
        if flag.enabled and served != _served_as_shipped(period):
            on.append(f"{name}={served}")
    return CatalogComparison(
        generation.demo, guessed=False, alike=(), differences=tuple(differences), on=tuple(on)
    )


def _elsewhere(catalog: Catalog, name: str) -> str:
    try:
        entry = catalog.flag(name)
    except OtelDiagError:
        return (
            f"in no release{nearest(name, [spelling for flag in catalog.flags for spelling in flag.names])}"
        )
    where = [demo for demo in catalog.demos(entry) if catalog.period(entry, demo).name == name]
    if not where:
        return f"spelt {entry.key!r}"
    return (
        f"in {', '.join(where)}"
        if name == entry.key
        else f"{entry.key!r} by the name it has in {', '.join(where)}"
    )


def _flag(flag: Flag, period: Period) -> Iterator[FlagDifference]:
    if not flag.enabled:
        yield FlagDifference("state", flag.key, "ENABLED", "DISABLED", "services use their own defaults")
    if set(flag.variants) != set(period.variants):
        yield FlagDifference("variants", flag.key, ", ".join(period.variants), ", ".join(flag.variants))
    for name, value in period.variants.items():
        if name in flag.variants and not _same(flag.variants[name], value):
            value_found = json.dumps(flag.variants[name])
            yield FlagDifference(
                "value", flag.key, f"{name} is {json.dumps(value)}", f"{name} is {value_found}"
            )
    default, shipped = flag.default_variant, period.default
    if _open(flag.targeting, default) != _open(period.targeting, shipped):
        yield FlagDifference("targeting", flag.key, _shown(period.targeting), _shown(flag.targeting))
    elif _choice(flag.targeting, default) != _choice(period.targeting, shipped):
        expected, found = _choice(period.targeting, shipped), _choice(flag.targeting, default)
        yield FlagDifference("default", flag.key, f"rule gives {expected}", f"rule gives {found}", "switched")
    if flag.default_variant != period.default:
        note = "a rule decides, so this has no effect" if flag.targeting else "switched"
        yield FlagDifference("default", flag.key, period.default, flag.default_variant or "none", note)


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _choice(targeting: Mapping[str, Any] | None, default: str) -> str | None:
    """Return the variant in a rule ``{"if": [condition, variant, …]}``, where the flag is switched.

    A null there means *default*.
    """
    arguments = (targeting or {}).get("if")
    if isinstance(arguments, list) and len(arguments) > 1:
        if arguments[1] is None:
            return default
        if isinstance(arguments[1], str):
            return arguments[1]
    return None


def _open(targeting: Mapping[str, Any] | None, default: str) -> Any:
    """Return the rule without the part that switching changes."""
    if not targeting or _choice(targeting, default) is None:
        return targeting or None
    condition, _, *rest = targeting["if"]
    return {**targeting, "if": [condition, None, *rest]}


def _served(flag: Flag) -> str:
    return _choice(flag.targeting, flag.default_variant) or flag.default_variant


def _served_as_shipped(period: Period) -> str:
    return _choice(period.targeting, period.default) or period.default


def _shown(targeting: Mapping[str, Any] | None) -> str:
    return json.dumps(targeting, ensure_ascii=False) if targeting else "no rule"
