"""Simulated runs of the shop, shared by several tests and cached per process."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property

from pytest_otel_diag import catalog
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.shop.records import Batch, LogRecord, SpanRecord
from pytest_otel_diag.shop.simulation import Shop
from pytest_otel_diag.shop.variation import Variation

START_NS = 1_800_000_000 * 10**9
WARM_S = 30
SECOND_NS = 10**9


class CountingFlags:
    """The real flagd document, with a count of the evaluations per flag."""

    def __init__(self, demo: str) -> None:
        self.document = FlagdDocument(catalog.demo_document(demo))
        self.asked: Counter[str] = Counter()
        self.contexts: Counter[tuple[str, tuple]] = Counter()

    def evaluate(self, key, default, context):
        self.asked[key] += 1
        self.contexts[key, tuple(sorted(context.items()))] += 1
        return self.document.evaluate(key, default, context)


@dataclass
class Phase:
    """The records that began between two instants of a run."""

    seconds: float
    batch: Batch

    @cached_property
    def by_name(self) -> dict[tuple[str, str], list[SpanRecord]]:
        found: dict[tuple[str, str], list[SpanRecord]] = {}
        for span in self.batch.spans:
            found.setdefault((span.resource.service, span.name), []).append(span)
        return found

    def spans(self, service: str, name: str, kind: str = "") -> list[SpanRecord]:
        return [span for span in self.by_name.get((service, name), ()) if not kind or span.kind == kind]

    def of(self, service: str) -> list[SpanRecord]:
        return [span for span in self.batch.spans if span.resource.service == service]

    def errors(self, service: str, name: str = "") -> list[SpanRecord]:
        return [
            span
            for span in self.of(service)
            if span.status == "Error" and "EventStream" not in span.name and name in ("", span.name)
        ]

    def logs(self, service: str, text: str = "") -> list[LogRecord]:
        return [log for log in self.batch.logs if log.resource.service == service and text in log.body]

    def quantile_ms(self, service: str, name: str, share: float) -> float:
        spans = sorted(span.duration_ns for span in self.spans(service, name))
        return spans[min(len(spans) - 1, int(share * len(spans)))] / 1e6

    def rate(self, service: str, kind: str = "") -> float:
        return sum(not kind or span.kind == kind for span in self.of(service)) / self.seconds


@dataclass
class Run:
    """A run with its phases: before the fault, with it, and after it."""

    shop: Shop
    flags: CountingFlags
    before: Phase
    fault: Phase
    after: Phase


def second(value: float) -> int:
    return START_NS + round(value * SECOND_NS)


def _between(batch: Batch, first_s: float, last_s: float) -> Phase:
    first, last = second(first_s), second(last_s)
    return Phase(
        last_s - first_s,
        Batch(
            [span for span in batch.spans if first <= span.start_ns < last],
            [log for log in batch.logs if first <= log.time_ns < last],
            [point for point in batch.metrics if first <= point.time_ns < last],
        ),
    )


@cache
def run(
    demo: str = "3.0",
    *,
    flag: str = "",
    variant: str = "on",
    users: int = 5,
    seconds: float = 300.0,
    after_s: float = 0.0,
    seed: int = 7,
    also: tuple[tuple[str, str], ...] = (),
) -> Run:
    """Run WARM_S seconds, then *seconds* with the flag, then *after_s* (if any) with it off again."""
    flags = CountingFlags(demo)
    raw = flags.document.raw
    shop = Shop(Variation(demo=demo, users=users, seed=seed), flags, START_NS)
    shop.advance(second(WARM_S))
    for key, chosen in (((flag, variant),) if flag else ()) + also:
        flags.document.change(key, chosen)
    shop.advance(second(WARM_S + seconds))
    if after_s:
        flags.document.restore(raw)
    end_s = WARM_S + seconds + after_s
    shop.advance(second(end_s + 15))
    batch = shop.take(shop.now_ns)
    gc.freeze()  # exclude the cached records from garbage collection
    return Run(
        shop,
        flags,
        _between(batch, 0, WARM_S),
        _between(batch, WARM_S, WARM_S + seconds),
        _between(batch, WARM_S + seconds, end_s),
    )


def said(span: SpanRecord) -> str:
    """Return the message of the last exception that the span records."""
    return str(span.events[-1].attributes["exception.message"])
