"""load-generator: Locust (2.x, 3.1) or k6 (3.0), the service that virtual users run in.

k6 creates a root span per task, also for a task inside another, and propagates it to every request of the
task. Locust's tasks nest, and each request has a client span of the requests library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.payloads import HttpRequest
from pytest_otel_diag.shop.demo.releases import DemoRelease
from pytest_otel_diag.shop.emission.instruments import MetricShape, Series
from pytest_otel_diag.shop.kernel import (
    Call,
    HeapSpec,
    Instance,
    RpcFailure,
    ServiceSpec,
    SpanOutcome,
    SpanShape,
)
from pytest_otel_diag.shop.kernel.resources.heap import GO
from pytest_otel_diag.shop.kernel.service_spec import Loop
from pytest_otel_diag.shop.records import Instrument, MetricKind, Scope, SpanKind
from pytest_otel_diag.shop.services import flagd

NAME = "load-generator"
_K6 = Scope("load-generator", "")
_K6_METER = Scope("k6", "")
_SCENARIO: Series = (("scenario", "default"),)
_TASKS = Scope("locustfile", "")
_REQUESTS = Scope("opentelemetry.instrumentation.requests", "0.60b0")


def task_shapes(release: DemoRelease) -> Callable[[str], SpanShape]:
    """Return a function from the name of a task to the shape of its span."""
    kind: SpanKind = "Internal" if release.locust else "Client"
    scope = _TASKS if release.locust else _K6
    made: dict[str, SpanShape] = {}

    def shape(name: str) -> SpanShape:
        if name not in made:
            made[name] = SpanShape(name, kind, scope)
        return made[name]

    return shape


class LoadMetrics:
    """What k6 measures of its requests and iterations.

    Requests are grouped by method, route and status; k6 itself uses the address, with every product apart.
    """

    def __init__(self) -> None:
        self._requests = MetricShape(_k6("http_reqs", "sum"), _K6_METER)
        self._failed = MetricShape(_k6("http_req_failed.total", "sum"), _K6_METER)
        self._duration = MetricShape(_k6("http_req_duration", "histogram", "ms"), _K6_METER)
        self._waiting = MetricShape(_k6("http_req_waiting", "histogram", "ms"), _K6_METER)
        self._iterations = MetricShape(_k6("iterations", "sum"), _K6_METER)
        self._iteration = MetricShape(_k6("iteration_duration", "histogram", "ms"), _K6_METER)
        self._series: dict[tuple[str, int], Series] = {}

    def request(self, call: Call, web: HttpRequest, took_s: float, status: int) -> None:
        """Record a request that took *took_s* seconds; status 0 means no answer."""
        series = self._series.get((web.route, status))
        if series is None:
            fine = 200 <= status < 400
            series = self._series[web.route, status] = (
                ("expected_response", "true" if fine else "false"),
                ("method", web.method),
                ("name", web.route.partition(" ")[2]),
                ("scenario", "default"),
                ("status", str(status)),
            )
        call.count(self._requests, 1.0, series)
        call.observe(self._duration, took_s * 1e3, series)
        call.observe(self._waiting, took_s * 1e3 * 0.96, series)  # the rest is spent receiving
        if status >= 400 or status == 0:
            call.count(self._failed, 1.0, series)

    def iteration(self, instance: Instance, took_s: float) -> None:
        """Record one iteration of a virtual user, its pause included."""
        instance.meter.add(self._iterations, 1.0, _SCENARIO)
        instance.meter.observe(self._iteration, took_s * 1e3, _SCENARIO)


def _k6(name: str, kind: MetricKind, unit: str = "") -> Instrument:
    return Instrument(f"k6.{name}", kind, unit, "", monotonic=kind == "sum")


def _request_failed(failure: RpcFailure) -> SpanOutcome:
    if failure.code.isdigit():
        return SpanOutcome("Error", "", {"http.status_code": int(failure.code)})
    return SpanOutcome("Error", failure.message, {})


def _request(method: str, url: str) -> SpanShape:
    attributes = {"http.method": method, "http.url": url}
    return SpanShape(
        method,
        "Client",
        _REQUESTS,
        attributes,
        SpanOutcome(attributes={"http.status_code": 200}),
        _request_failed,
    )


def spec(blueprint: Blueprint, run: Loop) -> ServiceSpec:
    """Return the spec of the load generator; each instance runs the users of *run*."""
    locust = blueprint.release.locust
    page, form = (_request(method, "http://frontend-proxy:8080/") for method in ("GET", "POST"))
    asked = _request("POST", "http://flagd:8016/ofrep/v1/evaluate/flags")

    def client(target: str, operation: str) -> SpanShape | None:
        if not locust:
            return None
        if target == "flagd":
            return asked
        return form if operation.endswith("/POST") else page

    if locust:
        runtime: dict[str, object] = {}
    else:  # k6 is a Go program
        plan = blueprint.plans[NAME]
        live = plan.memory_base // 3
        memory = HeapSpec(
            GO, base_bytes=plan.memory_base - live, live_bytes=live, limit_bytes=plan.memory_limit
        )
        runtime = {"heap": memory, **blueprint.process(replace(plan, language="go", runtime="go"))}
    return blueprint.spec(
        NAME,
        **runtime,
        client=client,
        flags=blueprint.flag_client(hook=locust, remote="flagd", operation=lambda _: flagd.OFREP),
        loops=(run,),
    )
