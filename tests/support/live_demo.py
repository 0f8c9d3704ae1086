"""A tiny system that runs: frontend → checkout → payment, ten orders a second, and a real flagd.

Its telemetry goes straight into a database of the exporter's layout, as a collector would write it. While
``paymentFailure`` is served as on, payment fails.
"""

import itertools
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytest_otel_diag import catalog
from pytest_otel_diag.config.options import resolve
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.testing.sample_telemetry import START_NS, span, traces_table
from tests.support.deadlines import deadline_s, eventually
from tests.support.flagd import Flagd

EVERY_S = 0.5
ORDERS = 5
CALLS = (("frontend", "POST /api/checkout"), ("checkout", "PlaceOrder"), ("payment", "Charge"))


@dataclass
class LiveDemo:
    """``ahead_s`` puts its hosts' clocks ahead; ``quiet`` stops its users."""

    flagd: Flagd
    document: Path
    state: Path
    store: Store
    dsn: str
    database: str
    ahead_s: float = 0.0
    quiet: bool = False

    def settings(self, **given: object) -> Settings:
        """Return the settings that reach it."""
        options = {
            "flags": f"file:{self.document}",
            "flagd": f"ofrep:{self.flagd.ofrep}",
            "store": self.dsn,
            "state": str(self.state),
            "frontend": "http://127.0.0.1:9",
            "drive": "false",
            **{name: str(value) for name, value in given.items()},
        }
        return Settings.of(resolve({f"otel_diag_{name}": value for name, value in options.items()}, {}, {}))

    def failing(self) -> bool:
        """Whether payment is to fail now, as a service asks."""
        request = urllib.request.Request(
            f"{self.flagd.ofrep}/ofrep/v1/evaluate/flags/paymentFailure",
            data=b"{}",
            headers={"content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=deadline_s(2)) as answer:
                return bool(json.load(answer)["value"])
        except OSError:
            return False

    def feed(self, stop: threading.Event) -> None:
        """Serve customers until *stop* is set."""
        numbers = itertools.count(time.time_ns() % 10**9 * 1000)
        while not stop.wait(EVERY_S):
            if not self.quiet:
                self.serve(next(numbers), failing=self.failing())

    def serve(self, number: int, *, failing: bool) -> None:
        """Write the spans of a few orders that have just ended."""
        now_s = (time.time_ns() - START_NS) / 1e9 + self.ahead_s
        rows = []
        for order in range(ORDERS):
            trace, parent, at_s = f"{number:028x}{order:04x}", "", now_s - EVERY_S * (order + 1) / ORDERS
            for depth, (service, operation) in enumerate(CALLS):
                fields = {"service": service, "operation": operation, "at_s": at_s + depth / 1000}
                span_id = f"{number:012x}{order:02x}{depth:02x}"
                length = {"ms": 9.0 - 3 * depth, "error": failing}
                if depth:
                    caller = CALLS[depth - 1][0]
                    client = f"{span_id[:-2]}f{depth}"
                    calling = {"service": caller, "operation": operation, "at_s": at_s + depth / 1000}
                    rows.append(span(trace, client, parent, kind="Client", **calling, **length))
                    parent = client
                rows.append(span(trace, span_id, parent, **fields, **length))
                parent = span_id
        self.store.ingest_arrow(self.database, "otel_traces", traces_table(rows))


@contextmanager
def live_demo(folder: Path, store: Store, dsn: str, database: str = "otel") -> Iterator[LiveDemo]:
    """Run it; *store* reaches the server at *dsn*, where *database* is made."""
    document = folder / "demo.flagd.json"
    document.write_bytes(catalog.demo_document("3.0"))
    store.create_database(database)
    stop = threading.Event()
    with Flagd(document, folder / "flagd.log") as flagd:
        demo = LiveDemo(flagd, document, folder / "state", store, dsn, database)
        thread = threading.Thread(target=demo.feed, args=(stop,), daemon=True)
        thread.start()
        assert eventually(lambda: store.count_rows(database, "otel_traces"))
        try:
            yield demo
        finally:
            stop.set()
            thread.join(10)
            store.drop_database(database)
