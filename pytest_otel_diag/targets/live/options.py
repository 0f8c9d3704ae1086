"""Options of the target ``live``, parsed from its spec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pytest_otel_diag import catalog
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.targets.spec import parse_spec

AUTO = "auto"

WAITING = "waiting: "
"""What a notice starts with that says what a session waits for."""


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Requirements on a live system before a session. Times are in seconds.

    ``demo`` is the release; ``auto`` identifies it by the flags. The newest telemetry may be ``fresh_s`` old.
    A session waits up to ``wait_s`` for fresh telemetry and traffic. ``rate`` limits driven traffic, in
    visits per second. ``reference_s`` is the amount of quiet telemetry from before a session that analyzers
    get beside its baseline.
    """

    demo: str = AUTO
    fresh_s: float = 30.0
    wait_s: float = 90.0
    rate: float = 1.0
    reference_s: float = 0.0

    @classmethod
    def parse(cls, spec: str) -> LiveOptions:
        """Return the options of ``key=value,...``; raises ConfigurationError."""
        return cls(**parse_spec(spec, _READERS, target="live", example="demo=3.0,fresh_s=30"))


def _release(_key: str, text: str) -> str:
    return text if text == AUTO else catalog.generation(text).demo


def _number(low: float, high: float) -> Callable[[str, str], float]:
    def read(key: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ConfigurationError(
                f"{key}={text!r} of the target live is not a number from {low:g} to {high:g}"
            )
        return value

    return read


_READERS: dict[str, Callable[[str, str], Any]] = {
    "demo": _release,
    "fresh_s": _number(1.0, 3600.0),
    "wait_s": _number(0.0, 3600.0),
    "rate": _number(0.05, 20.0),
    "reference_s": _number(0.0, 3600.0),
}
