"""ad (Java): advertisements by category or at random. Three flags take effect when a request arrives.

adHighCpu spins four threads until a request finds the flag off. adFailure fails one request in ten.
adManualGc fills the heap with objects whose finalizers sleep and collects, ten times in every request;
objects that wait for their finalizers stay on the heap after the flag is off.
"""

from __future__ import annotations

from collections.abc import Mapping

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.data import AD_CATEGORIES
from pytest_otel_diag.shop.demo.payloads import fields
from pytest_otel_diag.shop.emission.instruments import MetricShape, Series
from pytest_otel_diag.shop.kernel import (
    Call,
    Instance,
    Operation,
    RpcFailure,
    ServiceSpec,
    SpanShape,
    Steps,
)
from pytest_otel_diag.shop.records import AttributeValue, Instrument, Scope
from pytest_otel_diag.shop.services import flagd

GET_ADS = "oteldemo.AdService/GetAds"
SPINNING_THREADS = 4
FAILING_RATIO = 0.1
GC_ROUNDS = 10
FULL_RATIO = 0.9
ALLOCATION_S_PER_BYTE = 1.2e-9
RANDOM_ADS = 2

_ADS = Scope("ad", "")
_ANNOTATIONS = Scope("io.opentelemetry.opentelemetry-instrumentation-annotations-1.16", "2.20.1-alpha")
_LOGGER, _CPU_LOGGER, _GC_LOGGER = (
    Scope("oteldemo.AdService"),
    Scope("oteldemo.problempattern.CPULoad"),
    Scope("oteldemo.problempattern.GarbageCollectionTrigger"),
)


class Patterns:
    """State of an instance: bytes that wait for their finalizers."""

    __slots__ = ("waiting",)

    def __init__(self, instance: Instance) -> None:  # noqa: ARG002 - a factory of state
        self.waiting = 0


class _Service:
    def __init__(self, blueprint: Blueprint) -> None:
        release = blueprint.release
        name = release.attribute
        self.keys, self.keys_count = name("ad.context_keys"), name("ad.context_keys.count")
        self.count, self.category = name("ad.count"), name("ad.category")
        self.request_type, self.response_type = name("ad.request_type"), name("ad.response_type")
        self.requests = MetricShape(Instrument(release.metric("ad.requests"), "sum"), _ADS)
        self.series: Mapping[tuple[str, str], Series] = {
            (asked, answered): ((self.request_type, asked), (self.response_type, answered))
            for asked in ("TARGETED", "NOT_TARGETED")
            for answered in ("TARGETED", "RANDOM")
        }
        thread: dict[str, AttributeValue] = {"thread.name": "grpc-default-executor-0", "thread.id": 41}
        self.by_category = SpanShape(
            "getAdsByCategory", "Internal", _ANNOTATIONS,
            {**thread, "code.namespace": "oteldemo.AdService", "code.function": "getAdsByCategory"},
        )  # fmt: skip
        self.at_random = SpanShape("getRandomAds", "Internal", _ADS, thread)
        self.cost, self.lookup = blueprint.cpu("ad", 0.85), blueprint.cpu("ad", 0.035)

    def get_ads(self, call: Call, keys: tuple[str, ...]) -> Steps:
        session = call.baggage.get("session.id", "")
        context = {"session": session, "targetingKey": session} if session else {}
        if session:
            call.set(**{"session.id": session})
        else:
            call.log("INFO", "no baggage found in context", scope=_LOGGER)
        spin = yield from call.flag("adHighCpu", False, context)
        _spin(call, on=bool(spin))
        yield from call.work(self.cost)
        asked, answered, number = yield from self._choose(call, keys)
        call.set(
            **fields(
                {
                    self.keys: f"[{', '.join(keys)}]",
                    self.keys_count: len(keys),
                    self.count: number,
                    self.request_type: asked,
                    self.response_type: answered,
                }
            )
        )
        call.count(self.requests, 1.0, self.series[asked, answered])
        if (yield from call.flag("adFailure", False, context)) and call.instance.rng.random() < FAILING_RATIO:
            call.event("Error", **{"exception.message": "UNAVAILABLE"})
            text = "GetAds Failed with status Status{code=UNAVAILABLE, description=null, cause=null}"
            call.log("WARN", text, scope=_LOGGER)
            raise RpcFailure("UNAVAILABLE", "")
        if (yield from call.flag("adManualGc", False, context)):
            yield from _collect_by_hand(call)
        return number

    def _choose(self, call: Call, keys: tuple[str, ...]) -> Steps:
        """Return the request type, the response type and the number of ads."""
        found = 0
        if keys:
            call.log("INFO", f"Targeted ad request received for [{', '.join(keys)}]", scope=_LOGGER)
            for key in keys:
                number = AD_CATEGORIES.get(key, 0)
                with call.span(self.by_category, **fields({self.category: key, self.count: number})):
                    yield from call.work(self.lookup)
                    found += number
        else:
            call.log("INFO", "Non-targeted ad request received, preparing random response.", scope=_LOGGER)
        if found:
            return "TARGETED", "TARGETED", found
        with call.span(self.at_random, **{self.count: RANDOM_ADS}):
            yield from call.work(self.lookup)
        return "TARGETED" if keys else "NOT_TARGETED", "RANDOM", RANDOM_ADS


def _spin(call: Call, *, on: bool) -> None:
    if on:
        call.log("INFO", "High CPU-Load problempattern enabled", scope=_CPU_LOGGER)
        if not call.instance.hogs:
            call.instance.hog(SPINNING_THREADS)
    elif call.instance.hogs:
        call.instance.hog(0)


def _collect_by_hand(call: Call) -> Steps:
    """Run the demo's GarbageCollectionTrigger: collect, then fill the heap and collect ten times."""
    instance, patterns = call.instance, call.state
    heap = instance.heap
    call.log("WARN", "Feature Flag adManualGc enabled, performing a manual gc now", scope=_LOGGER)
    call.log("INFO", "Triggering a manual garbage collection, next one in 10 seconds.", scope=_GC_LOGGER)
    begun_s = call.now_s
    collected_s = heap.collect(full=True)
    yield from call.wait(0.0)
    for _ in range(GC_ROUNDS):
        room = int(FULL_RATIO * (heap.spec.max_bytes or 0)) - heap.live
        if room > 0:
            heap.retain(room)
            patterns.waiting += room
            yield from call.work(room * ALLOCATION_S_PER_BYTE)
        collected_s += heap.collect(full=True)
        yield from call.wait(0.0)
    took_ms = round(max(collected_s, call.now_s - begun_s) * 1e3)
    call.log("INFO", f"The artificially triggered GCs took: {took_ms} ms", scope=_GC_LOGGER)


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of the ad service."""
    rpc = blueprint.rpc("java")

    def client(target: str, operation: str) -> SpanShape:
        return rpc.client(operation, host=target, port=8013)

    return [
        blueprint.spec(
            "ad",
            operations={
                GET_ADS: Operation(_Service(blueprint).get_ads, rpc.server(GET_ADS), allocates=250_000)
            },
            client=client,
            flags=blueprint.flag_client(hook=False),
            state=Patterns,
            loops=(flagd.LISTEN,),
        )
    ]
