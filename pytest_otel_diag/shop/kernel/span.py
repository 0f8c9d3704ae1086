"""A span that has begun, until its end makes it a record."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from simpy import Interrupt

from pytest_otel_diag.shop.kernel.failures import RpcFailure, cancelled
from pytest_otel_diag.shop.kernel.shapes import NO_ATTRIBUTES, SpanShape
from pytest_otel_diag.shop.records import (
    Attributes,
    AttributeValue,
    EventRecord,
    LinkRecord,
    SpanRecord,
    StatusCode,
)

if TYPE_CHECKING:
    from pytest_otel_diag.shop.kernel.call import Call


class Span:
    """A span that has begun. Used as a context manager; what leaves it as an RpcFailure fails it."""

    __slots__ = (
        "_attributes", "_call", "_events", "_links", "_message", "_status", "name", "parent", "parent_id",
        "shape", "span_id", "start_s", "trace_id",
    )  # fmt: skip

    def __init__(self, call: Call, shape: SpanShape, dynamic: dict[str, AttributeValue] | None) -> None:
        self._call = call
        self.shape = shape
        self.name = shape.name
        self.parent = call.current
        self.trace_id = call.trace_id
        self.parent_id = call.parent_id
        self.span_id = f"{call.world.ids.getrandbits(64):016x}"
        self.start_s: float = call.env.now
        self._attributes: dict[str, AttributeValue] | None = dynamic or None
        self._events: list[EventRecord] | None = None
        self._links: list[LinkRecord] | None = None
        self._status: StatusCode | None = None
        self._message = ""

    def set(self, attributes: Attributes) -> None:
        """Set attributes."""
        if self._attributes is None:
            self._attributes = {}
        self._attributes.update(attributes)

    def event(self, name: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Add an event that happens now."""
        if self._events is None:
            self._events = []
        self._events.append(EventRecord(self._call.stamp_ns(self._call.env.now), name, attributes))

    def link(self, trace_id: str, span_id: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Link to a span of another trace."""
        if self._links is None:
            self._links = []
        self._links.append(LinkRecord(trace_id, span_id, attributes))

    def status(self, status: StatusCode, message: str = "") -> None:
        """Set the status; the span's outcome does not override it."""
        self._status = status
        self._message = message

    def __enter__(self) -> Span:
        call = self._call
        call.current = self
        call.parent_id = self.span_id
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        call = self._call
        call.current = self.parent
        call.parent_id = self.parent_id
        failure: RpcFailure | None = None
        if error is not None:
            if isinstance(error, RpcFailure):
                failure = error
            elif isinstance(error, (Interrupt, GeneratorExit)):
                failure = cancelled()
            else:
                return
        if call.instance.alive and kind is not GeneratorExit:
            self._record(failure)

    def _record(self, failure: RpcFailure | None) -> None:
        call, shape = self._call, self.shape
        instance = call.instance
        end_s: float = call.env.now
        outcome = shape.ok if failure is None else shape.failed(failure)
        attributes: Attributes
        if failure is None and self._attributes is None:
            attributes = shape.finished
        else:
            attributes = {**shape.attributes, **outcome.attributes, **(self._attributes or NO_ATTRIBUTES)}
        if outcome.events:
            for name, event_attributes in outcome.events:
                self.event(name, event_attributes)
        status, message = outcome.status, outcome.message
        if self._status is not None:
            status, message = self._status, self._message
        world = call.world
        base = world.start_ns
        # whole nanoseconds of both ends, so that a child never sticks out of its parent by rounding
        begun, ended = int(self.start_s * 1e9), int(end_s * 1e9)
        buffer = instance.spans
        now_ns = base + ended
        if now_ns >= buffer.deadline_ns:
            buffer.roll(now_ns)
        buffer.records.append(
            SpanRecord(
                buffer.exported_ns,
                base + begun + instance.host.skew_ns,
                ended - begun,
                self.trace_id,
                self.span_id,
                self.parent_id,
                self.name,
                shape.kind,
                instance.resource,
                shape.scope,
                attributes,
                status,
                message,
                tuple(self._events) if self._events else (),
                tuple(self._links) if self._links else (),
            )
        )
        world.counters.spans += 1
        if shape.duration is not None:
            self._measure((end_s - self.start_s), failure)

    def _measure(self, seconds: float, failure: RpcFailure | None) -> None:
        shape = self.shape
        assert shape.duration is not None
        series = shape.duration_series
        if failure is not None and shape.failed_series is not None:
            series = shape.failed_series(failure)
        value = seconds if shape.duration.instrument.unit == "s" else seconds * 1e3
        self._call.instance.meter.observe(shape.duration, value, series)
