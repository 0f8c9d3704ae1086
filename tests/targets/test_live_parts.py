"""Parts of the target live by themselves: its clock, its reference, its receiver."""

import itertools
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from pytest_otel_diag.errors import NotReady, QueryRejected
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.targets.live import clock as live_clock
from pytest_otel_diag.targets.live.clock import LiveClock, Offset, measured
from pytest_otel_diag.targets.live.options import LiveOptions
from pytest_otel_diag.targets.live.preflight import Condition, lacking, ready
from pytest_otel_diag.targets.live.reference import LEAST_S, Reference
from pytest_otel_diag.targets.live.store import Opened, ReceiverSource, telemetry_source
from pytest_otel_diag.telemetry.leaks import Hidden

SECOND = 1_000_000_000


def test_the_clock_is_wall_time_plus_an_offset() -> None:
    assert LiveClock(5, wall=lambda: 100).now() == 105
    before = time.time_ns()
    assert before <= LiveClock().now() <= time.time_ns()


@settings(deadline=None)
@given(ahead_s=st.floats(-1e5, 1e5), delays=st.lists(st.integers(0, SECOND), min_size=10, max_size=10))
def test_an_offset_is_right_within_its_error(ahead_s: float, delays: list[int]) -> None:
    """However long requests and answers take."""
    now, waits = [10**18], iter(delays * 2)
    ahead_ns = round(ahead_s * SECOND)

    def other() -> int:
        now[0] += next(waits)
        messages = now[0] + ahead_ns
        now[0] += next(waits)
        return messages

    found = measured(other, wall=lambda: now[0])
    assert abs(found.offset_ns - ahead_ns) <= found.error_ns + 1
    quickest = min(there + back for there, back in zip(delays[::2], delays[1::2], strict=True))
    assert found.error_ns <= quickest


@pytest.mark.parametrize(
    ("offset_s", "error_s", "matters"), [(0.5, 0, False), (-3, 0.1, True), (3, 2.5, False), (3, 1.5, True)]
)
def test_small_and_doubtful_offsets_do_not_matter(offset_s: float, error_s: float, matters: bool) -> None:
    offset = Offset(seconds_to_ns(offset_s), seconds_to_ns(error_s))
    assert offset.matters is matters
    assert live_clock.TOLERATED_S == 1.0
    assert str(offset) == f"{offset_s:+.3f} s (± {error_s:.3f} s)"


def condition(**ages_s: float) -> Condition:
    now = 10**18
    newest = {signal: now - seconds_to_ns(age_s) for signal, age_s in ages_s.items()}
    return Condition(now, newest, {"frontend": 10}, over_s=30.0)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (condition(traces=5), ""),
        (condition(traces=5, metrics=70), ""),
        (condition(), "no telemetry of the last hour"),
        (condition(logs=5), "gets logs but no traces"),
        (condition(traces=31), "is 31 s old"),
        (condition(traces=-3), "3.0 s in the future"),
        (Condition(10**18, {"traces": 10**18 - SECOND}), "NO_TRAFFIC"),
    ],
)
def test_what_keeps_a_session_out(found: Condition, problem: str) -> None:
    messages = lacking(found, LiveOptions(), frontend="frontend", source="the store")
    assert problem in messages
    assert bool(messages) == bool(problem)


def test_load_is_the_frontends_or_everybodys() -> None:
    assert condition(traces=1).per_minute("frontend") == 20.0
    assert condition(traces=1).per_minute("unknown") == 20.0
    assert Condition(0, {}, {}, over_s=0.0).per_minute("frontend") == 0.0


@settings(deadline=None)
@given(
    seconds=st.floats(LEAST_S, 3600),
    gaps=st.lists(st.tuples(st.floats(1, 100), st.floats(0, 1000)), min_size=1, max_size=12),
)
def test_a_reference_is_quiet_in_order_and_no_longer_than_asked(
    seconds: float, gaps: list[tuple[float, float]]
) -> None:
    reference, at_ns, seen = Reference(seconds), 10**18, []
    for gap_s, length_s in gaps:
        start_ns = at_ns + seconds_to_ns(gap_s)
        at_ns = start_ns + seconds_to_ns(length_s)
        reference.add(start_ns, at_ns)
        seen.append(Window(start_ns=start_ns, end_ns=at_ns))
    chosen = reference._newest()
    assert sum(window.duration_s for window in chosen) <= seconds + 1e-6
    assert all(one.end_ns <= other.start_ns for one, other in itertools.pairwise(chosen))
    assert all(any(w.start_ns >= s.start_ns and w.end_ns <= s.end_ns for s in seen) for w in chosen)
    long = [window for window in seen if window.duration_s > LEAST_S + 1e-6]
    if long:
        assert chosen
        assert chosen[-1].end_ns >= long[-1].end_ns


@pytest.fixture
def source() -> Iterator[ReceiverSource]:
    opened = telemetry_source("", "http=127.0.0.1:0", worker="main")
    assert isinstance(opened, ReceiverSource)
    yield opened
    opened.close()


