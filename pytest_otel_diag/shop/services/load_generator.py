"""load-generator: Locust (2.x, 3.1) or k6 (3.0), the service that virtual users run in.

k6 creates a root span per task, also for a task inside another, and propagates it to every request of the
task. Locust's tasks nest, and each request has a client span of the requests library.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.releases import DemoRelease
from pytest_otel_diag.shop.kernel import HeapSpec, RpcFailure, ServiceSpec, SpanOutcome, SpanShape
from pytest_otel_diag.shop.kernel.service_spec import Loop
from pytest_otel_diag.shop.records import Scope, SpanKind
from pytest_otel_diag.shop.services import flagd

NAME = "load-generator"
_K6 = Scope("k6/x/otel", "")
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
    else:  # k6 is a Go program whose extension only exports traces: no runtime metrics
        plan = blueprint.plans[NAME]
        memory = HeapSpec(base_bytes=plan.memory_base, live_bytes=0, limit_bytes=plan.memory_limit)
        runtime = {"heap": memory, "resource": {**blueprint.resource(plan), "telemetry.sdk.language": "go"}}
    return blueprint.spec(
        NAME,
        **runtime,
        client=client,
        flags=blueprint.flag_client(hook=locust, remote="flagd", operation=lambda _: flagd.OFREP),
        loops=(run,),
    )
