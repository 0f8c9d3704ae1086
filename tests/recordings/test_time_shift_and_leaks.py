"""Time shift and leak detection: properties over any batch."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.errors import ConfigurationError, RecordingError
from pytest_otel_diag.model.session import FlagMoment, SessionWindows
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window
from pytest_otel_diag.recordings.format import nested
from pytest_otel_diag.recordings.format.manifest import CapturedSession, ControlWindow
from pytest_otel_diag.recordings.leaks import MASK, Leaks
from pytest_otel_diag.recordings.time_shift import (
    ANONYMOUS_NS,
    Shift,
    instant_of,
    shifted_batch,
    shifted_manifest,
    step_to,
)
from tests.recordings.recording_samples import SECOND, T0, incident, manifest

MAP = pa.map_(pa.string(), pa.string())
INSTANT = pa.timestamp("ns", "UTC")

instants = st.one_of(st.just(0), st.integers(T0, T0 + 10**15))
steps = st.integers(-(10**6), 10**6).map(lambda seconds: seconds * NANOS_PER_SECOND)
keys = st.sampled_from(["http.route", "feature_flag.key", "app.id", "demo.feature_flag.x", "Feature_Flag.Y"])
texts = st.sampled_from(["ok", "adFailure is on", "Feature flag set", "cart", "", "feature-flags", "GET /x"])
attributes = st.dictionaries(keys, texts, max_size=3).map(lambda found: list(found.items()))
events = st.lists(
    st.tuples(instants, st.sampled_from(["feature_flag.evaluation", "exception"]), attributes), max_size=3
)
rows = st.lists(
    st.tuples(
        instants,
        st.sampled_from(["cart", "flagd", "checkout"]),
        st.sampled_from(["GET /", "flagd.evaluation.v1.Service/ResolveBoolean", "charge"]),
        texts,
        attributes,
        events,
    ),
    min_size=1,
    max_size=8,
)


def _batch(found: list[tuple]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "Timestamp": pa.array([row[0] for row in found], INSTANT),
            "ServiceName": pa.array([row[1] for row in found]),
            "SpanName": pa.array([row[2] for row in found]),
            "StatusMessage": pa.array([row[3] for row in found]),
            "SpanAttributes": pa.array([row[4] for row in found], MAP),
            "Duration": pa.array(range(len(found)), pa.uint64()),
            "Events.Timestamp": pa.array([[e[0] for e in row[5]] for row in found], pa.list_(INSTANT)),
            "Events.Name": pa.array([[e[1] for e in row[5]] for row in found], pa.list_(pa.string())),
            "Events.Attributes": pa.array([[e[2] for e in row[5]] for row in found], pa.list_(MAP)),
        }
    )


def _sliced(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the same rows as a slice of a longer batch, as file readers return them."""
    twice = pa.Table.from_batches([batch, batch]).combine_chunks().to_batches()[0]
    return twice.slice(batch.num_rows)


def _rows(batch: pa.RecordBatch) -> list[dict]:
    """Return rows as Python values with integer instants (datetime has no nanoseconds)."""
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_timestamp(column.type):
            columns[name] = column.cast(pa.int64()).to_pylist()
        elif pa.types.is_list(column.type) and pa.types.is_timestamp(column.type.value_type):
            columns[name] = column.cast(pa.list_(pa.int64())).to_pylist()
        else:
            columns[name] = column.to_pylist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@given(rows, steps, st.booleans())
@settings(max_examples=120, deadline=None)
def test_a_shift_changes_all_instants_and_nothing_else(found: list, step_ns: int, cut: bool) -> None:
    batch = _batch(found)
    moved = shifted_batch(_sliced(batch) if cut else batch, step_ns)
    assert moved.schema.equals(batch.schema)
    for before, after in zip(_rows(batch), _rows(moved), strict=True):
        expected = dict(before)
        expected["Timestamp"] = before["Timestamp"] and before["Timestamp"] + step_ns
        expected["Events.Timestamp"] = [at and at + step_ns for at in before["Events.Timestamp"]]
        assert after == expected
    assert _rows(shifted_batch(moved, -step_ns)) == _rows(batch)


@given(steps)
@settings(max_examples=40, deadline=None)
def test_the_manifest_shifts_with_its_telemetry(step_ns: int) -> None:
    window = Window(start_ns=T0, end_ns=T0 + 60 * SECOND)
    from_scenario = incident(baseline=window, reference=(window.moved(-60 * SECOND),))
    captured = CapturedSession(
        id="a",
        session_id="s",
        target="shop",
        scenario={"id": "x", "expectation": {}},
        windows=SessionWindows(baseline=window, incident=window.moved(SECOND), reference=(window,)),
        telemetry=(window,),
        flag_timeline=(FlagMoment(at_ns=T0, flag="f", variant="on"),),
        provenance={"started_ns": "17"},
    )
    control = ControlWindow(id="c", system="s", window=window)
    given_ = manifest(
        start_ns=T0,
        end_ns=T0 + SECOND,
        incidents=(from_scenario,),
        controls=(control,),
        captured=(captured,),
        quiet=(window,),
    )
    moved = shifted_manifest(given_, step_ns)
    assert moved.incidents[0].start_ns - from_scenario.start_ns == step_ns
    assert moved.incidents[0].baseline == window.moved(step_ns)
    assert (
        moved.controls[0].window == moved.quiet[0] == moved.captured[0].telemetry[0] == window.moved(step_ns)
    )
    assert moved.captured[0].windows.incident == window.moved(SECOND + step_ns)
    assert moved.captured[0].flag_timeline[0].at_ns == T0 + step_ns
    assert moved.captured[0].provenance == {"started_ns": "17"}
    assert moved.incidents[0].guard_s == from_scenario.guard_s
    assert shifted_manifest(moved, -step_ns) == given_


