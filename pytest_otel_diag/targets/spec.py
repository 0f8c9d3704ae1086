"""Specs of targets: ``key=value,...`` after the name of the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pytest_otel_diag.errors import ConfigurationError, nearest

Readers = Mapping[str, Callable[[str, str], Any]]
"""Option → parser, which gets the option's name and its text."""


def parse_spec(spec: str, readers: Readers, *, target: str, example: str) -> dict[str, Any]:
    """Return the values of ``key=value,...``; raises ConfigurationError that names the mistake."""
    values: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in spec.removeprefix(f"{target}:").split(","))):
        key, separator, text = (piece.strip() for piece in part.partition("="))
        if key not in readers:
            raise ConfigurationError(
                f"the target {target} has no option {key!r}{nearest(key, readers)}; "
                f"choose from {', '.join(readers)}, written {target}:{example}"
            )
        if not separator or not text:
            raise ConfigurationError(f"option {key!r} of the target {target} needs a value: {key}=…")
        values[key] = readers[key](key, text)
    return values
