"""currency (C++): converts money; it calls no other service."""

from __future__ import annotations

from typing import Any

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.data import RATES, converted
from pytest_otel_diag.shop.emission.instruments import MetricShape, Series
from pytest_otel_diag.shop.kernel import Call, Operation, ServiceSpec, SpanOutcome, SpanShape, Steps
from pytest_otel_diag.shop.records import Instrument, Scope

SERVICE = "oteldemo.CurrencyService"
CONVERT = f"{SERVICE}/Convert"
SUPPORTED = f"{SERVICE}/GetSupportedCurrencies"
_SCOPE = Scope("currency", "1.0.0")
_LOGGER = Scope("currency", "")


def _shape(method: str, *, modern: bool) -> SpanShape:
    if modern:
        attributes = {"rpc.system.name": "grpc", "rpc.method": f"{SERVICE}/{method}"}
        done: dict[str, str | bool | int | float] = {"rpc.response.status_code": "OK"}
    else:
        attributes = {"rpc.system": "grpc", "rpc.service": SERVICE, "rpc.method": method}
        done = {"rpc.grpc.status_code": 0}
    return SpanShape(f"Currency/{method}", "Server", _SCOPE, attributes, SpanOutcome("Ok", "", done))


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of the currency service."""
    release = blueprint.release
    counter = MetricShape(Instrument(release.metric("currency.conversions"), "sum"), _SCOPE)
    series: dict[str, Series] = {code: ((release.attribute("exchange.metric"), code),) for code in RATES}
    source_key, target_key = release.attribute("exchange.from"), release.attribute("exchange.to")
    cost = blueprint.cpu("currency", 0.25)

    def convert(call: Call, request: tuple[float, str, str]) -> Steps:
        amount, source, target = request
        call.event("Processing currency conversion request")
        yield from call.work(cost)
        call.set(**{source_key: source, target_key: target})
        call.event("Conversion successful, response sent back")
        call.count(counter, 1.0, series[target])
        call.log("INFO", "Convert conversion successful", scope=_LOGGER)
        return converted(amount, source, target)

    def supported(call: Call, request: Any) -> Steps:  # noqa: ARG001 - a behaviour
        call.event("Processing supported currencies request")
        yield from call.work(cost)
        call.event("Currencies fetched, response sent back")
        call.log("INFO", "GetSupportedCurrencies successful", scope=_LOGGER)
        return tuple(RATES)

    operations = {
        CONVERT: Operation(convert, _shape("Convert", modern=blueprint.modern), allocates=4_000),
        SUPPORTED: Operation(
            supported, _shape("GetSupportedCurrencies", modern=blueprint.modern), allocates=4_000
        ),
    }
    return [blueprint.spec("currency", operations=operations)]
