"""Merging the windows that a session may see."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.telemetry.views import merged

WINDOWS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 8)).map(lambda w: Window(start_ns=w[0], end_ns=w[0] + w[1])),
    max_size=8,
)


def instants(windows):
    return {instant for window in windows for instant in range(window.start_ns, window.end_ns)}


@given(WINDOWS)
def test_the_same_instants_in_separate_windows_in_order(windows):
    found = merged(windows)
    assert instants(found) == instants(windows)
    assert all(one.end_ns < two.start_ns for one, two in itertools.pairwise(found))
    assert all(not window.empty for window in found)
