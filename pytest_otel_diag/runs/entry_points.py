"""Finds targets and analyzers among installed packages by name. Imports the standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata

from pytest_otel_diag import secret
from pytest_otel_diag.errors import ConfigurationError, nearest

TARGETS = "pytest_otel_diag.targets"
ANALYZERS = "pytest_otel_diag.analyzers"
SCHEMES = "pytest_otel_diag.analyzer_schemes"

PYTHON = "python"
"""Before ``module:attribute``, where the module has the name of a scheme."""

_ATTRIBUTE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")

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


def known_schemes() -> dict[str, metadata.EntryPoint]:
    """Return the entry point of each scheme of analyzers, the word before the first colon, by its name."""
    return {point.name: point for point in metadata.entry_points(group=SCHEMES)}


@dataclass(frozen=True)
class Named:
    """What the text that names an analyzer refers to.

    ``point`` is the entry point of a ``scheme`` (with what follows it as ``rest``) or of an installed
    analyzer; None for ``module:attribute``, which is then ``rest``.
    """

    point: metadata.EntryPoint | None
    rest: str
    scheme: str = ""


def check_analyzer(spec: str) -> Named:
    """Return what *spec* refers to; raises ConfigurationError for an unknown name or scheme.

    A module may become importable only once tests are collected, so it is left for later.
    """
    schemes = known_schemes()
    name, colon, rest = spec.partition(":")
    if colon and name in schemes:
        return Named(schemes[name], rest, name)
    if colon:
        path = rest if name == PYTHON else spec
        if name != PYTHON and not _ATTRIBUTE.fullmatch(rest):
            raise ConfigurationError(
                f"no analyzer {shown(spec)!r}: {name!r} is no scheme{nearest(name, schemes)}, and what "
                f"follows it is no attribute of a Python module; schemes: {', '.join(sorted(schemes))}"
            )
        return Named(None, path)
    known = {point.name: point for point in metadata.entry_points(group=ANALYZERS)}
    if spec not in known:
        raise ConfigurationError(
            f"no analyzer {spec!r}{nearest(spec, known)}; "
            f"known: {', '.join(sorted(known)) or 'none installed'}; "
            "write your own as module:attribute, for example mypkg.agents:diagnose, "
            f"or name an agent as one of {', '.join(f'{scheme}:…' for scheme in sorted(schemes))}"
        )
    return Named(known[spec], "")


def shown(spec: str) -> str:
    """Return the text that names an analyzer with its credentials masked."""
    return str(secret.spec(spec))
