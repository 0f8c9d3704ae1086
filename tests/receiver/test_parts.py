"""Addresses, limits, compression and the queue, each alone."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.receiver import Limits, Listen, Receiver, packages, parse_listen
from pytest_otel_diag.receiver.addresses import split_address
from pytest_otel_diag.receiver.backlog import Backlog, Delivery
from pytest_otel_diag.receiver.compression import MAX_MEMBERS, BadEncoding, TooLarge, decompress
from pytest_otel_diag.receiver.counts import Tally
from pytest_otel_diag.telemetry import Store


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("", Listen("127.0.0.1:4318", "127.0.0.1:4317")),
        ("off", None),
        (" OFF ", None),
        ("http=off,grpc=off", None),
        ("http=0.0.0.0:4318", Listen("0.0.0.0:4318", None)),
        ("http=0.0.0.0:1, grpc=[::1]:2", Listen("0.0.0.0:1", "[::1]:2")),
        ("grpc=localhost:0,http=off", Listen(None, "localhost:0")),
    ],
)
def test_addresses_are_parsed(text: str, listen: Listen | None) -> None:
    assert parse_listen(text) == listen


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("http", "cannot read 'http'"),
        ("htp=1.2.3.4:5", "did you mean 'http'"),
        ("http=:4318", "cannot listen on ':4318'"),
        ("http=127.0.0.1", "use HOST:PORT"),
        ("http=127.0.0.1:70000", "cannot listen on"),
        ("http=http://127.0.0.1:4318", "cannot listen on"),
        ("http=1.1.1.1:1,http=1.1.1.1:2", "names http twice"),
    ],
)
def test_bad_addresses_are_refused_with_the_expected_form(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match="HOST:PORT") as refused:
        parse_listen(text)
    assert complaint in str(refused.value)


def test_addresses_are_formatted_as_they_are_parsed() -> None:
    for text in ("http=127.0.0.1:1,grpc=[::1]:2", "grpc=h:3", "off"):
        assert str(parse_listen(text) or Listen(None, None)) == text
    assert split_address("[::1]:80") == ("::1", 80)


def test_limits_that_would_refuse_every_request_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="batch_s of the receiver is 0"):
        Limits(batch_s=0)
    with pytest.raises(ConfigurationError, match="could never be accepted"):
        Limits(queue_bytes=10)


def test_a_receiver_without_protocols_is_refused(store: Store) -> None:
    with pytest.raises(ConfigurationError, match="both are None"):
        Receiver(store, "none", http=None, grpc=None)


def test_the_error_for_a_missing_package_names_the_extra() -> None:
    with pytest.raises(ConfigurationError, match=r"needs no_such_package.*pytest-otel-diag\[otlp\]"):
        packages.load("no_such_package")


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.integers(0, 600))
def test_gzip_members_are_joined_up_to_the_limit(members: list[bytes], limit: int) -> None:
    body = b"".join(map(gzip.compress, members))
    plain = b"".join(members)
    if len(plain) <= limit:
        assert decompress(body, "gzip", limit) == plain
    else:
        with pytest.raises(TooLarge):
            decompress(body, "gzip", limit)


@given(st.binary(max_size=300), st.data())
def test_truncated_bodies_and_trailing_bytes_are_errors(plain: bytes, data: st.DataObject) -> None:
    for encoding, body in (("gzip", gzip.compress(plain)), ("deflate", zlib.compress(plain))):
        assert decompress(body, encoding, 300) == plain
        cut = data.draw(st.integers(0, len(body) - 1))
        with pytest.raises(BadEncoding):
            decompress(body[:cut], encoding, 300)
        with pytest.raises(BadEncoding):
            decompress(body + b"\0more", encoding, 300)


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def delivery(records: int, size: int = 1, weight: int = 0) -> Delivery:
    return Delivery("traces", b"x" * size, records, weight)


steps = st.lists(
    st.tuples(st.just("put"), st.integers(1, 12), st.integers(1, 40)) | st.just(("take", 0, 0)), max_size=30
)


@given(steps)
def test_the_queue_keeps_its_bounds_and_loses_nothing(steps: list[tuple[str, int, int]]) -> None:
    limits = Limits(
        request_bytes=40, queue_bytes=80, arriving_bytes=80, queue_records=25, batch_rows=1, insert_rows=10,
        expanded_bytes=30,
    )  # fmt: skip
    backlog = Backlog(limits, ManualClock())
    taken: list[Delivery] = []
    held: list[Delivery] = []
    given_out: list[Delivery] = []
    for kind, records, size in steps:
        if kind == "put":
            one = delivery(records, size, weight=size)
            had_room = (
                sum(len(d.body) for d in held) + size <= 80 and sum(d.records for d in held) + records <= 25
            )
            assert backlog.put(one) == (had_room or not held)
            if had_room or not held:
                taken.append(one)
                held.append(one)
        elif held:
            batch = backlog.take()
            assert len(batch) == 1 or sum(d.records for d in batch) <= 10
            assert len(batch) == 1 or sum(d.weight for d in batch) <= 30
            given_out.extend(batch)
            del held[: len(batch)]
            backlog.done(batch)
    backlog.close()
    while batch := backlog.take():
        given_out.extend(batch)
    assert given_out == taken
    assert not backlog.put(delivery(1))


def test_a_batch_is_due_by_rows_by_time_by_a_flush_or_by_the_end() -> None:
    clock = ManualClock()
    backlog = Backlog(Limits(batch_rows=10, batch_s=1.0), clock)
    for due in (
        lambda: backlog.put(delivery(10)),
        lambda: setattr(clock, "now_s", clock.now_s + 1.5),
        lambda: backlog.flush(timeout_s=0.0),
        backlog.close,
    ):
        assert backlog.put(delivery(1))
        assert not backlog._due()
        due()
        assert backlog._due()
        backlog.done(backlog.take())
    assert backlog.take() == ()


def test_a_flush_waits_for_what_was_queued_before_it() -> None:
    backlog = Backlog(Limits(), ManualClock())
    assert backlog.flush(timeout_s=0.0)
    backlog.put(delivery(1))
    assert not backlog.flush(timeout_s=0.01)
    backlog.done(backlog.take())
    assert backlog.flush(timeout_s=0.0)


def test_abandoned_deliveries_are_returned_and_release_their_space() -> None:
    backlog = Backlog(Limits(queue_records=5), ManualClock())
    one = delivery(5)
    assert backlog.put(one)
    assert not backlog.put(one)
    assert list(backlog.abandon()) == [one]
    assert backlog.put(one)


def test_counts_are_formatted_per_signal() -> None:
    tally = Tally()
    assert tally.snapshot().lines() == []
    tally.received("traces", 1_000)
    tally.stored("traces", 900)
    tally.rejected("traces", 60, "queue full")
    tally.dropped("traces", 10, "refused")
    tally.refused("logs", "malformed")
    tally.refused(None, "unknown path", 2)
    counts = tally.snapshot()
    assert counts.lines() == [
        "traces: 1,000 received, 900 stored, 30 waiting, rejected 60 (queue full), dropped 10 (refused)",
        "logs: 0 received, 0 stored, requests refused 1 (malformed)",
        "other requests refused: 2 (unknown path)",
    ]
    assert (counts.lost, counts.traces.waiting, counts.of("logs").refused) == (10, 30, {"malformed": 1})


def test_the_number_of_gzip_members_is_bounded():
    member = gzip.compress(b"")

    assert decompress(member * MAX_MEMBERS, "gzip", 10) == b""
    with pytest.raises(BadEncoding, match="more than 100 gzip members"):
        decompress(member * 100_000, "gzip", 10)
