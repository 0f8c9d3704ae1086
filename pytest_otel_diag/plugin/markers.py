"""The markers. Each is a frozen type, whose signature validates and documents its use."""

from __future__ import annotations

import inspect
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, get_args

import pytest

from pytest_otel_diag.errors import nearest


@dataclass(frozen=True, slots=True)
class OtelFlag:
    """Turn a feature flag on for the test (repeatable), now or by a schedule in seconds from the injection.

    steps={60: "50%"} changes the variant 60 s after its start.
    """

    name: ClassVar[str] = "otel_flag"
    key: str
    variant: str | None = None
    at_s: float = 0.0
    until_s: float | None = None
    every_s: float | None = None
    steps: Mapping[float, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OtelDisturb:
    """Make a harmless change: 'load' (times factor), 'restart', 'gc' or 'text' of a service (repeatable)."""

    name: ClassVar[str] = "otel_disturb"
    kind: str
    service: str | None = None
    factor: float = 2.0
    at_s: float = 0.0
    text: str | None = None
    accuses: str | None = None
    where: tuple[str, ...] = ("log", "attribute", "baggage")
    share: float = 0.2


@dataclass(frozen=True, slots=True)
class OtelEnvironment:
    """Ask for a kind of simulated system: demo release, users, browser users, seed, jitter of topology."""

    name: ClassVar[str] = "otel_environment"
    demo: str | None = None
    users: int | None = None
    browser_users: int | None = None
    seed: int | None = None
    jitter: bool | None = None

    def given(self) -> dict[str, str | int | bool]:
        """Return the fields that the test set."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class OtelUngated:
    """Run and show the session, but leave it out of the gate, for this reason."""

    name: ClassVar[str] = "otel_ungated"
    reason: str

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str) or not self.reason.strip():
            raise ValueError(f"reason={self.reason!r}: give the reason why the scenario does not count")


@dataclass(frozen=True, slots=True)
class OtelControl:
    """Run without a fault: the right answer is that nothing is wrong."""

    name: ClassVar[str] = "otel_control"


@dataclass(frozen=True, slots=True)
class OtelScenario:
    """Run a scenario that the target knows by itself, for example a recorded incident."""

    name: ClassVar[str] = "otel_scenario"
    id: str


@dataclass(frozen=True, slots=True)
class OtelRecorded:
    """Run once for each 'incidents' or 'controls' of the recording."""

    name: ClassVar[str] = "otel_recorded"
    kind: str

    def __post_init__(self) -> None:
        if self.kind not in ("incidents", "controls"):
            hint = nearest(self.kind, ("incidents", "controls"))
            raise ValueError(f"kind={self.kind!r}: choose 'incidents' or 'controls'{hint}")


@dataclass(frozen=True, slots=True)
class OtelTarget:
    """Run on this kind of target only ('shop', or several as a tuple); skipped on others."""

    name: ClassVar[str] = "otel_target"
    kinds: str | tuple[str, ...]

    def each(self) -> tuple[str, ...]:
        """Return the kinds."""
        return (self.kinds,) if isinstance(self.kinds, str) else self.kinds


@dataclass(frozen=True, slots=True)
class OtelExpect:
    """State the right answer, replacing what the target knows."""

    name: ClassVar[str] = "otel_expect"
    root_cause: str | tuple[str, ...] = ()
    operation: str | None = None
    mechanism: str | tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    not_blamed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.root_cause and (self.operation or self.mechanism):
            raise ValueError("operation and mechanism belong to a root_cause; name the service")


@dataclass(frozen=True, slots=True)
class OtelTiming:
    """Change how long the phases of the session may take, in seconds."""

    name: ClassVar[str] = "otel_timing"
    baseline_s: float | None = None
    observe_s: float | None = None
    impact_timeout_s: float | None = None
    impact_poll_s: float | None = None
    recover_timeout_s: float | None = None
    analyze_timeout_s: float | None = None

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
                raise ValueError(f"{name}={value!r}: must be a number of seconds, at least 0")

    def given(self) -> dict[str, float]:
        """Return the fields that the test set."""
        values = {field: getattr(self, field) for field in self.__slots__}
        return {field: value for field, value in values.items() if value is not None}


Marker = (
    OtelFlag
    | OtelControl
    | OtelScenario
    | OtelRecorded
    | OtelExpect
    | OtelTiming
    | OtelDisturb
    | OtelEnvironment
    | OtelUngated
    | OtelTarget
)
MARKERS: dict[str, type[Marker]] = {kind.name: kind for kind in get_args(Marker)}

_LABELS: pytest.StashKey[set[str]] = pytest.StashKey()
"""On the configuration: names of marks that this plugin made from tags and flags of scenarios."""

_NOT_A_NAME = re.compile(r"\W+")


def registration_lines() -> Iterator[str]:
    """Yield the line of each marker for ``pytest --markers``."""
    for name, kind in MARKERS.items():
        yield f"{name}{_signature(kind)}: {inspect.getdoc(kind)}"


def _signature(kind: type[Marker]) -> str:
    """Return the parameters of a marker with their defaults, as ``(key, variant=None)``."""
    parameters = inspect.signature(kind).parameters.values()
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    return str(inspect.Signature(bare))


def label_name(text: str) -> str:
    """Return *text* as the name of a mark; empty where no character of it can be in a name."""
    return _NOT_A_NAME.sub("_", text).strip("_")


def register_label(config: pytest.Config, name: str, meaning: str) -> None:
    """Register a mark that the plugin makes: strict markers and :func:`markers_of` then accept it."""
    labels = config.stash.setdefault(_LABELS, set())
    if name not in labels:
        labels.add(name)
        config.addinivalue_line("markers", f"{name}: {meaning}")


def markers_of(item: pytest.Item) -> tuple[list[Marker], list[str]]:
    """Return our markers of the item, and a sentence for every mistake in them."""
    labels: set[str] = item.config.stash.get(_LABELS, set())
    return parse(item.iter_markers(), labels)


def parse(
    marks: Iterable[pytest.Mark], labels: Container[str] = frozenset()
) -> tuple[list[Marker], list[str]]:
    """Return our markers among *marks*, and a sentence for every mistake in them.

    *labels* are names that are no misspelt markers, whatever they begin with.
    """
    parsed: list[Marker] = []
    mistakes: list[str] = []
    for mark in marks:
        if mark.name not in MARKERS:
            if mark.name.startswith("otel_") and mark.name not in labels:
                known = ", ".join(MARKERS)
                mistakes.append(
                    f"@pytest.mark.{mark.name} is not a marker of otel-diag{nearest(mark.name, MARKERS)}; "
                    f"known: {known}"
                )
            continue
        try:
            parsed.append(MARKERS[mark.name](*mark.args, **mark.kwargs))
        except (TypeError, ValueError) as error:
            reason = str(error).replace(f"{MARKERS[mark.name].__name__}.__init__()", "it")
            mistakes.append(
                f"@pytest.mark.{mark.name}: {reason}; use {mark.name}{_signature(MARKERS[mark.name])}"
            )
    return parsed, mistakes
