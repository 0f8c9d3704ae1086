"""The call that a behaviour works for: its access to time, CPU, other services, flags and telemetry."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import nullcontext
from functools import cache
from typing import Any, cast

from simpy import AllOf, AnyOf, Event, Interrupt, Process, Timeout

from pytest_otel_diag.shop.emission.instruments import MetricShape, Series
from pytest_otel_diag.shop.flag_provider import Evaluation, FlagScalar
from pytest_otel_diag.shop.kernel.instance import Instance
from pytest_otel_diag.shop.kernel.resources.failures import RpcFailure, cancelled
from pytest_otel_diag.shop.kernel.resources.propagation import RequestContext, SpanContext
from pytest_otel_diag.shop.kernel.span import Span, TraceScope
from pytest_otel_diag.shop.kernel.span_shape import NO_ATTRIBUTES, SpanOutcome, SpanShape
from pytest_otel_diag.shop.records import AttributeValue, LogRecord, Scope

QUANTUM_S = 0.05
"""CPU time after which longer work re-reads the load of its host."""

SEVERITIES: Mapping[str, int] = {"TRACE": 1, "DEBUG": 5, "INFO": 9, "WARN": 13, "ERROR": 17, "FATAL": 21}
"""Severity numbers of the log data model."""

_SPELLINGS = {"warning": "WARN", "information": "INFO", "critical": "FATAL", "err": "ERROR"}
_SCOPE = Scope("")
_NO_SPAN = SpanContext("", "")
_UNTRACED = nullcontext()


class Call(TraceScope):
    """One request as its callee sees it, or the root of a trace; lives as long as the behaviour.

    ``current`` is the span that new spans, logs and events belong to, ``baggage`` travels with every
    request made from here, ``caller`` is the calling service ('' for the root of a trace).
    """

    __slots__ = ("caller",)

    caller: str

    def __init__(self, instance: Instance, caller: RequestContext | None) -> None:
        super().__init__(instance, caller)
        self.caller = "" if caller is None else caller.service

    @classmethod
    def root(cls, instance: Instance) -> Call:
        """Return a call that starts a new trace in *instance*."""
        return cls(instance, None)

    @property
    def state(self) -> Any:
        """The state of the instance; see ``ServiceSpec.state``."""
        return self.instance.state

    @property
    def now_s(self) -> float:
        """Virtual seconds since the start."""
        return float(self.env.now)

    # time and resources

    def work(self, cpu_s: float) -> Generator[Event, Any, None]:
        """Use *cpu_s* seconds of CPU time on average; the service's noise varies it.

        Runnable threads share the host's cores and the service's CPU limit equally, as counted when a
        slice starts (an arrival sees the average number, so the mean is that of processor sharing).
        Stop-the-world pauses come on top.
        """
        instance, host = self.instance, self.instance.host
        left = cpu_s * instance.noise.draw() * instance.slowness * host.slowdown
        limit = instance.spec.cpu_limit
        while left > 0.0:
            piece = left if left <= QUANTUM_S else QUANTUM_S
            host.runnable += 1
            instance.runnable += 1
            stretch = host.runnable / host.cores
            if limit is not None and instance.runnable / limit > stretch:
                stretch = instance.runnable / limit
            stopped_s = instance.paused_s
            held_s = instance.paused_until_s - self.env.now
            duration_s = piece * stretch if stretch > 1.0 else piece
            try:
                yield Timeout(self.env, duration_s + held_s if held_s > 0.0 else duration_s)
            finally:
                host.runnable -= 1
                instance.runnable -= 1
            instance.cpu_s += piece
            left -= piece
            if instance.paused_s > stopped_s:
                yield from self._stopped(stopped_s)

    def _stopped(self, known_s: float) -> Generator[Event, Any, None]:
        """Wait for the pauses that started meanwhile, including those that start during this wait."""
        instance = self.instance
        while instance.paused_s > known_s:
            missed_s, known_s = instance.paused_s - known_s, instance.paused_s
            yield Timeout(self.env, missed_s)

    def wait(self, seconds: float) -> Generator[Event, Any, None]:
        """Wait without using CPU: a sleep, a disk, a remote service that is not simulated."""
        yield Timeout(self.env, seconds)
        held_s = self.instance.paused_until_s - self.env.now
        if held_s > 0.0:
            yield Timeout(self.env, held_s)

    def allocate(self, size: int) -> None:
        """Allocate *size* bytes of garbage in addition to the operation's ``allocates``."""
        self.instance.heap.allocate(size)

    # other services

    def request(
        self,
        target: str,
        operation: str,
        payload: Any = None,
        *,
        timeout_s: float | None = None,
        **dynamic: AttributeValue,
    ) -> Generator[Event, Any, Any]:
        """Call another service and return its reply; *dynamic* are attributes of the client span.

        Raises RpcFailure: the failure that the callee's behaviour raised, or the reason why it could not
        be reached. After *timeout_s* the caller gives up (kind "timeout") while the callee continues.
        """
        # Each event of a callee travels through the generators of all its callers, so a call has few of them.
        carried = self._carry(target, operation, payload)
        if timeout_s is not None:
            carried = self._within(timeout_s, carried)
        return self._exchange(carried, self.instance.client_shape(target, operation), dynamic)

    def _exchange(
        self, carried: Generator[Event, Any, Any], shape: SpanShape | None, dynamic: dict[str, AttributeValue]
    ) -> Generator[Event, Any, Any]:
        counters = self.world.counters
        with _UNTRACED if shape is None else Span(self, shape, dynamic):
            counters.requests_begun += 1
            try:
                return (yield from carried)
            except RpcFailure as failure:
                counters.requests_failed += 1
                if failure.kind == "application":
                    raise
                raise self.instance.spec.rephrase(failure) from None
            finally:
                counters.requests_ended += 1

    def _carry(self, target: str, operation: str, payload: Any) -> Generator[Event, Any, Any]:
        env, network = self.env, self.world.network
        service = self.world.services.get(target)
        if service is None:
            raise RpcFailure("UNAVAILABLE", "name resolver error: produced zero addresses", kind="unresolved")
        yield Timeout(env, network.delay_s())
        callee = service.pick()
        if callee is None:
            yield Timeout(env, network.delay_s())
            raise RpcFailure("UNAVAILABLE", "connection refused", kind="refused")
        try:
            reply = yield from callee.serve(operation, payload, self)
        except Interrupt as death:
            if death.cause is not callee or not self.instance.alive:
                raise
            raise RpcFailure("UNAVAILABLE", "connection reset by peer", kind="lost") from None
        except RpcFailure:
            yield Timeout(env, network.delay_s())
            raise
        yield Timeout(env, network.delay_s())
        held_s = self.instance.paused_until_s - env.now
        if held_s > 0.0:
            yield Timeout(env, held_s)
        return reply

    def _within(self, timeout_s: float, carried: Generator[Event, Any, Any]) -> Generator[Event, Any, Any]:
        process = self.env.process(_outcome(carried))
        try:
            yield AnyOf(self.env, (process, Timeout(self.env, timeout_s)))
        except Interrupt as death:
            _pass_on(death, process)
            raise
        if process.is_alive:
            raise RpcFailure("DEADLINE_EXCEEDED", f"no answer within {timeout_s:g} s", kind="timeout")
        return _unpacked(process)

    def gather(self, *branches: Callable[[Call], Generator[Event, Any, Any]]) -> Generator[Event, Any, Any]:
        """Run several behaviours concurrently and return their replies in order.

        Each gets a separate call under the current span. The first failure is raised after all have ended.
        """
        processes = [self.env.process(_outcome(branch(self._branch()))) for branch in branches]
        try:
            yield AllOf(self.env, processes)
        except Interrupt as death:
            for process in processes:
                _pass_on(death, process)
            raise
        return [_unpacked(process) for process in processes]

    def _branch(self) -> Call:
        branch = Call(self.instance, self)
        branch.current = self.current
        return branch

    def publish(self, topic: str, value: Any, *, size: int = 500, key: int = 0) -> Generator[Event, Any, Any]:
        """Append a message to a topic with the current span as its producer; returns the message."""
        producer = _NO_SPAN if self.current is None else SpanContext(self.trace_id, self.current.span_id)
        publishing = self.world.broker.publish(topic, value, size=size, key=key, producer=producer)
        return (yield from publishing)

    # flags

    def flag(
        self, key: str, default: FlagScalar, context: Mapping[str, FlagScalar] = NO_ATTRIBUTES
    ) -> Generator[Event, Any, Any]:
        """Evaluate a flag through this service's SDK, which records its span event; returns the value."""
        client = self.instance.spec.flags
        if client.remote:
            try:
                evaluated = (key, default, context)
                evaluation = yield from self.request(client.remote, client.operation(default), evaluated)
            except RpcFailure:
                evaluation = Evaluation(default, "", "ERROR")
        else:
            evaluation = self.world.flags.evaluate(key, default, context)
        if client.event is not None and self.current is not None:
            event = client.event(key, evaluation)
            if event is not None:
                self.current.event(*event)
        return evaluation.value

    # telemetry

    def span(self, shape: SpanShape, **dynamic: AttributeValue) -> Span:
        """Return a span for a ``with`` statement, which makes it the current one."""
        return Span(self, shape, dynamic)

    def set(self, **attributes: AttributeValue) -> None:
        """Set attributes of the current span; write dotted names as ``**{"a.b": 1}``."""
        if self.current is not None:
            self.current.set(attributes)

    def event(self, name: str, **attributes: AttributeValue) -> None:
        """Add an event to the current span."""
        if self.current is not None:
            self.current.event(name, attributes)

    def fail(self, message: str = "", outcome: SpanOutcome | None = None) -> None:
        """Set the current span's status to Error without raising; *outcome* adds events and attributes."""
        span = self.current
        if span is None:
            return
        if outcome is not None:
            span.set(outcome.attributes)
            for name, attributes in outcome.events:
                span.event(name, attributes)
        span.status("Error", message or (outcome.message if outcome else ""))

    def log(
        self,
        severity: str,
        body: str,
        *,
        event_name: str = "",
        scope: Scope = _SCOPE,
        correlated: bool = True,
        spelled: bool = True,
        **attributes: AttributeValue,
    ) -> None:
        """Write a log line; *severity* in the language's spelling, *correlated* with the current span.

        A line that is not *spelled* has the severity's number only.
        """
        instance, span = self.instance, self.current
        buffer = instance.logs
        now_ns = self.world.now_ns
        buffer.roll(now_ns)
        traced = correlated and span is not None
        record = LogRecord(
            buffer.exported_ns,
            now_ns + instance.host.skew_ns,
            instance.resource,
            scope,
            severity if spelled else "",
            severity_number(severity),
            body,
            attributes,
            self.trace_id if traced else "",
            span.span_id if traced and span is not None else "",
            event_name,
        )
        buffer.records.append(record)
        self.world.counters.logs += 1

    def count(self, shape: MetricShape, value: float = 1.0, series: Series = ()) -> None:
        """Add to a counter of this instance."""
        self.instance.meter.add(shape, value, series)

    def observe(self, shape: MetricShape, value: float, series: Series = ()) -> None:
        """Record a value in a histogram of this instance."""
        self.instance.meter.observe(shape, value, series)


@cache
def severity_number(text: str) -> int:
    """Return the severity number of a spelling such as "Information", "warn" or "ERROR"; 0 if unknown."""
    return SEVERITIES.get(_SPELLINGS.get(text.lower(), text.upper()), 0)


def _outcome(steps: Generator[Event, Any, Any]) -> Generator[Event, Any, tuple[Any, RpcFailure | None]]:
    """Return a failure as a value: SimPy would stop the simulation when a process fails."""
    try:
        return (yield from steps), None
    except RpcFailure as failure:
        return None, failure
    except Interrupt:
        return None, cancelled()


def _unpacked(process: Process) -> Any:
    reply, failure = cast("tuple[Any, RpcFailure | None]", process.value)
    if failure is not None:
        raise failure
    return reply


def _pass_on(death: Interrupt, process: Process) -> None:
    if process.is_alive:
        process.interrupt(death.cause)
