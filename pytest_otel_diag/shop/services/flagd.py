"""flagd: evaluates flags, with spans, and streams changes to its clients.

Clients whose provider caches static evaluations send no request per evaluation and cause no spans of
flagd. Clients that call flagd for each evaluation are the product catalog of 3.x (its flag has a targeting
rule), the cart (its provider has no cache), the load generator (OFREP over HTTP) and browser pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.emission.instruments import MetricShape, Series
from pytest_otel_diag.shop.flag_provider import Evaluation, FlagScalar
from pytest_otel_diag.shop.kernel import (
    Call,
    HeapSpec,
    Instance,
    Operation,
    RpcFailure,
    ServiceSpec,
    SpanOutcome,
    SpanShape,
    Steps,
)
from pytest_otel_diag.shop.kernel.service_spec import Loop
from pytest_otel_diag.shop.records import Instrument, Scope

SERVICE, SERVICE_V2 = "flagd.evaluation.v1.Service", "flagd.evaluation.v2.Service"
STREAM_S = 600.0
"""Deadline of an event stream in seconds; the client then reopens it."""

FRAMEWORK_S, HANDLER_S = 0.000022, 0.000016
"""CPU time of the RPC library and of flagd's handler around an evaluation."""

_CONNECT = Scope("connectrpc.com/otelconnect", "0.8.0")
_EVALUATOR = Scope("jsonEvaluator", "")
_EVALUATION = Scope("flagEvaluationService", "")
_OFREP = Scope("go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp", "0.64.0")

_METHODS = {"bool": "ResolveBoolean", "int": "ResolveInt", "float": "ResolveFloat", "str": "ResolveString"}
DETACHED = "detached/"
OFREP = "POST /ofrep/v1/evaluate/flags/{key}"
EVENT_STREAM = "EventStream"


def rpc_method(default: FlagScalar) -> str:
    """Return the RPC that resolves a flag of the default's type within the caller's trace."""
    return f"{SERVICE}/{_METHODS[type(default).__name__]}"


def detached_rpc_method(default: FlagScalar) -> str:
    """Return the RPC of the newer clients that send no trace context: flagd starts a new trace."""
    return f"{DETACHED}{SERVICE_V2}/{_METHODS[type(default).__name__]}"


_METER = Scope("flagd", "")
_IMPRESSIONS = MetricShape(Instrument("feature_flag.flagd.impression", "sum"), _METER)


def _count(call: Call, key: str, answer: Evaluation) -> None:
    series: Series = (("feature_flag.key", key), ("feature_flag.result.variant", answer.variant))
    call.count(_IMPRESSIONS, 1.0, series)


@dataclass(frozen=True)
class _Convention:
    """Names of a generation of flagd; ``counted`` says whether it sends metrics to the collector."""

    provider: str
    variant: str
    ofrep: str
    evaluator: str
    counted: bool


_OLDER = _Convention("feature_flag.provider_name", "feature_flag.variant", OFREP, "resolveFlag", counted=True)
_NEWER = _Convention(
    "feature_flag.provider.name", "feature_flag.result.variant", "POST", "resolveAnyValue", counted=False
)


def _stream_failed(failure: RpcFailure) -> SpanOutcome:
    return SpanOutcome("Error", failure.message, {"rpc.connect_rpc.error_code": "deadline_exceeded"})


def _resolver(service: str, method: str, names: _Convention, *, detached: bool) -> Operation:
    local = method[0].lower() + method[1:]
    outer = SpanShape(
        f"{service}/{method}",
        "Server",
        _CONNECT,
        {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method, "server.port": 8013},
        SpanOutcome(attributes={"rpc.grpc.status_code": 0}),
    )
    evaluation = SpanShape(local, "Server", _EVALUATION)
    evaluator = SpanShape(local, "Internal", _EVALUATOR)

    def resolve(call: Call, asked: tuple[str, FlagScalar, Any]) -> Steps:
        key, default, context = asked
        yield from call.work(FRAMEWORK_S)
        with call.span(evaluation) as span:
            yield from call.work(HANDLER_S)
            answer = call.world.flags.evaluate(key, default, context)
            if names.counted:
                _count(call, key, answer)
            attributes = {"feature_flag.key": key, names.provider: "flagd"}
            if answer.variant:
                attributes[names.variant] = answer.variant
            span.set(attributes)
            with call.span(evaluator):
                yield from call.work(0.00003)
        return answer

    if not detached:
        return Operation(resolve, outer, allocates=20_000)

    def resolve_apart(call: Call, asked: tuple[str, FlagScalar, Any]) -> Steps:
        begin_trace(call)
        with call.span(outer):
            return (yield from resolve(call, asked))

    return Operation(resolve_apart, allocates=20_000)


