"""Comparison of documents by meaning."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.flags.comparison import canonical, differing, same_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_formatting_does_not_matter(value: Any) -> None:
    document = {"flags": {"a": value}, "$schema": "one"}
    rewritten = {"$schema": "two", "flags": {"a": value}}
    assert same_json(json.dumps(document).encode(), json.dumps(rewritten, indent=4, sort_keys=True).encode())
    assert same_json(json.dumps(document["flags"]).encode(), canonical(document["flags"]).encode())


@given(VALUES, VALUES)
def test_what_differs_differs(one: Any, other: Any) -> None:
    same = same_json(json.dumps({"flags": one}).encode(), json.dumps({"flags": other}).encode())
    assert same == (canonical(one) == canonical(other))
    if same:
        assert one == other


def test_numbers_are_compared_by_value_and_never_with_booleans() -> None:
    assert same_json(b'{"a": 1}', b'{"a": 1.0}')
    assert not same_json(b'{"a": 1}', b'{"a": true}')
    assert not same_json(b'{"a": [1, 2]}', b'{"a": [2, 1]}')
    assert same_json(b"no json", b"no json")
    assert not same_json(b"no json", b"{}")


def test_differences_are_listed_by_flag() -> None:
    one = b'{"flags": {"a": 1, "b": 2, "c": true}}'
    assert differing(one, b'{"flags": {"a": 1.0, "b": 3, "d": 4, "c": 1}}') == "different: b, c, d"
    many = json.dumps({"flags": {f"f{n}": n for n in range(9)}}).encode()
    assert differing(many, b'{"flags": {}}') == "different: f0, f1, f2, f3, f4 and 4 more"
    assert differing(one, one) == "the flags are the same, another part of the document differs"
    assert differing(one, b"half") == f"{len(one)} bytes against 4"
