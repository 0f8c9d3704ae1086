"""quote (PHP): computes shipping costs; it calls no other service."""

from __future__ import annotations

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.instrumentation import Http
from pytest_otel_diag.shop.demo.payloads import fields
from pytest_otel_diag.shop.emission.instruments import MetricShape, Series
from pytest_otel_diag.shop.kernel import Call, Operation, ServiceSpec, SpanShape, Steps
from pytest_otel_diag.shop.records import Instrument, Scope

QUOTE = "POST /getquote"
PER_ITEM_USD = 8.99
_SLIM = Scope("io.opentelemetry.contrib.php.slim", "")
_MANUAL = Scope("manual-instrumentation", "")
_LOGGER = Scope("monolog", "")


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of the quote service."""
    release = blueprint.release
    items_key, cost_key = release.attribute("quote.items.count"), release.attribute("quote.cost.total")
    counter = MetricShape(
        Instrument(release.metric("quotes"), "sum", description="number of quotes calculated"), _MANUAL
    )
    action = SpanShape(
        "{closure}",
        "Internal",
        _SLIM,
        {"code.function.name": "{closure}", "code.file.path": "/var/www/app/routes.php"},
    )
    calculate = SpanShape("calculate-quote", "Internal", _MANUAL)
    framework, response = blueprint.cpu("quote", 0.5), blueprint.cpu("quote", 0.1)
    closure, own = blueprint.cpu("quote", 0.03), blueprint.cpu("quote", 0.12)
    series: dict[int, Series] = {}

    def get_quote(call: Call, items: int) -> Steps:
        yield from call.work(framework)
        with call.span(action) as span:
            span.event("Received get quote request, processing it")
            yield from call.work(closure)
            with call.span(calculate) as inner:
                inner.event("Calculating quote")
                yield from call.work(own)
                cost = round(PER_ITEM_USD * items, 2)
                inner.set({items_key: items, cost_key: cost})
                inner.event("Quote calculated, returning its value")
                counted = series.get(items)
                if counted is None:
                    counted = series[items] = (("number_of_items", items),)
                call.count(counter, 1.0, counted)
            yield from call.work(closure)
            span.event("Quote processed, response sent back", {cost_key: cost})
            call.log("INFO", "Calculated quote", scope=_LOGGER, **fields({"context.total": cost}))
        yield from call.work(response)
        return cost

    server = Http(_SLIM, "quote", 8090).server("POST", "/getquote")
    return [blueprint.spec("quote", operations={QUOTE: Operation(get_quote, server, allocates=0)})]
