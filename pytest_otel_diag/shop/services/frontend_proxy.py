"""frontend-proxy (Envoy): routes requests to the frontend, the image provider and flagd.

Every request has an ingress span, a router span and an access log line. The fault filter delays an image
when a request header asks for it.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache

from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.payloads import HttpRequest, fields
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
from pytest_otel_diag.shop.records import AttributeValue, Scope
from pytest_otel_diag.shop.services import flagd, image_provider

HTTP = "http/GET"
FORM = "http/POST"
RESOURCE = "resource"
"""Operations: requests with a trace context by method, and requests without one (from HTML tags)."""
ROUTE_TIMEOUT_S = 15.0
COLLECTOR = "otelcol-contrib"
CHECK_EVERY_S = 60.0
MAX_ACTIVE_FAULTS = 100

_ENVOY = Scope("", "")
_LOGGER = Scope("", "")
_UPSTREAMS = {
    "frontend": "172.18.0.24:8080",
    "image-provider": "172.18.0.17:8081",
    "flagd": "172.18.0.6:8013",
}
_FLAGS = {"timeout": "UT", "refused": "UF", "lost": "UC", "unresolved": "UH", "overload": "UO"}


def _failed(failure: RpcFailure) -> SpanOutcome:
    flags = _FLAGS.get(failure.kind, "-")
    return SpanOutcome(
        "Error", "", {"http.status_code": failure.code, "response_flags": flags, "error": "true"}
    )


def _rephrase(failure: RpcFailure) -> RpcFailure:
    code = "504" if failure.kind == "timeout" else "503"
    text = "upstream request timeout" if code == "504" else "upstream connect error or disconnect/reset"
    return RpcFailure(code, text, kind=failure.kind)


def _router(cluster: str) -> SpanShape:
    name = "flagservice" if cluster == "flagd" else cluster
    attributes = {
        "component": "proxy",
        "upstream_cluster": name,
        "upstream_cluster.name": name,
        "http.protocol": "HTTP/1.1",
        "upstream_address": _UPSTREAMS[cluster],
        "peer.address": _UPSTREAMS[cluster],
    }
    done = SpanOutcome(attributes={"http.status_code": "200", "response_flags": "-"})
    return SpanShape(f"router {name} egress", "Client", _ENVOY, attributes, done, _failed)


class _Faults:
    """State of an instance: the number of requests that the fault filter is delaying."""

    __slots__ = ("active",)

    def __init__(self, instance: object) -> None:  # noqa: ARG002 - a factory of state
        self.active = 0


def _target(web: HttpRequest) -> tuple[str, str]:
    if web.path.startswith("/images/"):
        return "image-provider", image_provider.PICTURE
    if web.path.startswith("/flagservice/"):
        return "flagd", f"{flagd.SERVICE}/ResolveAll"
    return "frontend", web.route


@lru_cache(maxsize=64)
def _written(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def _log(call: Call, web: HttpRequest, begun_s: float, result: tuple[str, str, str]) -> None:
    """Write the access log line; *result* is status, response flags and cluster."""
    status, flags, cluster = result
    world = call.world
    seconds, part_ns = divmod(world.start_ns + round(begun_s * NANOS_PER_SECOND), NANOS_PER_SECOND)
    took_ms = round((call.now_s - begun_s) * 1e3)
    line = (
        f'[{_written(seconds)}.{part_ns // 1_000_000:03d}Z] "{web.method} {web.path} HTTP/1.1" '
        f'{status} {flags} via_upstream - "-" 0 1024 {took_ms} {took_ms} "-" "{web.agent}" "-" '
        f'"frontend-proxy:8080" "{_UPSTREAMS[cluster]}" {cluster} 172.18.0.26:40112 '
        f"172.18.0.27:8080 172.18.0.26:37482 - -"
    )
    attributes = {
        "event.name": "proxy.access",
        "upstream.cluster": cluster,
        "url.path": web.path,
        "server.address": "172.18.0.27:8080",
    }
    call.log("", line, scope=_LOGGER, **fields(attributes))


_INGRESS = SpanShape(
    "ingress",
    "Server",
    _ENVOY,
    {
        "component": "proxy",
        "node_id": "",
        "zone": "",
        "http.protocol": "HTTP/1.1",
        "downstream_cluster": "-",
        "peer.address": "172.18.0.26",
    },
    SpanOutcome(attributes={"http.status_code": "200", "response_flags": "-"}),
    _failed,
)
_ROUTERS = {cluster: _router(cluster) for cluster in _UPSTREAMS}


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of the proxy."""
    cost = blueprint.cpu("frontend-proxy", 0.18)

    def handle(call: Call, web: HttpRequest) -> Steps:
        begun_s = call.now_s
        target, operation = _target(web)
        cluster = target if target != "flagd" else "flagservice"
        attributes: dict[str, AttributeValue] = {
            "http.method": web.method,
            "http.url": f"http://frontend-proxy:8080{web.path}",
            "user_agent": web.agent,
            "upstream_cluster": cluster,
            "upstream_cluster.name": cluster,
        }
        call.set(**attributes)
        yield from call.work(cost)
        flags = "-"
        if web.delay_ms and (yield from _delay(call, web)):
            flags = "DI"
            call.set(response_flags=flags)
        timeout_s = ROUTE_TIMEOUT_S if web.path.startswith("/api/") else None
        try:
            reply = yield from call.request(target, operation, web, timeout_s=timeout_s)
        except RpcFailure as failure:
            if not failure.code.isdigit():  # flagd speaks gRPC
                failure = RpcFailure("500", failure.message)
            _log(call, web, begun_s, (failure.code, _FLAGS.get(failure.kind, flags), target))
            raise failure from None
        _log(call, web, begun_s, ("200", flags, target))
        return reply

    def handle_apart(call: Call, web: HttpRequest) -> Steps:
        flagd.begin_trace(call)
        with call.span(_INGRESS):
            return (yield from handle(call, web))

    return [
        blueprint.spec(
            "frontend-proxy",
            operations={
                HTTP: Operation(handle, _INGRESS, allocates=0),
                FORM: Operation(handle, _INGRESS, allocates=0),
                RESOURCE: Operation(handle_apart, allocates=0),
            },
            client=lambda target, operation: _ROUTERS.get(target),  # noqa: ARG005 - one span per cluster
            rephrase=_rephrase,
            state=_Faults,
        ),
        ServiceSpec(COLLECTOR, loops=(_check,), heap=HeapSpec(base_bytes=120_000_000)),
    ]


def _check(instance: Instance) -> Steps:
    """Request the front page every minute without trace context, like the collector's HTTP check."""
    world = instance.world
    page = HttpRequest("GET", "/", "GET /", agent="Go-http-client/1.1")
    yield world.sleep(CHECK_EVERY_S * instance.rng.random())
    while True:
        with suppress(RpcFailure):
            yield from Call.root(instance).request("frontend-proxy", RESOURCE, page)
        yield world.sleep(CHECK_EVERY_S)


def _delay(call: Call, web: HttpRequest) -> Steps:
    """Delay the request as its header asks; return whether the filter did."""
    faults: _Faults = call.state
    if not web.path.startswith("/images/products/") or faults.active >= MAX_ACTIVE_FAULTS:
        return False
    faults.active += 1
    try:
        yield from call.wait(web.delay_ms / 1e3)
    finally:
        faults.active -= 1
    return True
