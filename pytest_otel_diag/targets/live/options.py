"""Options of the target ``live``: what its spec says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pytest_otel_diag import catalog
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.targets.spec import parse_spec

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """What is asked of a live system before a session.

    ``demo`` is its release, ``auto`` finds it by its flags. The newest telemetry may be ``fresh_s`` old.
    A session waits ``wait_s`` for fresh telemetry and for traffic before it gives up. ``rate`` is how many
    visits a second the target makes at most when it drives traffic. ``reference_s`` is how much quiet
    telemetry from before a session is offered beside its baseline. Times are in seconds.
    """

    demo: str = AUTO
    fresh_s: float = 30.0
    wait_s: float = 90.0
    rate: float = 1.0
    reference_s: float = 0.0

    @classmethod
    def parse(cls, spec: str) -> LiveOptions:
        """Return the options of ``key=value,...``; raises ConfigurationError naming what is wrong."""
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
