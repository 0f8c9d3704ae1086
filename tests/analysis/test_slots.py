"""Cutting windows into slots."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.analyzers.builtin.slots import ONSET_DOUBT_S, PARTS_MAX, SLOTS_MAX, merged, plan
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window

S = NANOS_PER_SECOND


def window(start_s: float, end_s: float) -> Window:
    return Window(start_ns=int(start_s * S), end_ns=int(end_s * S))


INCIDENT = window(1000, 1100)

windows = st.builds(
    lambda start, length: window(start, start + length),
    st.floats(0, 3000, allow_nan=False),
    st.floats(0, 900, allow_nan=False),
)


@given(windows, st.none() | windows, st.lists(windows, max_size=5))
def test_quiet_slots_are_disjoint_and_never_touch_the_incident(
    incident: Window, baseline: Window | None, reference: list[Window]
) -> None:
    slots = plan(incident, baseline, reference)
    assert not any(slot.overlaps(incident) for slot in slots.quiet)
    ordered = sorted(slots.quiet, key=lambda slot: slot.start_ns)
    assert all(a.end_ns <= b.start_ns for a, b in pairwise(ordered))
    assert slots.count == 1 + len(slots.quiet) + len(slots.parts) == len(slots.seconds)
    assert len(slots.quiet) <= 2 * SLOTS_MAX
    assert 1 <= len(slots.parts) <= PARTS_MAX + 1
    assert 0 <= slots.own <= len(slots.quiet)


@given(windows, st.none() | windows, st.lists(windows, max_size=5), st.integers(0, 4000 * S))
def test_bounds_give_each_instant_its_slot(
    incident: Window, baseline: Window | None, reference: list[Window], instant: int
) -> None:
    slots = plan(incident, baseline, reference)
    asked = slots.parameters()
    bounds, numbers = asked["bounds"], asked["slots"]
    assert isinstance(bounds, list)
    assert isinstance(numbers, list)
    assert bounds == sorted(bounds)
    number = numbers[int(np.searchsorted(bounds, instant, side="right")) - 1]
    pieces = (*slots.quiet, *slots.parts)
    expected = [index for index, piece in enumerate(pieces, 1) if instant in piece]
    assert number == (expected[0] if expected else -1)
    assert asked["parts_from"] == slots.first_part


def test_slots_are_as_long_as_the_incident_where_there_is_time() -> None:
    slots = plan(INCIDENT, None, [window(0, 900), window(2000, 6000)])
    assert {slot.duration_s for slot in slots.quiet} == {100.0}
    assert slots.parts == (INCIDENT,)


def test_slots_are_shorter_where_time_is_short() -> None:
    slots = plan(INCIDENT, window(760, 1000), ())
    assert {round(slot.duration_s) for slot in slots.quiet} == {10}
    assert len(slots.quiet) == 24
    assert slots.own == 24
    assert len(slots.parts) == 10


def test_the_onset_is_doubted_only_with_a_reference() -> None:
    alone = plan(INCIDENT, window(800, 1000), ())
    assert max(slot.end_ns for slot in alone.quiet) == INCIDENT.start_ns
    beside = plan(INCIDENT, window(800, 1000), [window(0, 600)])
    assert max(slot.end_ns for slot in beside.quiet) == INCIDENT.start_ns - ONSET_DOUBT_S * S


def test_a_long_reference_is_sampled_evenly() -> None:
    slots = plan(window(0, 10), None, [window(1000, 100_000)])
    assert len(slots.quiet) == SLOTS_MAX
    assert slots.quiet[-1].start_ns > 90_000 * S


def test_merged_windows_hold_the_same_instants() -> None:
    assert merged([window(5, 9), window(0, 5), window(20, 30), window(22, 23), window(40, 40)]) == [
        window(0, 9),
        window(20, 30),
    ]
