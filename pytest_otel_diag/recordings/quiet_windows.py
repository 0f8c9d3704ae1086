"""Derives quiet windows from the fault timeline, and controls and reference windows from these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window, iso, seconds_to_ns
from pytest_otel_diag.recordings.format.manifest import (
    ControlWindow,
    Incident,
    QuietPolicy,
    RecordingManifest,
)

MIN_REFERENCE_S = 120.0
"""Minimal length of nearby reference windows; below it, windows at any distance are used."""


def coverage(seconds: Iterable[int], gap_s: float) -> tuple[Window, ...]:
    """Return the windows with telemetry, given the whole UTC seconds with telemetry.

    Seconds that are less than *gap_s* apart belong to the same window.
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
    """Return the covered windows that no incident disturbs, without those under ``min_quiet_s``.

    *strict* also excludes the uncertainty of the incidents' labels; controls are cut from these windows.
    """
    disturbed = tuple(incident.disturbed(policy, strict=strict) for incident in incidents)
    pieces = [piece for window in covered for piece in window.minus(disturbed)]
    return tuple(piece for piece in pieces if piece.duration_s >= policy.min_quiet_s)


def without_telemetry(covered: Sequence[Window], incidents: Iterable[Incident]) -> tuple[str, ...]:
    """Return a sentence for each incident that has no telemetry after its start, in the *covered* windows."""
    return tuple(
        f"incident {incident.id!r} has no telemetry from its start at {iso(incident.start_ns)} to "
        f"{iso(incident.telemetry_to_ns)}, so its session is invalid; is its label in another time zone?"
        for incident in incidents
        if not any(window.overlaps(after) for window in covered for after in (_after_start(incident),))
    )


def _after_start(incident: Incident) -> Window:
    return Window(start_ns=incident.start_ns, end_ns=incident.telemetry_to_ns)


def cut_controls(
    quiet: Sequence[Window], wanted: int, *, system: str, policy: QuietPolicy
) -> tuple[ControlWindow, ...]:
    """Cut quiet windows into disjoint controls of equal length, at least *wanted* if they fit.

    The length is the largest number of whole seconds from ``control_min_s`` to ``control_max_s`` that gives
    *wanted* controls; if none does, it is ``control_min_s``, with fewer controls. If the largest gives more,
    *wanted* of them are selected at even distances. Windows are cut backwards from their end, so that the
    rest at the start serves as a baseline.
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


def reference_windows(
    manifest: RecordingManifest, session: Window, *, past_only: bool = False
) -> tuple[Window, ...]:
    """Return the reference windows of a session in order of time.

    Quiet time that overlaps the session or lies closer than the policy's settling time is cut out. Windows
    further away than ``reference_span_s`` (another day has other releases and loads) are left out if the
    closer ones have at least MIN_REFERENCE_S. *past_only* leaves out windows after the session.
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
