"""Static part of a kind of span, built once so that recording a span is cheap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from pytest_otel_diag.shop.emission.instruments import MetricShape, Series
from pytest_otel_diag.shop.kernel.resources.failures import RpcFailure
from pytest_otel_diag.shop.records import Attributes, Scope, SpanKind, StatusCode

EventShape: TypeAlias = tuple[str, Attributes]
NO_ATTRIBUTES: Attributes = {}


class SpanOutcome(NamedTuple):
    """Status, attributes and events (name, attributes) that are set when a span ends."""

    status: StatusCode = "Unset"
    message: str = ""
    attributes: Attributes = NO_ATTRIBUTES
    events: tuple[EventShape, ...] = ()


UNSET = SpanOutcome()


def exception_event(kind: str, message: str, stacktrace: str = "", *, escaped: bool = False) -> EventShape:
    """Return the span event of an exception, as the semantic conventions define it."""
    attributes: dict[str, str] = {"exception.type": kind, "exception.message": message}
    if stacktrace:
        attributes["exception.stacktrace"] = stacktrace
    if escaped:
        attributes["exception.escaped"] = "True"
    return ("exception", attributes)


def errored(failure: RpcFailure) -> SpanOutcome:
    """Return status Error with the message of *failure*."""
    return SpanOutcome("Error", failure.message)


@dataclass(frozen=True, eq=False)
class SpanShape:
    """A kind of span: static attributes, and the outcomes ``ok`` and ``failed`` that are set at its end.

    Each duration goes to the histogram ``duration`` (in the instrument's unit, "s" or "ms"), with
    ``duration_series`` as attributes and, after a failure, ``failed_series(failure)`` instead.
    """

    name: str
    kind: SpanKind
    scope: Scope
    attributes: Attributes = field(default_factory=dict)
    ok: SpanOutcome = UNSET
    failed: Callable[[RpcFailure], SpanOutcome] = errored
    duration: MetricShape | None = None
    duration_series: Series = ()
    failed_series: Callable[[RpcFailure], Series] | None = None
    finished: Attributes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # all attributes of a successful span without dynamic ones; such spans share the mapping
        object.__setattr__(self, "finished", {**self.attributes, **self.ok.attributes})


def described(**attributes: str | bool | int | float) -> Mapping[str, str | bool | int | float]:
    """Return attributes given as keywords with ``__`` for dots: ``rpc__system="grpc"``."""
    return {name.replace("__", "."): value for name, value in attributes.items()}
