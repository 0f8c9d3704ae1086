"""Results never exceed the caps, keep a prefix, and are JSON, whatever the engine returns."""

from __future__ import annotations

import datetime
import decimal
import ipaddress
import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.model.telemetry import Table
from pytest_otel_diag.tools import Caps
from pytest_otel_diag.tools.cells import LEAST, json_value, shortened, text_size
from pytest_otel_diag.tools.rows import fitted, listed

TEXTS = st.text(st.characters(), max_size=60) | st.sampled_from(
    ["\x00" * 50, "\ud800", "\udfff x", '"' * 60, "\\" * 60, "\U0001f600" * 40, "x" * 5_000, "\n\t\r" * 500]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, 2**64, -(2**255), 2**600, 1_700_000_000_000_000_000])
    | st.floats()
    | TEXTS
    | st.binary(max_size=40)
    | st.datetimes()
    | st.dates()
    | st.decimals()
    | st.uuids()
    | st.ip_addresses()
)
CELLS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(TEXTS | st.integers(), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)
CAPS = st.builds(
    Caps,
    rows=st.integers(1, 30),
    characters=st.integers(4_000, 8_000),
    cell_characters=st.integers(LEAST, 3_000),
)


@st.composite
def tables(draw) -> Table:
    width, length = draw(st.integers(0, 6)), draw(st.integers(0, 12))
    names = tuple(draw(TEXTS) for _ in range(width))
    return Table(names, tuple([draw(CELLS) for _ in range(length)] for _ in range(width)))


@settings(max_examples=40, deadline=None)
@given(tables(), CAPS)
def test_any_table_fits_and_is_json(table, caps):
    found = fitted(table, caps)
    text = found.model_dump_json()
    assert len(text) <= caps.characters
    json.loads(text, parse_constant=pytest.fail)
    assert len(found.rows) <= caps.rows
    assert len(found.rows) + found.rows_left_out == len(table)
    assert len(found.columns) + found.columns_left_out == len(table.names)
    assert found.truncated == bool(found.rows_left_out or found.columns_left_out)
    assert found.rows or not len(table), "one row always fits"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers() | TEXTS, max_size=40), CAPS)
def test_what_is_kept_is_a_prefix(cells, caps):
    found = fitted(Table(("a",), (cells,)), caps)
    kept = len(found.rows)
    wider = fitted(Table(("a",), (cells[:kept],)), caps)
    assert wider.rows == found.rows
    assert not wider.truncated


@settings(max_examples=60, deadline=None)
@given(CELLS, st.integers(LEAST, 500))
def test_a_value_has_at_most_its_characters(cell, characters):
    assert len(json.dumps(json_value(cell, characters), ensure_ascii=False)) <= characters


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(LEAST, 500))
def test_a_shortened_text_is_a_beginning_with_the_number_left_out(text, characters):
    found = shortened(text, characters)
    assert text_size(found) <= characters
    if "…(+" in found and found != text:
        kept, _, rest = found.rpartition("…(+")
        readable = text.encode("utf-8", "replace").decode()
        assert readable.startswith(kept)
        assert len(kept) + int(rest.rstrip(")")) == len(text)


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (2**64, "18446744073709551616"),
        (2**64 - 1, 2**64 - 1),
        (True, True),
        (2**600, "0x1" + "0" * 150),
        (b"text", "text"),
        (b"\xff\x00", "0xff00"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (decimal.Decimal("1.50"), "1.50"),
        (ipaddress.ip_address("::1"), "::1"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({"a": (1, {2})}, {"a": [1, [2]]}),
        ("\ud800", "?"),
    ],
)
def test_values_of_the_engine_as_json(cell, shown):
    assert json_value(cell, 20_000) == shown


def test_what_is_nested_too_deep_becomes_text():
    deep: object = 1
    for _ in range(5_000):
        deep = [deep]
    assert "nested deeper" in json.dumps(json_value(deep, 1_000))


def test_a_value_that_cannot_be_shown_is_named():
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert json_value(Broken(), 100) == "a Broken that cannot be shown"


def test_many_columns_leave_some_out():
    names = tuple(f"column_{number}" for number in range(10_000))
    found = fitted(Table(names, tuple([number] for number in range(10_000))), Caps())
    assert found.columns_left_out > 0
    assert len(found.model_dump_json()) <= Caps().characters


def test_tables_of_one_result_share_its_room():
    caps = Caps(characters=4_000)
    rows = [("x" * 100, number) for number in range(100)]
    assert len(listed(("text", "number"), rows, caps, share=0.2).model_dump_json()) <= 800