def send(source: ReceiverSource, *, ago_s: float, name: str = "GET /") -> None:
    """Export one span as a collector would."""
    end_ns = time.time_ns() - seconds_to_ns(ago_s)
    resource = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value="frontend"))])
    span = Span(
        trace_id=end_ns.to_bytes(16, "big"),
        span_id=end_ns.to_bytes(8, "big"),
        name=name,
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=end_ns - 1_000_000,
        end_time_unix_nano=end_ns,
    )
    scoped = ScopeSpans(spans=[span])
    body = ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=resource, scope_spans=[scoped])])
    request = urllib.request.Request(
        f"http://{source.receiving()['http']}/v1/traces",
        data=body.SerializeToString(),
        headers={"content-type": "application/x-protobuf"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    source.flush()


async def test_the_receiver_fills_a_database_of_its_own(source: ReceiverSource) -> None:
    opened = source.open()
    assert source.open() is opened
    assert opened.database.startswith("live_")
    send(source, ago_s=1.0)
    assert source.counts().traces.stored == 1
    clock = LiveClock()
    telemetry = opened.everything()
    found = await ready(telemetry, clock, LiveOptions(wait_s=10), frontend="frontend", source=source.name)
    assert found.requests == {"frontend": 1}
    age_s = found.age_s("traces")
    assert age_s is not None
    assert 0.5 < age_s < 20
    telemetry.close()
    database, store = opened.database, opened.store
    assert database in store.databases()
    source.close()
    assert source.receiving() == {}
    assert source.counts() is None
    source.flush()


async def test_a_session_sees_its_own_time_and_the_reference(source: ReceiverSource) -> None:
    opened = source.open()
    for ago_s, name in ((50.0, "quiet"), (30.0, "hidden"), (2.0, "own")):
        send(source, ago_s=ago_s, name=name)
    now = time.time_ns()
    quiet = Window(start_ns=now - 55 * SECOND, end_ns=now - 45 * SECOND)
    telemetry = opened.session(time.time_ns, now - 10 * SECOND, (quiet,))
    names = (await telemetry.query("SELECT SpanName FROM otel_traces ORDER BY SpanName")).column("SpanName")
    assert list(names) == ["own", "quiet"]
    telemetry.close()


class StoppedClock(LiveClock):
    """A clock that stands still and records sleeps instead of sleeping."""

    def __init__(self, now_ns: int) -> None:
        super().__init__(wall=lambda: now_ns)
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def test_the_reference_waits_for_telemetry_to_reach_back(source: ReceiverSource) -> None:
    opened, clock = source.open(), StoppedClock(time.time_ns())
    send(source, ago_s=6.0)
    telemetry, messages = opened.everything(), []
    (window,) = await Reference(9.0).windows(telemetry, clock, messages.append)
    assert clock.slept[0] > 0.99
    assert messages[0].startswith("waiting")
    assert window.duration_s == pytest.approx(9.0)
    assert await Reference(0.0).windows(telemetry, clock, messages.append) == ()
    assert len(messages) == 1
    telemetry.close()


async def test_waiting_is_reported_and_ends(source: ReceiverSource) -> None:
    opened, messages = source.open(), []
    telemetry = opened.everything()
    with pytest.raises(NotReady, match=r"waited 0\.2 s"):
        await ready(
            telemetry,
            LiveClock(),
            LiveOptions(wait_s=0.2),
            frontend="frontend",
            source="here",
            notify=messages.append,
        )
    assert messages[0].startswith("waiting: no telemetry") and messages[0].endswith("(for at most 0.2 s)")
    telemetry.close()


def test_what_a_killed_process_left_is_dropped(tmp_path: Path) -> None:
    """In a separate process, since a process has one engine path, and this one uses memory."""
    script = (
        "import sys\n"
        "from pytest_otel_diag.telemetry import Store\n"
        "from pytest_otel_diag.targets.live.store import telemetry_source\n"
        f"dsn = 'chdb://{tmp_path}/store'\n"
        "with Store.open(dsn) as store:\n"
        "    store.create_database('live_old'); store.create_database('mine')\n"
        "    source = telemetry_source(dsn, 'http=127.0.0.1:0', worker='main')\n"
        "    opened = source.open()\n"
        "    assert set(store.databases()) == {'mine', opened.database}, store.databases()\n"
        "    source.close()\n"
        "    assert store.databases() == ('mine',)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_session_is_described_with_where_traces_are(source: ReceiverSource) -> None:
    opened = source.open()
    assert isinstance(opened, Opened)
    assert set(opened.describe()) == {"store", "database", "engine"}


class ReadOnlyStore:
    """A store whose user may not create views."""

    dsn = "clickhouse://reader@host/otel"

    def telemetry(self, database: str, **seen: object) -> str:
        if seen:
            raise QueryRejected("not enough privileges")
        return database


def test_a_user_without_views_sees_everything_but_is_refused_where_flags_are_to_be_hidden() -> None:
    opened = Opened(ReadOnlyStore(), "otel", ())  # type: ignore[arg-type]
    assert opened.session(lambda: 0, 0, hidden=Hidden(trace_id="1")) == "otel"
    assert not opened.isolated
    with pytest.raises(QueryRejected, match=r"may not create views, which --otel-diag-leaks=redact needs"):
        opened.session(lambda: 0, 0, hidden=Hidden(flags=("adFailure",)))
