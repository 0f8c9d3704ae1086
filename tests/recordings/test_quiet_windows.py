"""Quiet windows, controls and reference windows never overlap a fault, for any timeline."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.recordings.format.manifest import QuietPolicy
from pytest_otel_diag.recordings.quiet_windows import coverage, cut_controls, quiet_windows, reference_windows
from tests.recordings.recording_samples import SECOND, T0, incident, manifest

POLICY = QuietPolicy()


def window(start_s, end_s):
    return Window(start_ns=T0 + start_s * SECOND, end_ns=T0 + end_s * SECOND)


stretches = st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 600)), max_size=8)
faults = st.lists(
    st.tuples(st.integers(0, 4500), st.sampled_from([0, 10, 60]), st.one_of(st.none(), st.integers(0, 300))),
    max_size=6,
)


def made(stretches, faults):
    seconds = [T0 // SECOND + start + i for start, length in stretches for i in range(length)]
    incidents = [
        incident(
            str(index),
            start,
            guard_s=guard,
            end_ns=None if lasts is None else T0 + (start + lasts) * SECOND,
        )
        for index, (start, guard, lasts) in enumerate(faults)
    ]
    return coverage(seconds, POLICY.gap_s), incidents


def test_coverage_bridges_short_gaps_only():
    assert coverage([0, 1, 21, 42], 20) == (
        Window(start_ns=0, end_ns=22 * SECOND),
        Window(start_ns=42 * SECOND, end_ns=43 * SECOND),
    )
    assert coverage([], 20) == ()


def test_a_fault_of_unknown_end_disturbs_for_the_time_of_the_policy():
    first = incident(start_s=100, guard_s=60, telemetry_to_ns=T0 + 220 * SECOND)
    assert first.disturbed(POLICY) == window(40, 340)
    unsure = incident(start_s=100, guard_s=10, label_uncertainty_s=60)
    assert unsure.disturbed(POLICY).start_ns == T0 + 90 * SECOND
    assert unsure.disturbed(POLICY, strict=True).start_ns == T0 + 40 * SECOND
    assert unsure.disturbed(POLICY, strict=True).end_ns == unsure.disturbed(POLICY).end_ns
    known = incident(start_s=100, guard_s=10, end_ns=T0 + 130 * SECOND, telemetry_to_ns=T0 + 190 * SECOND)
    assert known.disturbed(POLICY) == window(90, 250)


@settings(max_examples=150, deadline=None)
@given(stretches, faults)
def test_quiet_windows_are_covered_long_enough_and_undisturbed(stretches, faults):
    covered, incidents = made(stretches, faults)
    quiet = quiet_windows(covered, incidents, POLICY)
    assert list(quiet) == sorted(quiet, key=lambda w: w.start_ns)
    for piece in quiet:
        assert piece.duration_s >= POLICY.min_quiet_s
        assert any(w.start_ns <= piece.start_ns and piece.end_ns <= w.end_ns for w in covered)
        assert not any(item.disturbed(POLICY).overlaps(piece) for item in incidents)


@settings(max_examples=150, deadline=None)
@given(stretches, faults, st.integers(0, 40))
def test_controls_are_disjoint_quiet_and_as_many_as_wanted_if_they_fit(stretches, faults, wanted):
    covered, incidents = made(stretches, faults)
    quiet = quiet_windows(covered, incidents, POLICY)
    controls = cut_controls(quiet, wanted, system="Shop", policy=POLICY)
    assert controls == cut_controls(quiet, wanted, system="Shop", policy=POLICY)
    windows = [control.window for control in controls]
    assert len({control.id for control in controls}) == len(controls)
    assert len({w.duration_s for w in windows}) <= 1
    for first, second in pairwise(windows):
        assert first.end_ns <= second.start_ns
    for control in windows:
        assert POLICY.control_min_s <= control.duration_s <= POLICY.control_max_s
        assert any(w.start_ns <= control.start_ns and control.end_ns <= w.end_ns for w in quiet)
    room = sum(int(piece.duration_s // POLICY.control_min_s) for piece in quiet)
    assert len(windows) >= min(wanted, room)


@pytest.mark.parametrize(
    ("wanted", "count", "length"), [(0, 0, 0), (3, 3, 60), (10, 10, 60), (11, 11, 54), (99, 40, 15)]
)
def test_controls_are_as_long_as_the_wanted_number_allows(wanted, count, length):
    controls = cut_controls([window(0, 600)], wanted, system="Shop", policy=POLICY)
    assert len(controls) == count
    assert {control.window.duration_s for control in controls} == ({length} if count else set())


def test_few_controls_are_spread_over_the_recording_and_named_by_time():
    controls = cut_controls([window(0, 600)], 2, system="Shop", policy=POLICY)
    assert [control.window for control in controls] == [window(0, 60), window(300, 360)]
    assert [control.id for control in controls] == [
        "control-shop-20231114T221320",
        "control-shop-20231114T221820",
    ]


@settings(max_examples=150, deadline=None)
@given(stretches, faults, st.integers(0, 4000), st.integers(0, 300), st.booleans())
def test_reference_windows_keep_their_distance_from_the_session_and_all_faults(
    stretches, faults, start, length, past
):
    covered, incidents = made(stretches, faults)
    quiet = quiet_windows(covered, incidents, POLICY)
    session = window(start, start + length)
    near = window(start - 60, start + length + 60)
    found = reference_windows(manifest(quiet=quiet), session, past_only=past)
    for piece in found:
        assert not piece.overlaps(near)
        assert not any(item.disturbed(POLICY).overlaps(piece) for item in incidents)
        assert piece.end_ns <= session.start_ns or not past
    if not past:
        kept = sum(piece.duration_s for piece in found)
        lost = sum(
            max(0, min(q.end_ns, near.end_ns) - max(q.start_ns, near.start_ns)) / SECOND for q in quiet
        )
        short = 2 * POLICY.min_quiet_s
        assert kept >= sum(piece.duration_s for piece in quiet) - lost - short


def test_another_day_is_used_only_if_the_same_day_has_too_little():
    today, tomorrow = window(0, 300), window(90_000, 90_300)
    session = window(1000, 1100)
    assert reference_windows(manifest(quiet=(today, tomorrow)), session) == (today,)
    little = window(0, 100)
    assert reference_windows(manifest(quiet=(little, tomorrow)), session) == (little, tomorrow)
    anywhere = manifest(quiet=(today, tomorrow), policy=QuietPolicy(reference_span_s=None))
    assert reference_windows(anywhere, session) == (today, tomorrow)


@given(st.integers(11, 100))
def test_windows_touching_a_fault_are_not_disturbed_by_it(length):
    item = incident(start_s=500)
    before = window(500 - length, 500)
    after = Window(
        start_ns=item.disturbed(POLICY).end_ns, end_ns=item.disturbed(POLICY).end_ns + length * SECOND
    )
    assert quiet_windows((before, after), [item], POLICY) == (before, after)
