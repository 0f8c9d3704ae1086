"""What a behaviour holds: the call it works for. Time, CPU, other services, and telemetry go through it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, cast

from simpy import AllOf, AnyOf, Environment, Event, Interrupt, Process, Timeout

from pytest_otel_diag.shop.emission.instruments import MetricShape, Series
from pytest_otel_diag.shop.flagging import Evaluation, FlagScalar
from pytest_otel_diag.shop.kernel.failures import RpcFailure, cancelled
from pytest_otel_diag.shop.kernel.shapes import NO_ATTRIBUTES, Outcome, SpanShape
from pytest_otel_diag.shop.kernel.span import Span
from pytest_otel_diag.shop.records import AttributeValue, LogRecord, Scope

if TYPE_CHECKING:
    from pytest_otel_diag.shop.kernel.instance import Instance
    from pytest_otel_diag.shop.kernel.world import World

QUANTUM_S = 0.05
"""Longer work looks at the load of its host again after so much CPU time."""

SEVERITIES: Mapping[str, int] = {"TRACE": 1, "DEBUG": 5, "INFO": 9, "WARN": 13, "ERROR": 17, "FATAL": 21}
"""Severity numbers of the log data model."""

_SPELLINGS = {"warning": "WARN", "information": "INFO", "critical": "FATAL", "err": "ERROR"}
_SCOPE = Scope("")


class Call:
    """One request as its callee sees it (or the beginning of a trace); lives as long as the behaviour.

    ``current`` is the span that new spans, logs and events belong to, ``baggage`` travels with every
    request made from here, ``caller`` is the service that asked ('' when the call begins here).
    """

    __slots__ = ("baggage", "caller", "current", "env", "instance", "parent_id", "trace_id", "world")

    instance: Instance
    caller: str
    world: World
    env: Environment
    current: Span | None
    trace_id: str
    parent_id: str
    baggage: Mapping[str, str]

    def __init__(self, instance: Instance, caller: Call | None) -> None:
        self.instance = instance
        self.world = instance.world
        self.env = instance.env
        self.current = None
        if caller is None:
            self.caller = ""
            self.trace_id = f"{instance.world.ids.getrandbits(128):032x}"
            self.parent_id = ""
            self.baggage = {}
        else:
            self.caller = caller.instance.service.spec.name
            self.trace_id = caller.trace_id
            self.parent_id = caller.parent_id
            self.baggage = caller.baggage

    @property
    def state(self) -> Any:
        """The instance's own object; see ``ServiceSpec.state``."""
        return self.instance.state

    @property
    def now_s(self) -> float:
        """Virtual seconds since the start."""
        return float(self.env.now)

    def stamp_ns(self, at_s: float) -> int:
        """Return the virtual second as this host's clock tells it."""
        return self.world.start_ns + round(at_s * 1e9) + self.instance.host.skew_ns

    # time and resources

    def work(self, cpu_s: float) -> Generator[Event, Any, None]:
        """Use so much CPU time (mean; the service's noise is put on it).

        The host's cores and the service's CPU limit are shared equally by the threads that want them, as
        seen when the slice begins (an arrival finds the average number, so the mean time is that of
        processor sharing); stops of the world come on top.
        """
        instance, host = self.instance, self.instance.host
        left = cpu_s * instance.noise.draw() * instance.slowness * host.pace
        limit = instance.service.spec.cpu_limit
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
        """Make up for stops of the world that began meanwhile, also those during this wait."""
        instance = self.instance
        while instance.paused_s > known_s:
            missed_s, known_s = instance.paused_s - known_s, instance.paused_s
            yield Timeout(self.env, missed_s)

    def wait(self, seconds: float) -> Generator[Event, Any, None]:
        """Let time pass without CPU: a sleep, a disk, a remote that is not simulated."""
        yield Timeout(self.env, seconds)
        held_s = self.instance.paused_until_s - self.env.now
        if held_s > 0.0:
            yield Timeout(self.env, held_s)

    def allocate(self, size: int) -> None:
        """Make so many bytes of garbage beyond what the operation's ``allocates`` says."""
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
        """Call another service and return its reply; *dynamic* goes on the client span.

        Raises RpcFailure: what the callee's behaviour raised, or why it could not be reached. With
        *timeout_s* the caller gives up after so long (kind "timeout"); the callee goes on.
        """
        shape = self.instance.service.client_shape(target, operation)
        if shape is None:
            return (yield from self._exchange(target, operation, payload, timeout_s))
        with Span(self, shape, dynamic):
            return (yield from self._exchange(target, operation, payload, timeout_s))

    def _exchange(
        self, target: str, operation: str, payload: Any, timeout_s: float | None
    ) -> Generator[Event, Any, Any]:
        counters = self.world.counters
        counters.requests_begun += 1
        try:
            if timeout_s is None:
                return (yield from self._carry(target, operation, payload))
            return (yield from self._carry_within(timeout_s, target, operation, payload))
        except RpcFailure as failure:
            counters.requests_failed += 1
            if failure.kind == "application":
                raise
            raise self.instance.service.spec.rephrase(failure) from None
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

    def _carry_within(
        self, timeout_s: float, target: str, operation: str, payload: Any
    ) -> Generator[Event, Any, Any]:
        process = self.env.process(_outcome(self._carry(target, operation, payload)))
        try:
            yield AnyOf(self.env, (process, Timeout(self.env, timeout_s)))
        except Interrupt as death:
            _pass_on(death, process)
            raise
        if process.is_alive:
            raise RpcFailure("DEADLINE_EXCEEDED", f"no answer within {timeout_s:g} s", kind="timeout")
        return _unpacked(process)

    def gather(self, *branches: Callable[[Call], Generator[Event, Any, Any]]) -> Generator[Event, Any, Any]:
        """Run several behaviours at once and return their replies in order, as Promise.all.

        Each gets a call of its own under the current span. All of them end before the first failure is
        raised.
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
        """Append a message to a topic, with the current span as its context; returns the message."""
        return (yield from self.world.broker.publish(self, topic, value, size=size, key=key))

    # flags

    def flag(
        self, key: str, default: FlagScalar, context: Mapping[str, FlagScalar] = NO_ATTRIBUTES
    ) -> Generator[Event, Any, Any]:
        """Return the value of a flag as this service's SDK gets it; leaves the hook's event."""
        client = self.instance.service.spec.flags
        if client.remote:
            try:
                asked = (key, default, context)
                evaluation = yield from self.request(client.remote, client.operation(default), asked)
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
        """Return a span for a ``with`` statement; it becomes the current one."""
        return Span(self, shape, dynamic)

    def set(self, **attributes: AttributeValue) -> None:
        """Set attributes of the current span; write dotted names as ``**{"a.b": 1}``."""
        if self.current is not None:
            self.current.set(attributes)

    def event(self, name: str, **attributes: AttributeValue) -> None:
        """Add an event to the current span."""
        if self.current is not None:
            self.current.event(name, attributes)

    def fail(self, message: str = "", outcome: Outcome | None = None) -> None:
        """Set the current span's status to Error without raising; an outcome adds events and attributes."""
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
        **attributes: AttributeValue,
    ) -> None:
        """Write a log line; *severity* in the language's spelling, correlated with the current span."""
        instance, span = self.instance, self.current
        buffer = instance.logs
        now_ns = self.world.now_ns
        buffer.roll(now_ns)
        traced = correlated and span is not None
        record = LogRecord(
            exported_ns=buffer.exported_ns,
            time_ns=now_ns + instance.host.skew_ns,
            resource=instance.resource,
            scope=scope,
            severity_text=severity,
            severity_number=severity_number(severity),
            body=body,
            attributes=attributes,
            trace_id=self.trace_id if traced else "",
            span_id=span.span_id if traced and span is not None else "",
            event_name=event_name,
        )
        buffer.records.append(record)
        self.world.counters.logs += 1

    def count(self, shape: MetricShape, value: float = 1.0, series: Series = ()) -> None:
        """Add to a counter of this instance."""
        self.instance.meter.add(shape, value, series)

    def observe(self, shape: MetricShape, value: float, series: Series = ()) -> None:
        """Record a value in a histogram of this instance."""
        self.instance.meter.observe(shape, value, series)


def severity_number(text: str) -> int:
    """Return the severity number for a language's spelling ("Information", "warn", "ERROR"), 0 if unknown."""
    return SEVERITIES.get(_SPELLINGS.get(text.lower(), text.upper()), 0)


def _outcome(steps: Generator[Event, Any, Any]) -> Generator[Event, Any, tuple[Any, RpcFailure | None]]:
    """Run steps so that a failure is a value: a process that fails would stop the whole simulation."""
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
