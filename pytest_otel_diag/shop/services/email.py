"""email (Ruby): confirms orders. emailMemoryLeak keeps every sent email, padded to a multiple of its size.

Without the flag, a delivery clears the previous ones. The container's memory limit kills a process that
keeps too many; its callers see the connection end.
"""

from __future__ import annotations

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.instrumentation import Http
from pytest_otel_diag.shop.demo.payloads import PlacedOrder, fields
from pytest_otel_diag.shop.emission.instruments import MetricShape
from pytest_otel_diag.shop.kernel import Call, Instance, Operation, ServiceSpec, SpanShape, Steps
from pytest_otel_diag.shop.records import Instrument, Scope
from pytest_otel_diag.shop.services import flagd

CONFIRM = "POST /send_order_confirmation"
BODY_BYTES, ITEM_BYTES = 3400, 500
"""Length of an email's body without items, and the length that an item adds."""
COPY_S_PER_BYTE = 1.5e-8
"""CPU time to build, pad and deliver a body, which Ruby copies several times."""

_SINATRA = Scope("OpenTelemetry::Instrumentation::Sinatra", "0.28.0")
_MANUAL = Scope("email", "")


class Deliveries:
    """State of TestMailer: bytes of emails that were not cleared."""

    __slots__ = ("kept",)

    def __init__(self) -> None:
        self.kept = 0


def _deliveries(instance: Instance) -> Deliveries:
    # only a process that starts during the simulation logs its start
    if instance.started_s >= 0:
        Call.root(instance).log(
            "INFO", "== Sinatra has taken the stage on 6060 for production with backup from Puma"
        )
    return Deliveries()


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of the email service."""
    release = blueprint.release
    order_key = release.attribute("order.id")
    counter = MetricShape(Instrument(release.metric("email.confirmations"), "sum", "1"), _MANUAL)
    send = SpanShape("send_email", "Internal", _MANUAL)
    layout, view = (
        SpanShape("sinatra.render_template", "Internal", _SINATRA, {"sinatra.template_name": name})
        for name in ("layout", "confirmation")
    )
    parse, render = blueprint.cpu("email", 2.0), blueprint.cpu("email", 4.0)
    leaks = "emailMemoryLeak" in release.flags

    def confirm(call: Call, request: tuple[str, PlacedOrder]) -> Steps:
        address, order = request
        call.set(**{order_key: order.order_id})
        yield from call.work(parse)
        call.count(counter)
        with call.span(send) as span:
            multiplier = (yield from call.flag("emailMemoryLeak", 0)) if leaks else 0
            with call.span(view):
                yield from call.work(render)
            with call.span(layout):
                yield from call.work(render / 4)
            body = BODY_BYTES + ITEM_BYTES * len(order.items)
            if multiplier < 1:
                _clear(call)
            else:
                yield from _keep(call, int(body * multiplier))
            span.set(
                {"app.email.recipient" if not blueprint.modern else "demo.notification.recipient": address}
            )
            call.log(
                "INFO", "Order confirmation email sent", scope=_MANUAL, **fields({order_key: order.order_id})
            )

    server = Http(_SINATRA, "email", 6060).server("POST", "/send_order_confirmation")
    return [
        blueprint.spec(
            "email",
            operations={CONFIRM: Operation(confirm, server, allocates=600_000)},
            flags=blueprint.flag_client(hook=False),
            state=_deliveries,
            loops=(flagd.LISTEN,),
        )
    ]


def _clear(call: Call) -> None:
    deliveries: Deliveries = call.state
    if deliveries.kept:
        call.instance.heap.release(deliveries.kept)
        deliveries.kept = 0


def _keep(call: Call, size: int) -> Steps:
    """Pad, deliver and keep an email: memory grows first, then the copies take CPU time."""
    deliveries: Deliveries = call.state
    deliveries.kept += size
    call.instance.heap.retain(size)
    yield from call.work(size * COPY_S_PER_BYTE)
