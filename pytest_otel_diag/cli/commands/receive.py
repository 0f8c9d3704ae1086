"""``otel-diag receive``: receives OTLP into a store until Ctrl-C."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Annotated

import typer

from pytest_otel_diag.cli.interruption import ended_by_signals
from pytest_otel_diag.cli.options import takes_settings
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.receiver import Counts, Receiver, parse_listen
from pytest_otel_diag.telemetry import Layout, Store

Echo = Callable[[str], object]


@takes_settings("store")
def command(
    *,
    settings: Settings,
    database: Annotated[str, typer.Option(help="Database for the exporter's tables.")] = "otel",
    http: Annotated[str, typer.Option(help="HOST:PORT of OTLP/HTTP, or off.")] = "127.0.0.1:4318",
    grpc: Annotated[str, typer.Option(help="HOST:PORT of OTLP/gRPC, or off.")] = "127.0.0.1:4317",
    keep_hours: Annotated[
        int, typer.Option(min=0, help="Delete telemetry that is older; 0 keeps all. Only for new tables.")
    ] = 0,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two status lines.")] = 5.0,
) -> None:
    """Receive OTLP over HTTP and gRPC and store it; Ctrl-C ends it with everything stored.

    Exit codes: 0 everything that was accepted is stored, 1 some of it was lost, 2 the options are wrong.
    """
    if not settings.store:
        raise ConfigurationError(
            "no store is named, and telemetry in memory would be lost at the end: give "
            "--store=chdb:///absolute/path"
        )
    listen, layout = f"http={http},grpc={grpc}", Layout(ttl_hours=keep_hours, knows_retries=True)
    raise typer.Exit(receive(settings.store.reveal(), database, listen, layout, every, typer.echo))


def receive(dsn: str, database: str, listen: str, layout: Layout, every_s: float, echo: Echo) -> int:
    """Receive until a signal arrives; return 1 when records were lost, else 0."""
    where = parse_listen(listen)
    if where is None:
        raise ConfigurationError("--http=off and --grpc=off leave nothing to receive")
    stop = threading.Event()
    with ended_by_signals(stop), Store.open(dsn) as store:
        store.create_database(database, layout=layout)
        with Receiver(store, database, http=where.http, grpc=where.grpc, warn=echo) as receiver:
            echo(f"receiving OTLP on {receiver.addresses} into {database!r} of {store.dsn}; Ctrl-C ends it")
            _report(receiver, stop, every_s, echo)
            echo("stopping, storing what was accepted")
            counts = receiver.stop()
    for line in counts.lines() or ["nothing was received"]:
        echo(line)
    return 1 if counts.lost else 0


def _report(receiver: Receiver, stop: threading.Event, every_s: float, echo: Echo) -> None:
    last, last_s = receiver.counts(), time.monotonic()
    while not stop.wait(every_s):
        counts, now_s = receiver.counts(), time.monotonic()
        if counts != last:
            echo(f"{_rate(last, counts, now_s - last_s)}; {'; '.join(counts.lines())}")
        last, last_s = counts, now_s


def _rate(before: Counts, after: Counts, over_s: float) -> str:
    return f"{(after.traces.received - before.traces.received) / over_s:,.0f} spans/s"
