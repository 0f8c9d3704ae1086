"""Finds targets and analyzers among installed packages by name. Imports the standard library only."""

from __future__ import annotations

from importlib import metadata

from pytest_otel_diag.errors import ConfigurationError, nearest

TARGETS = "pytest_otel_diag.targets"
ANALYZERS = "pytest_otel_diag.analyzers"

NO_TARGET = (
    "no system under fault is named; pass --otel-diag-target=shop for the simulated shop, or replay:PATH, "
    "where PATH is a recording or a folder of recordings (environment OTEL_DIAG_TARGET, ini otel_diag_target)"
)


def known_targets() -> dict[str, metadata.EntryPoint]:
    """Return the entry point of each installed kind of target by its name."""
    return {point.name: point for point in metadata.entry_points(group=TARGETS)}


def check_target(target: str) -> metadata.EntryPoint:
    """Return the entry point of a target given as ``name`` or ``name:rest``; raises ConfigurationError."""
    if not target:
        raise ConfigurationError(NO_TARGET)
    kind = target.partition(":")[0]
    known = known_targets()
    if kind not in known:
        raise ConfigurationError(
            f"no target {kind!r} in {target!r}{nearest(kind, known)}; choose from {', '.join(sorted(known))}"
        )
    return known[kind]


def check_analyzer(spec: str) -> None:
    """Raise ConfigurationError for a name that no installed analyzer has; ``module:attribute`` passes.

    A module may become importable only once tests are collected, so it is left for later.
    """
    known = {point.name for point in metadata.entry_points(group=ANALYZERS)}
    if ":" not in spec and spec not in known:
        raise ConfigurationError(
            f"no analyzer {spec!r}{nearest(spec, known)}; "
            f"known: {', '.join(sorted(known)) or 'none installed'}; "
            "write your own as module:attribute, for example mypkg.agents:diagnose"
        )