def begin_trace(call: Call) -> None:
    """Start a new trace: the request carries no trace context."""
    call.trace_id = f"{call.world.ids.getrandbits(128):032x}"
    call.parent_id = ""


def _ofrep(names: _Convention) -> Operation:
    evaluator = SpanShape(names.evaluator, "Internal", _EVALUATOR)
    renamed = {"original_span_name": "flagd.ofrep"} if names is _NEWER else {}
    server = SpanShape(
        names.ofrep,
        "Server",
        _OFREP,
        {
            **renamed,
            "http.request.method": "POST",
            "http.route": "/ofrep/v1/evaluate/flags/{key}",
            "server.port": 8016,
        },
        SpanOutcome(attributes={"http.response.status_code": 200}),
    )

    def resolve(call: Call, asked: tuple[str, FlagScalar, Any]) -> Steps:
        key, default, context = asked
        answer = call.world.flags.evaluate(key, default, context)
        if names.counted:
            _count(call, key, answer)
        yield from call.work(HANDLER_S)
        with call.span(evaluator, **{"feature_flag.key": key, names.variant: answer.variant}):
            yield from call.work(0.00006)
        if answer.reason == "ERROR":
            call.set(**{"http.response.status_code": 404})
        return answer

    return Operation(resolve, server, allocates=20_000)


def _stream(call: Call, seconds: float) -> Steps:
    yield from call.wait(seconds)
    # the client set the deadline before the request travelled and the stream opened
    early_s = 0.00002 + call.instance.rng.expovariate(1 / 0.0008)
    raise RpcFailure("DEADLINE_EXCEEDED", f"deadline exceeded after {STREAM_S - early_s:.9f}s")


def _all_flags(call: Call, request: Any) -> Steps:  # noqa: ARG001 - a behaviour
    yield from call.work(0.0002)


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of flagd."""
    names = _NEWER if blueprint.modern else _OLDER
    operations: dict[str, Operation] = {OFREP: _ofrep(names)}
    for service in (SERVICE, SERVICE_V2):
        for method in _METHODS.values():
            rpc = f"{service}/{method}"
            operations[rpc] = _resolver(service, method, names, detached=False)
            operations[DETACHED + rpc] = _resolver(service, method, names, detached=True)
        stream = SpanShape(
            f"{service}/{EVENT_STREAM}",
            "Server",
            _CONNECT,
            {"rpc.system": "grpc", "rpc.service": service},
            failed=_stream_failed,
        )
        operations[f"{service}/{EVENT_STREAM}"] = Operation(_stream, stream, allocates=2_000)
    everything = SpanShape(
        f"{SERVICE}/ResolveAll", "Server", _CONNECT, {"rpc.system": "connect_rpc", "rpc.service": SERVICE}
    )
    operations[f"{SERVICE}/ResolveAll"] = Operation(_all_flags, everything, allocates=30_000)
    if not blueprint.modern:
        return [blueprint.spec("flagd", operations=operations)]
    plan = blueprint.plans["flagd"]  # without the runtime's metrics, which it offers to Prometheus only
    memory = HeapSpec(base_bytes=plan.memory_base, live_bytes=0, limit_bytes=plan.memory_limit)
    return [blueprint.spec("flagd", operations=operations, heap=memory)]


def listener(service: str) -> Loop:
    """Return the loop that listens to flagd's event stream, reopening it at each deadline."""

    def listen(instance: Instance) -> Steps:
        world = instance.world
        left_s = instance.rng.uniform(0.02, 1.0) * STREAM_S
        while True:
            try:
                yield from Call.root(instance).request("flagd", f"{service}/{EVENT_STREAM}", left_s)
            except RpcFailure as failure:
                if failure.code != "DEADLINE_EXCEEDED":
                    yield world.sleep(5.0)
            left_s = STREAM_S

    return listen


LISTEN = listener(SERVICE)


def listen(blueprint: Blueprint) -> Loop:
    """Return the loop of the services whose clients speak the newer protocol in 3.x."""
    return listener(SERVICE_V2) if blueprint.modern else LISTEN