@given(instants.filter(bool), instants.filter(bool))
def test_shifts_are_whole_seconds(start_ns: int, wanted_ns: int) -> None:
    step_ns = step_to(start_ns, wanted_ns)
    assert step_ns % NANOS_PER_SECOND == 0
    assert (start_ns + step_ns) // NANOS_PER_SECOND == wanted_ns // NANOS_PER_SECOND


def test_times_stay_between_1970_and_2262() -> None:
    batch = _batch([(T0, "cart", "x", "", [], []), (0, "cart", "x", "", [], [])])
    for step_ns in (-2 * T0, 2**63 - T0):
        with pytest.raises(RecordingError, match="out of the years 1970 to 2262"):
            shifted_batch(batch, step_ns)
        with pytest.raises(RecordingError, match="out of the years 1970 to 2262"):
            shifted_manifest(manifest(start_ns=T0, end_ns=T0 + 1), step_ns)
    with pytest.raises(RecordingError, match="out of the years"):
        shifted_batch(batch, 2**64)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2000-01-01T00:00:00Z", ANONYMOUS_NS // NANOS_PER_SECOND),
        ("1970-01-02", 86_400),
        ("1970-01-01T01:00+01:00", 0),
    ],
)
def test_instants_are_parsed(text: str, seconds: int) -> None:
    assert instant_of(text) == seconds * NANOS_PER_SECOND


def test_an_invalid_instant_is_rejected_with_the_format() -> None:
    with pytest.raises(RecordingError, match="write it as 2026-01-31T08:00:00Z"):
        instant_of("yesterday")


def _leaking(row: dict) -> dict[str, bool]:
    """Return the leaks of one row by a simple reference implementation."""
    texts_ = [row["StatusMessage"], row["SpanName"], *(value for _, value in row["SpanAttributes"])]
    words = ("adfailure", "feature flag", "feature-flag")
    return {
        "flag_service": row["ServiceName"] == "flagd" or row["SpanName"].startswith("flagd."),
        "flag_events": "feature_flag.evaluation" in row["Events.Name"],
        "flag_attributes": any("feature_flag" in key.lower() for key, _ in row["SpanAttributes"]),
        "flag_texts": any(word in text.lower() for word in words for text in texts_),
    }


@given(rows, st.booleans())
@settings(max_examples=120, deadline=None)
def test_leaks_are_counted_and_redacted(found: list, cut: bool) -> None:
    batch = _sliced(_batch(found)) if cut else _batch(found)
    leaks = Leaks(["adFailure"])
    leaks.count(batch)
    expected = [_leaking(row) for row in _rows(batch)]
    kinds = {kind: sum(row[kind] for row in expected) for kind in expected[0]}
    assert leaks.counts == {kind: count for kind, count in kinds.items() if count}
    clean = leaks.redacted(batch)
    assert clean.schema.equals(batch.schema)
    kept = [row for row, kinds in zip(_rows(batch), expected, strict=True) if not kinds["flag_service"]]
    assert len(kept) == clean.num_rows
    for before, after in zip(kept, _rows(clean), strict=True):
        assert after["Timestamp"] == before["Timestamp"]
        assert after["Events.Name"] == [name for name in before["Events.Name"] if name == "exception"]
        assert len(after["Events.Timestamp"]) == len(after["Events.Attributes"]) == len(after["Events.Name"])
        assert not any("feature_flag" in key.lower() for key, _ in after["SpanAttributes"])
        changed = _leaking(before)["flag_texts"] and before["StatusMessage"] != after["StatusMessage"]
        assert not changed or MASK in after["StatusMessage"]
    again = Leaks(["adFailure"])
    again.count(clean)
    assert again.counts == {}


def test_flag_metrics_count_as_rows() -> None:
    batch = pa.RecordBatch.from_pydict(
        {
            "TimeUnix": pa.array([T0, T0, T0], INSTANT),
            "ServiceName": pa.array(["cart", "cart", "flagd"]),
            "MetricName": pa.array(["feature_flag.evaluation_requests_total", "cpu", "cpu"]),
        }
    )
    leaks = Leaks([])
    leaks.count(batch)
    assert leaks.counts == {"flag_metrics": 1, "flag_service": 1}
    assert leaks.redacted(batch).column("MetricName").to_pylist() == ["cpu"]


@given(st.lists(attributes, max_size=6), st.integers(0, 3))
def test_keys_are_kept_through_slices(found: list, skipped: int) -> None:
    column = pa.array(found, MAP).slice(min(skipped, len(found)))

    def short(names: pa.Array) -> pa.Array:
        return pa.array([len(name) < 8 for name in names.to_pylist()], pa.bool_())

    kept = nested.keep_keys(column, short)
    assert kept.to_pylist() == [[(k, v) for k, v in row if len(k) < 8] for row in column.to_pylist()]


def test_a_secret_shift_is_noted_without_its_distance() -> None:
    from pytest_otel_diag.cli.commands.record import shift_of  # noqa: PLC0415 - how the command parses its options

    assert shift_of(None, True) == Shift(ANONYMOUS_NS, secret=True)
    assert shift_of("1970-01-02", False) == Shift(86_400 * NANOS_PER_SECOND)
    assert shift_of(None, False) is None
    with pytest.raises(ConfigurationError, match="not both"):
        shift_of("1970-01-02", True)
