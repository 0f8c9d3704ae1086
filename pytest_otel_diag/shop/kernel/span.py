"""Spans in progress; the end of a span records it."""

from __future__ import annotations

from types import TracebackType

from simpy import Environment, Interrupt

from pytest_otel_diag.shop.kernel.context import SimulationContext
from pytest_otel_diag.shop.kernel.instance import Instance
from pytest_otel_diag.shop.kernel.resources.failures import RpcFailure, cancelled
from pytest_otel_diag.shop.kernel.resources.propagation import RequestContext
from pytest_otel_diag.shop.kernel.span_shape import NO_ATTRIBUTES, SpanShape
from pytest_otel_diag.shop.records import (
    Attributes,
    AttributeValue,
    EventRecord,
    LinkRecord,
    SpanRecord,
    StatusCode,
)


class TraceScope(RequestContext):
    """The place where new spans, logs and events of an instance belong: ``current`` is the open span."""

    __slots__ = ("current", "env", "instance", "world")

    instance: Instance
    world: SimulationContext
    env: Environment
    current: Span | None

    def __init__(self, instance: Instance, context: RequestContext | None) -> None:
        self.instance = instance
        self.world = instance.world
        self.env = instance.env
        self.current = None
        self.service = instance.spec.name
        if context is None:
            self.trace_id = f"{instance.world.ids.getrandbits(128):032x}"
            self.parent_id = ""
            self.baggage = {}
        else:
            self.trace_id = context.trace_id
            self.parent_id = context.parent_id
            self.baggage = context.baggage

    def stamp_ns(self, at_s: float) -> int:
        """Return the virtual second as nanoseconds of this host's clock."""
        return self.world.start_ns + round(at_s * 1e9) + self.instance.host.skew_ns


class Span:
    """A span in progress, used as a context manager; an RpcFailure that leaves it sets status Error."""

    __slots__ = (
        "_attributes", "_events", "_links", "_message", "_scope", "_status", "name", "parent", "parent_id",
        "shape", "span_id", "start_s", "trace_id",
    )  # fmt: skip

    def __init__(
        self, scope: TraceScope, shape: SpanShape, dynamic: dict[str, AttributeValue] | None
    ) -> None:
        self._scope = scope
        self.shape = shape
        self.name = shape.name
        self.parent = scope.current
        self.trace_id = scope.trace_id
        self.parent_id = scope.parent_id
        self.span_id = f"{scope.world.ids.getrandbits(64):016x}"
        self.start_s: float = scope.env.now
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
        """Add an event with the current time."""
        if self._events is None:
            self._events = []
        self._events.append(EventRecord(self._scope.stamp_ns(self._scope.env.now), name, attributes))

    def link(self, trace_id: str, span_id: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Add a link to a span of another trace."""
        if self._links is None:
            self._links = []
        self._links.append(LinkRecord(trace_id, span_id, attributes))

    def status(self, status: StatusCode, message: str = "") -> None:
        """Set the status; it takes precedence over the outcome of the span's shape."""
        self._status = status
        self._message = message

    def __enter__(self) -> Span:
        scope = self._scope
        scope.current = self
        scope.parent_id = self.span_id
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        scope = self._scope
        scope.current = self.parent
        scope.parent_id = self.parent_id
        failure: RpcFailure | None = None
        if error is not None:
            if isinstance(error, RpcFailure):
                failure = error
            elif isinstance(error, (Interrupt, GeneratorExit)):
                failure = cancelled()
            else:
                return
        if scope.instance.alive and kind is not GeneratorExit:
            self._record(failure)

    def _record(self, failure: RpcFailure | None) -> None:
        scope, shape = self._scope, self.shape
        instance = scope.instance
        end_s: float = scope.env.now
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
        world = scope.world
        base = world.start_ns
        # round both ends, so that rounding never makes a child exceed its parent
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
        self._scope.instance.meter.observe(shape.duration, value, series)
