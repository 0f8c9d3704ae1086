"""What a span of some kind looks like, built once per kind: spans then cost little to make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from pytest_otel_diag.shop.emission.instruments import MetricShape, Series
from pytest_otel_diag.shop.kernel.failures import RpcFailure
from pytest_otel_diag.shop.records import Attributes, Scope, SpanKind, StatusCode

EventShape: TypeAlias = tuple[str, Attributes]
NO_ATTRIBUTES: Attributes = {}


class Outcome(NamedTuple):
    """What the end of a span adds: status, attributes, and events (name, attributes)."""

    status: StatusCode = "Unset"
    message: str = ""
    attributes: Attributes = NO_ATTRIBUTES
    events: tuple[EventShape, ...] = ()


PLAIN = Outcome()


def exception_event(kind: str, message: str, stacktrace: str = "", *, escaped: bool = False) -> EventShape:
    """Return the event that records an exception (semantic conventions, exceptions on spans)."""
    attributes: dict[str, str] = {"exception.type": kind, "exception.message": message}
    if stacktrace:
        attributes["exception.stacktrace"] = stacktrace
    if escaped:
        attributes["exception.escaped"] = "True"
    return ("exception", attributes)


def errored(failure: RpcFailure) -> Outcome:
    """Return the plain outcome of a failure: status Error with its message."""
    return Outcome("Error", failure.message)


@dataclass(frozen=True, eq=False)
class SpanShape:
    """A kind of span. Attributes are static; ``ok`` and ``failed`` say what its end adds.

    ``duration`` is a histogram that gets every duration (in the instrument's unit, "s" or "ms"), with
    ``duration_series`` as its attributes and, after a failure, ``failed_series(failure)`` instead.
    """

    name: str
    kind: SpanKind
    scope: Scope
    attributes: Attributes = field(default_factory=dict)
    ok: Outcome = PLAIN
    failed: Callable[[RpcFailure], Outcome] = errored
    duration: MetricShape | None = None
    duration_series: Series = ()
    failed_series: Callable[[RpcFailure], Series] | None = None
    finished: Attributes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # the whole mapping of a span that adds nothing dynamic: shared by all of these
        object.__setattr__(self, "finished", {**self.attributes, **self.ok.attributes})


def described(**attributes: str | bool | int | float) -> Mapping[str, str | bool | int | float]:
    """Return attributes written as keywords, with ``__`` for the dots: ``rpc__system="grpc"``."""
    return {name.replace("__", "."): value for name, value in attributes.items()}
