"""Runs the simulated shop in real time: flags from outside, the simulation, its pace, the collector."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pytest_otel_diag import catalog
from pytest_otel_diag.cli.interruption import ended_by_signals
from pytest_otel_diag.config.shop_options import RealTimeShopOptions
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.model.windows import seconds_to_ns
from pytest_otel_diag.shop.flag_provider import FlagProvider, FlagScalar
from pytest_otel_diag.shop.realtime import status
from pytest_otel_diag.shop.realtime.endpoint import OtlpEndpoint
from pytest_otel_diag.shop.realtime.export import OtlpExporter
from pytest_otel_diag.shop.realtime.flag_file import FlagFileProvider
from pytest_otel_diag.shop.realtime.flagd import FlagdProvider
from pytest_otel_diag.shop.realtime.pacing import Pacer
from pytest_otel_diag.shop.realtime.simulated import PacedShop
from pytest_otel_diag.shop.realtime.transport import open_transport
from pytest_otel_diag.shop.records import Batch
from pytest_otel_diag.shop.simulation import Shop, Variation

__all__ = ["Order", "Variation", "endpoint", "run"]

Echo = Callable[[str], object]

_QUEUE_WAIT_S = 5.0
_FIRST_ANSWER_S = 5.0  # how long to wait for flagd before the shop starts with defaults


@dataclass(frozen=True)
class Order:
    """What to run.

    ``duration_s`` is in the shop's time. Without ``flagd`` and ``flag_file`` flags stay at their defaults.
    ``every_s`` is the time between two status lines, ``flush_s`` the time to send the rest at the end.
    """

    endpoint: OtlpEndpoint
    variation: Variation
    flagd: str = ""
    flag_file: Path | None = None
    duration_s: float | None = None
    speed: float = 1.0
    every_s: float = 5.0
    flush_s: float = 15.0


def endpoint(options: RealTimeShopOptions) -> OtlpEndpoint:
    """Return the collector that the options name; raises ConfigurationError."""
    return OtlpEndpoint.parse(
        options.otlp.reveal(),
        protocol=options.otlp_protocol,
        headers=options.otlp_headers.reveal(),
        compression=options.otlp_compression,
        timeout_s=options.otlp_timeout_s,
    )


def run(order: Order, echo: Echo) -> int:
    """Run until the duration is over or a signal arrives; return 1 when records were dropped, else 0.

    Raises ConfigurationError for options that do not fit together.
    """
    start_ns = _start_ns(order)
    stop = threading.Event()
    with ExitStack() as open_until_end:
        open_until_end.enter_context(ended_by_signals(stop))
        flags, source = _flags(order, open_until_end, echo)
        shop = Shop(order.variation, flags, start_ns)
        exporter = OtlpExporter(
            open_transport(order.endpoint, now_s=time.time),
            monotonic=time.monotonic,
            rng=Random(),  # noqa: S311 - spreads retries, no secret
            notify=echo,
        )
        pacer = Pacer(
            PacedShop(shop), _sink(exporter, order), monotonic=time.monotonic, stop=stop, speed=order.speed
        )
        varied = order.variation
        echo(
            f"shop of demo {varied.demo}, {varied.users} users and {varied.browser_users} with a browser, "
            f"seed {varied.seed}, to {order.endpoint}, flags from {source}"
        )
        reporter = _Reporter(pacer, exporter, flags, order, echo)
        flush_s = order.flush_s
        try:
            pacer.run(order.duration_s, reporter.step)
        except KeyboardInterrupt:
            flush_s = 0.0
            raise
        finally:
            counts = exporter.stop(flush_s)
            echo(status.summary(counts, pacer.passed_s))
    return int(counts.dropped > 0)


def _sink(exporter: OtlpExporter, order: Order) -> Callable[[Batch], object]:
    """Return where batches go: a full queue drops them in real time, as SDKs do; a faster shop waits."""
    wait_s = _QUEUE_WAIT_S if order.speed > 1 else 0.0
    return lambda batch: exporter.submit(batch, wait_s)


def _start_ns(order: Order) -> int:
    """Return the shop's first instant: now, or early enough that a faster shop ends now."""
    now_ns = time.time_ns()
    if order.speed <= 1:
        return now_ns
    if order.duration_s is None:
        raise ConfigurationError(
            f"--speed={order.speed:g} without --duration: the telemetry would run ahead of the clock; "
            "give a duration, so that the shop starts in the past and ends now"
        )
    return now_ns - seconds_to_ns(order.duration_s * (1 - 1 / order.speed))


def _flags(order: Order, open_until_end: ExitStack, echo: Echo) -> tuple[FlagProvider, str]:
    if order.flag_file is not None:
        return FlagFileProvider(order.flag_file, FlagdDocument, notify=echo), str(order.flag_file)
    if order.flagd:
        reader = FlagdProvider(order.flagd, monotonic=time.monotonic, notify=echo)
        open_until_end.enter_context(reader)
        reader.wait(_FIRST_ANSWER_S)
        return reader, f"flagd {order.flagd}"
    demo = order.variation.demo
    return FlagdDocument(catalog.demo_document(demo)), "the catalog (all at default)"


class _Reporter:
    """Prints a status line at intervals."""

    def __init__(
        self, pacer: Pacer, exporter: OtlpExporter, flags: FlagProvider, order: Order, echo: Echo
    ) -> None:
        self._pacer = pacer
        self._exporter = exporter
        self._flags = flags
        self._periods = tuple(catalog.generation(order.variation.demo).flags.values())
        self._every_s = order.every_s
        self._echo = echo
        self._last_s = time.monotonic()
        self._last = exporter.counts()

    def step(self) -> None:
        """Print a status line when one is due."""
        now_s = time.monotonic()
        if now_s - self._last_s < self._every_s:
            return
        counts = self._exporter.counts()
        self._echo(
            status.line(
                self._last,
                counts,
                over_s=now_s - self._last_s,
                passed_s=self._pacer.passed_s,
                behind_s=self._pacer.behind_s,
                flags=self._changed_flags(),
            )
        )
        self._last_s, self._last = now_s, counts

    def _changed_flags(self) -> str:
        changed = []
        answered = False
        for period in self._periods:
            default = _default(next(iter(period.variants.values())))
            answer = self._flags.evaluate(period.name, default, dict(period.context))
            answered = answered or answer.reason != "ERROR"
            if answer.variant and answer.variant != period.default:
                changed.append(f"{period.name}={answer.variant}")
        return status.flags(changed, answered=answered)


def _default(value: FlagScalar) -> FlagScalar:
    """Return the default with which a service would evaluate a flag of such values."""
    if isinstance(value, bool):
        return False
    return "" if isinstance(value, str) else 0.0
