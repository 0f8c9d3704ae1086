"""Where the exporter's tables lie; answers over Distributed tables are in the contract's tests."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.telemetry import placement
from pytest_otel_diag.telemetry.placement import ExporterTable
from pytest_otel_diag.telemetry.store import Store


def parsed(full: str) -> ExporterTable:
    return placement._table("otel", "otel_traces", "Distributed", full)


@pytest.mark.parametrize(
    ("more", "key", "traces"),
    [
        (", cityHash64(TraceId))", "cityHash64(TraceId)", "whole on a shard"),
        (", sipHash64(`TraceId`), 'ssd')", "sipHash64(`TraceId`)", "whole on a shard"),
        (", TraceId) SETTINGS fsync_after_insert = 1", "TraceId", "whole on a shard"),
        (", rand())", "rand()", "spread over shards"),
        (")", "", "spread over shards"),
        (", cityHash64(TraceId, SpanId))", "cityHash64(TraceId, SpanId)", "spread over shards"),
        (", toUnixTimestamp(Timestamp))", "toUnixTimestamp(Timestamp)", "spread over shards"),
    ],
)
def test_what_a_distributed_table_was_made_of(more: str, key: str, traces: str) -> None:
    table = parsed(f"Distributed('a, b', 'local', 'it\\'s'{more}")
    assert (table.cluster, table.local) == ("a, b", "local.it's")
    assert (table.sharding_key, table.traces) == (key, traces)
    assert table.distributed


def test_other_engines_are_on_one_server() -> None:
    table = placement._table("otel", "otel_logs", "MergeTree", "MergeTree ORDER BY a")
    assert (table.distributed, table.traces) == (False, "one server")


@settings(deadline=None)
@given(st.text(alphabet="ab'(),`\\ D", max_size=30))
def test_any_text_of_an_engine_is_read(text: str) -> None:
    table = parsed(f"Distributed({text})")
    assert table.traces in {"whole on a shard", "spread over shards"}


def test_tables_of_all_databases_are_listed(store: Store) -> None:
    store.create_database("one_of_two")
    try:
        tables = [table for table in store.exporter_tables() if table.database == "one_of_two"]
        assert "otel_traces" in {table.name for table in tables}
        assert not any(table.name.endswith("_mv") for table in tables)
    finally:
        store.drop_database("one_of_two")


def test_the_store_tells_time_and_version(store: Store) -> None:
    assert store.clock_ns() > 1_700_000_000_000_000_000
    assert store.version()[0].isdigit()
