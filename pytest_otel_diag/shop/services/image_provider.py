"""image-provider (nginx): serves images; it calls no other service."""

from __future__ import annotations

from typing import Any

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.kernel import Call, Operation, ServiceSpec, SpanOutcome, SpanShape, Steps
from pytest_otel_diag.shop.records import Scope

PICTURE = "GET picture"


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of the image provider."""
    cost = blueprint.cpu("image-provider", 0.2)

    def picture(call: Call, request: Any) -> Steps:
        call.set(**{"http.target": request.path})
        yield from call.work(cost)

    server = SpanShape(
        "GET /" if blueprint.modern else "/",
        "Server",
        Scope("nginx", "1.29.4"),
        {
            "http.method": "GET",
            "http.route": "/",
            "http.scheme": "http",
            "http.flavor": "1.1",
            "net.host.name": "image-provider",
            "net.host.port": 8081,
        },
        SpanOutcome(attributes={"http.status_code": 200}),
    )
    return [blueprint.spec("image-provider", operations={PICTURE: Operation(picture, server, allocates=0)})]
