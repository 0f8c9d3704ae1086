"""What an analyzer has read: texts of answers, in bounded memory."""

from pytest_otel_diag.model.telemetry import CallEdge, Table
from pytest_otel_diag.sessions.investigation import sightings
from pytest_otel_diag.sessions.investigation.sightings import Sightings

TRACE = "5b8aa5a2d2c872e8321cf37308d69df2"


def table(*columns: list[object]) -> Table:
    return Table(tuple(map(str, range(len(columns)))), tuple(columns))


def test_texts_of_answers_are_seen_wherever_they_stand_in_a_row():
    seen = Sightings()
    nested = {"host": "node-a", "ids": [TRACE.upper()]}
    seen.add("SELECT", None, table([1, 2], [None, "payment"], [b"cart", b""], [[("a", nested)], []]))
    assert all(map(seen.saw, ("payment", "PAYMENT", "cart", "node-a", TRACE, "host")))
    assert not seen.saw("checkout")


def test_ids_in_longer_texts_are_seen():
    seen = Sightings()
    seen.add(
        "SELECT", None, table([f"trace_id={TRACE} span=00f067aa0ba902b7", "x" * 40_000 + " " + "a" * 32])
    )
    assert seen.saw(TRACE)
    assert seen.saw("00f067aa0ba902b7")
    assert not seen.saw("a" * 32)


def test_names_of_typed_answers_are_seen():
    seen = Sightings()
    edge = CallEdge(caller="checkout", callee="payment", calls=1, errors=0, p50_ms=1, p99_ms=1)
    seen.add("call_edges", None, [edge])
    assert seen.saw("checkout")
    assert seen.saw("payment")


def test_whoever_filters_by_a_name_has_read_it_if_a_row_came_back():
    seen = Sightings()
    seen.add(f"SELECT count() FROM otel_traces WHERE TraceId = '{TRACE}'", {"s": ["payment"]}, table([3]))
    seen.add("SELECT 1 FROM otel_traces WHERE ServiceName = 'cart'", None, table([]))
    seen.add("SELECT 1 FROM otel_traces WHERE ServiceName = 'email'", None, None)
    assert seen.saw(TRACE)
    assert seen.saw("payment")
    assert not seen.saw("cart")
    assert not seen.saw("email")


def test_each_query_knows_which_names_it_read():
    seen = Sightings()
    for names in (["payment", "cart"], [], ["Cart"]):
        seen.add("SELECT", None, table(names))
    assert seen.queries_that_saw("cart") == {0, 2}
    assert seen.queries_that_saw("payment") == {0}


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(sightings, "MOST", 100)
    seen = Sightings()
    seen.add("SELECT", None, table([f"name {number}" for number in range(90)]))
    assert seen.complete
    seen.add("SELECT", None, table([f"other {number}" for number in range(90)]))
    assert not seen.complete
    assert sum(seen.saw(f"other {number}") for number in range(90)) == 10


def test_statements_with_open_quotes_are_read_in_linear_time():
    seen = Sightings()
    seen.add("'" + "\\'" * 500_000, None, table([1]))
    assert seen.complete
