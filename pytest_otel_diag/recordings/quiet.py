"""Quiet windows from the fault timeline, controls cut from them, reference baselines. Deterministic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window, iso, seconds_to_ns
from pytest_otel_diag.recordings.format.manifest import ControlWindow, Incident, Manifest, QuietPolicy

MIN_REFERENCE_S = 120.0
"""Reference shorter than this says little about a minute's spread; then distance in time is ignored."""


def coverage(seconds: Iterable[int], gap_s: float) -> tuple[Window, ...]:
    """Return the stretches of time with telemetry, given the whole UTC seconds in which some lies.

    Two seconds belong to one stretch when less than *gap_s* lies between them.
    """
    stretches: list[list[int]] = []
    for second in sorted(set(seconds)):
        if stretches and second - stretches[-1][1] <= gap_s:
            stretches[-1][1] = second
        else:
            stretches.append([second, second])
    return tuple(
        Window(start_ns=first * NANOS_PER_SECOND, end_ns=(last + 1) * NANOS_PER_SECOND)
        for first, last in stretches
    )


def quiet_windows(
    covered: Sequence[Window], incidents: Sequence[Incident], policy: QuietPolicy, *, strict: bool = False
) -> tuple[Window, ...]:
    """Return the covered time that no incident disturbs, without pieces too short to compare with.

    *strict* leaves out what any incident's label may be wrong about; controls are cut from that.
    """
    disturbed = tuple(incident.disturbed(policy, strict=strict) for incident in incidents)
    pieces = [piece for window in covered for piece in window.minus(disturbed)]
    return tuple(piece for piece in pieces if piece.duration_s >= policy.min_quiet_s)


def cut_controls(
    quiet: Sequence[Window], wanted: int, *, system: str, policy: QuietPolicy
) -> tuple[ControlWindow, ...]:
    """Cut quiet windows into disjoint controls of one length, at least *wanted* where there is room.

    The length is the longest whole second between ``control_min_s`` and ``control_max_s`` that still
    gives *wanted* of them; where none does, ``control_min_s``, and there are fewer. Where even the
    longest gives more, *wanted* are taken at even distances. Each window is cut backwards from its
    end, so that what is left over at its start serves as a baseline.
    """
    longest, shortest = int(policy.control_max_s), int(policy.control_min_s)
    cut: list[Window] = []
    for length_s in range(longest, shortest - 1, -1):
        cut = [piece for window in quiet for piece in _slices(window, length_s)]
        if len(cut) >= wanted:
            if length_s == longest:
                cut = [cut[index * len(cut) // wanted] for index in range(wanted)]
            break
    return tuple(
        ControlWindow(id=f"control-{system.lower()}-{_stamp(window.start_ns)}", system=system, window=window)
        for window in cut
    )


def _slices(window: Window, length_s: int) -> list[Window]:
    step = seconds_to_ns(length_s)
    count = (window.end_ns - window.start_ns) // step
    ends = [window.end_ns - step * back for back in reversed(range(count))]
    return [Window(start_ns=end - step, end_ns=end) for end in ends]


def _stamp(instant_ns: Nanos) -> str:
    return iso(instant_ns)[:19].replace("-", "").replace(":", "")


def reference_windows(manifest: Manifest, session: Window, *, past_only: bool = False) -> tuple[Window, ...]:
    """Return the quiet windows to compare a session with, in order of time.

    What overlaps the session is cut out, as is whatever is closer to it than the policy's settling
    time. Windows further away than ``reference_span_s`` (another day: other releases, other load) are
    left out as long as the near ones hold at least MIN_REFERENCE_S. With *past_only* nothing after
    the session counts.
    """
    policy = manifest.policy
    margin = seconds_to_ns(policy.settle_s)
    hole = Window(start_ns=session.start_ns - margin, end_ns=session.end_ns + margin)
    pieces = [piece for window in manifest.quiet for piece in window.minus((hole,))]
    pieces = [piece for piece in pieces if piece.duration_s >= policy.min_quiet_s]
    if past_only:
        pieces = [piece for piece in pieces if piece.end_ns <= session.start_ns]
    if policy.reference_span_s is None:
        return tuple(pieces)
    span = seconds_to_ns(policy.reference_span_s)
    near = [p for p in pieces if p.end_ns > session.start_ns - span and p.start_ns < session.end_ns + span]
    return tuple(near if sum(piece.duration_s for piece in near) >= MIN_REFERENCE_S else pieces)
