from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from pytest_otel_diag.receiver.rows import values


def any_value(value: object) -> AnyValue:
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=map(any_value, value)))
    if isinstance(value, dict):
        entries = [KeyValue(key=key, value=any_value(item)) for key, item in value.items()]
        return AnyValue(kvlist_value=KeyValueList(values=entries))
    fields = {
        bool: "bool_value",
        int: "int_value",
        float: "double_value",
        bytes: "bytes_value",
        str: "string_value",
    }
    return AnyValue() if value is None else AnyValue(**{fields[type(value)]: value})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("GET", "GET"),
        ("", ""),
        (None, ""),
        (True, "true"),
        (False, "false"),
        (-(2**63), "-9223372036854775808"),
        (0, "0"),
        (200.0, "200"),
        (0.25, "0.25"),
        (-0.0, "-0"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.5e-10, "1.5e-10"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (math.inf, "json: unsupported value: +Inf"),
        (-math.inf, "json: unsupported value: -Inf"),
        (math.nan, "json: unsupported value: NaN"),
        (b"\x00\xff", "AP8="),
        (["a", 1, 2.5, True, None, b"x"], '["a",1,2.5,true,null,"eA=="]'),
        ([], "[]"),
        ({}, "{}"),
        ({"b": [1, {"c": "d"}], "a": {}}, '{"a":{},"b":[1,{"c":"d"}]}'),
        (["<a & b>", "ü", 'say "no"\n'], '["\\u003ca \\u0026 b\\u003e","ü","say \\"no\\"\\n"]'),
        ([1.0, math.nan], ""),
        ({"deep": [math.inf]}, ""),
    ],
)
def test_values_are_written_as_the_collector_writes_them(value: object, text: str) -> None:
    assert values.text(any_value(value)) == text


def test_the_last_of_equal_keys_counts_inside_a_map() -> None:
    twice = KeyValueList(values=[KeyValue(key="a", value=any_value(n)) for n in (1, 2)])
    assert values.text(AnyValue(kvlist_value=twice)) == '{"a":2}'


EXACT = 2**53  # larger integers in JSON may be floats that were written without a point
plain = (
    st.none() | st.booleans() | st.integers(-EXACT, EXACT) | st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
nested = st.recursive(
    plain | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(nested, max_size=3) | st.dictionaries(texts, nested, max_size=3))
def test_arrays_and_maps_are_the_same_value_as_json(value: object) -> None:
    def number(digits: str) -> float:
        return int(digits) if abs(int(digits)) <= EXACT else float(digits)

    assert json.loads(values.text(any_value(value)), parse_int=number) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_back_exactly(value: float) -> None:
    assert float(values.number(value)) == value
    assert math.copysign(1, float(values.number(value))) == math.copysign(1, value)
