"""What services got for a flag, read from their spans and span events."""

from __future__ import annotations

import pyarrow as pa

from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.sessions.impact.felt import Evaluations, evaluations_of
from pytest_otel_diag.testing.telemetry_contract import SECOND_NS, START_NS, span, traces_table

MAP = pa.map_(pa.string(), pa.string())
HOUR = Window(start_ns=START_NS, end_ns=START_NS + 3600 * SECOND_NS)


def evaluated(service: str, at_s: float, **attributes: str):
    """A span with an event of an evaluation; names of attributes are those after ``feature_flag.``."""
    named = [(f"feature_flag.{key.replace('__', '.')}", value) for key, value in attributes.items()]
    return span(f"t{at_s}", "s", service=service, at_s=at_s), named


async def test_old_and_new_names_of_attributes_are_read_from_events_and_spans(store, database):
    rows = [
        evaluated("payment", 10, key="paymentFailure", variant="off"),
        evaluated("payment", 70, key="paymentFailure", result__variant="50%", result__value="0.5"),
        evaluated("checkout", 80, key="paymentFailure", variant="off"),
        evaluated("ad", 80, key="adFailure", variant="on"),
        evaluated("flagd", 80, key="paymentFailure", variant="50%"),
    ]
    on_span = evaluated("cart", 75, key="paymentFailure", result__value="0.5")
    row, attributes = on_span
    table = traces_table([*(row for row, _ in rows), {**row, "SpanAttributes": attributes}])
    events = [[named] for _, named in rows] + [[]]
    table = table.append_column("Events.Attributes", pa.array(events, pa.list_(MAP)))
    table = table.append_column(
        "Events.Name", pa.array([["feature_flag"]] * len(rows) + [[]], pa.list_(pa.string()))
    )
    times = pa.array([[START_NS]] * len(rows) + [[]], pa.list_(pa.timestamp("ns", "UTC")))
    table = table.append_column("Events.Timestamp", times)
    store.ingest_arrow(database, "otel_traces", table)
    telemetry = store.telemetry(database)

    found = await evaluations_of(telemetry, "paymentFailure", HOUR, START_NS + 60 * SECOND_NS)

    assert found == Evaluations(
        since={
            "payment": frozenset({"50%", "0.5"}),
            "checkout": frozenset({"off"}),
            "cart": frozenset({"0.5"}),
        },
        before=frozenset({"payment"}),
    )
    assert await evaluations_of(telemetry, "cartFailure", HOUR, START_NS) == Evaluations()
