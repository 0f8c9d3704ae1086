"""A small shop in a real embedded store."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pytest

from pytest_otel_diag.telemetry.store import Store

CALLS = (("frontend", "checkout"), ("checkout", "payment"), ("checkout", "cart"), ("cart", "redis"))


@pytest.fixture(scope="session")
def shop_store():
    with Store.open() as store:
        name = "scoring_shop"
        store.create_database(name)
        store.ingest_arrow(name, "otel_traces", _spans())
        yield store, name
        store.drop_database(name)


@pytest.fixture
def shop(shop_store):
    store, name = shop_store
    telemetry = store.telemetry(name)
    yield telemetry
    telemetry.close()


def _spans() -> pa.Table:
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    services = ["frontend", "checkout", "payment", "cart", "redis"]
    return pa.table(
        {
            "Timestamp": pa.array([begin] * len(services), pa.timestamp("ns", tz="UTC")),
            "TraceId": ["0" * 31 + "1"] * len(services),
            "SpanId": [f"{index:016x}" for index in range(1, len(services) + 1)],
            "ParentSpanId": ["", *(f"{index:016x}" for index in range(1, len(services)))],
            "SpanName": ["op"] * len(services),
            "SpanKind": ["Server"] * len(services),
            "ServiceName": services,
            "Duration": pa.array([1000] * len(services), pa.uint64()),
            "StatusCode": ["Error" if service == "payment" else "Unset" for service in services],
            "StatusMessage": [""] * len(services),
            "ResourceAttributes": pa.array(
                [
                    [("host.name", "node-b"), ("service.instance.id", f"{index}f1c")]
                    for index in (2, 3, 4, 5, 6)
                ],
                pa.map_(pa.string(), pa.string()),
            ),
        }
    )
