"""recommendation (Python): up to five other products. recommendationCacheFailure grows a cache unbounded.

On a miss (every other request) the catalog and a quarter of the cached list are appended to the list; it
stays after the flag is off, until the process is replaced. DemoRelease 2.2 instead requests a product with an
empty id, which fails: an error without a leak.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.data import PRODUCT_IDS
from pytest_otel_diag.shop.emission.instruments import MetricShape, Series
from pytest_otel_diag.shop.kernel import Call, Instance, Operation, ServiceSpec, SpanOutcome, SpanShape, Steps
from pytest_otel_diag.shop.kernel.resources.failures import RpcFailure
from pytest_otel_diag.shop.kernel.span_shape import exception_event
from pytest_otel_diag.shop.records import Instrument, Scope
from pytest_otel_diag.shop.services import flagd, product_catalog

LIST = "oteldemo.RecommendationService/ListRecommendations"
MISS_RATIO = 0.5
ANSWERS = 5
POINTER_BYTES = 8
CPU_S_PER_ID = 3e-8
"""CPU time to insert one id of the list into a set."""
COPY_S_PER_ID = 2e-9
"""CPU time to copy one id into a new list."""

_TRACER = Scope("recommendation", "")
_LOGGER = Scope("main", "")


class Cache:
    """State of an instance: the number of cached ids, and whether it had a miss before."""

    __slots__ = ("filled", "ids")

    def __init__(self, instance: Instance) -> None:  # noqa: ARG002 - a factory of state
        self.ids = 0
        self.filled = False


class _Service:
    def __init__(self, blueprint: Blueprint) -> None:
        release = blueprint.release
        name = release.attribute
        self.enabled, self.hit = name("recommendation.cache"), name("recommendation.cache_hit")
        self.count, self.recommended = name("product.count"), name("product.recommended.count")
        self.filtered, self.listed = name("product.filtered.count"), name("product.filtered.list")
        unit = "recommendations" if blueprint.modern else ""
        self.requests = MetricShape(
            Instrument(release.metric("recommendation.requests"), "sum", unit), _TRACER
        )
        self.series: Series = (("recommendation.type", "catalog"),)
        self.shape = SpanShape("get_product_list", "Internal", _TRACER, failed=_escaped)
        self.modern = blueprint.modern
        self.broken = release.version == "2.2"
        self.cost = blueprint.cpu("recommendation", 1.5)
        self.before, self.after = blueprint.cpu("recommendation", 0.2), blueprint.cpu("recommendation", 0.12)

    def list_recommendations(self, call: Call, asked: Sequence[str]) -> Steps:
        yield from call.work(self.before)
        with call.span(self.shape) as span:
            ids = yield from self._known(call)
            span.set({self.count: ids})
            yield from call.work(self.cost + ids * CPU_S_PER_ID)
            others = [product for product in PRODUCT_IDS if product not in asked]
            chosen = call.instance.rng.sample(others, min(ANSWERS, len(others)))
            span.set({self.filtered: len(others), self.listed: str(chosen)})
        yield from call.work(self.after)
        call.set(**{self.recommended: len(chosen)})
        self._log(call, f"Receive ListRecommendations for product ids:{chosen}")
        call.count(self.requests, float(len(chosen)), self.series)
        return chosen

    def _log(self, call: Call, text: str) -> None:
        context: dict[str, Any] = {}
        if self.modern and call.current is not None:
            context = {
                "otelSpanID": call.current.span_id,
                "otelTraceID": call.trace_id,
                "otelTraceSampled": True,
                "otelServiceName": "recommendation",
            }
        call.log("INFO", text, scope=_LOGGER, **context)

    def _known(self, call: Call) -> Steps:
        """Return the number of ids from the catalog or the cache."""
        if not (yield from call.flag("recommendationCacheFailure", False)):
            call.set(**{self.enabled: False})
            return len((yield from call.request("product-catalog", product_catalog.LIST)))
        cache: Cache = call.state
        call.set(**{self.enabled: True})
        if cache.filled and call.instance.rng.random() >= MISS_RATIO:
            call.set(**{self.hit: True})
            self._log(call, "get_product_list: cache hit")
            return cache.ids
        cache.filled = True
        call.set(**{self.hit: False})
        self._log(call, "get_product_list: cache miss")
        if self.broken:
            yield from call.request("product-catalog", product_catalog.GET, "")
        listed = len((yield from call.request("product-catalog", product_catalog.LIST)))
        before, joined = cache.ids, cache.ids + listed
        cache.ids = joined + joined // 4
        # the lists are copied: the joined list, its slice and their sum exist at the same time
        passing = (joined + joined // 4) * POINTER_BYTES
        call.instance.heap.release(before * POINTER_BYTES)
        call.instance.heap.retain(passing + cache.ids * POINTER_BYTES)
        yield from call.work(cache.ids * COPY_S_PER_ID)
        call.instance.heap.release(passing)
        return cache.ids


def _escaped(failure: RpcFailure) -> SpanOutcome:
    text = (
        f"<_InactiveRpcError of RPC that terminated with: status = StatusCode.{failure.code}, "
        f'details = "{failure.message}">'
    )
    event = exception_event("grpc._channel._InactiveRpcError", text, escaped=True)
    return SpanOutcome("Error", f"_InactiveRpcError: {text}", {}, (event,))


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of the recommendation service."""
    rpc = blueprint.rpc("python")

    def client(target: str, operation: str) -> SpanShape | None:
        if target == "flagd":
            return None
        return rpc.client(operation) if blueprint.modern else rpc.client(operation, host=target, port=3550)

    def unhandled(call: Call, asked: Sequence[str]) -> Steps:
        try:
            return (yield from service.list_recommendations(call, asked))
        except RpcFailure as failure:
            # grpc maps an exception of the handler to UNKNOWN
            raise RpcFailure("UNKNOWN", f"Exception calling application: {failure.message}") from None

    service = _Service(blueprint)
    return [
        blueprint.spec(
            "recommendation",
            operations={LIST: Operation(unhandled, rpc.server(LIST), allocates=120_000)},
            client=client,
            flags=blueprint.flag_client(hook=True),
            state=Cache,
            loops=(flagd.listen(blueprint),),
        )
    ]
