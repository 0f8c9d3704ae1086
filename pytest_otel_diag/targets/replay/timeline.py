"""The windows and the timing of replayed sessions."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.scenario import Expectation, Fault, Scenario, Timing
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window, seconds_to_ns
from pytest_otel_diag.recordings.format.manifest import ControlWindow, Incident, RecordingManifest
from pytest_otel_diag.recordings.format.reader import Recording
from pytest_otel_diag.recordings.quiet_windows import reference_windows


@dataclass(frozen=True)
class Replay:
    """One incident or control (``incident`` None) of one recording.

    ``onset_ns`` is the end of the baseline, ``start_ns`` the start of the fault, or of the judged window in a
    control, but not before its telemetry starts, since a gap would look like an outage. ``end_ns`` is the end
    of its telemetry. ``baseline`` and ``compared`` are baseline and reference of a captured session; None if
    the recording's policy defines them.
    """

    id: str
    system: str
    recording: Recording
    incident: Incident | None
    onset_ns: Nanos
    start_ns: Nanos
    end_ns: Nanos
    baseline: Window | None = None
    compared: tuple[Window, ...] | None = None

    def session(self, timing: Timing) -> Window:
        """Return the time of the session: from its baseline to the end of the fault or judged window.

        A session that observes for less than the recorded time ends earlier, never later.
        """
        end_ns = min(self.end_ns, self.start_ns + seconds_to_ns(timing.observe_s))
        return Window(start_ns=self.onset_ns - seconds_to_ns(timing.baseline_s), end_ns=end_ns)

    def visible(self, timing: Timing) -> tuple[Window, ...]:
        """Return the session's windows, without time before the onset that other faults disturb."""
        session = self.session(timing)
        manifest = self.recording.manifest
        before = Window(start_ns=session.start_ns, end_ns=self.start_ns)
        if self.baseline is not None:
            return (before, Window(start_ns=self.start_ns, end_ns=session.end_ns))
        others = tuple(i.disturbed(manifest.policy) for i in manifest.incidents if i is not self.incident)
        return (*before.minus(others), Window(start_ns=self.start_ns, end_ns=session.end_ns))

    def reference(self, timing: Timing, *, past_only: bool = False) -> tuple[Window, ...]:
        """Return the reference windows, which keep a distance from the session unless it was captured."""
        if self.compared is not None:
            session = self.session(timing)
            return tuple(w for w in self.compared if not past_only or w.end_ns <= session.start_ns)
        return reference_windows(self.recording.manifest, self.session(timing), past_only=past_only)


def replay_of_incident(recording: Recording, incident: Incident) -> Replay:
    """Return the replay of a recorded fault in whole seconds, like a control; captured ones unchanged."""
    if incident.baseline is not None:
        return Replay(
            id=incident.id,
            system=incident.system,
            recording=recording,
            incident=incident,
            onset_ns=incident.baseline.end_ns,
            start_ns=incident.start_ns,
            end_ns=incident.telemetry_to_ns,
            baseline=incident.baseline,
            compared=incident.reference,
        )
    return Replay(
        id=incident.id,
        system=incident.system,
        recording=recording,
        incident=incident,
        onset_ns=incident.onset_ns,
        start_ns=_floor(max(incident.start_ns, incident.telemetry_from_ns)),
        end_ns=-_floor(-incident.telemetry_to_ns),
    )


def replay_of_control(recording: Recording, control: ControlWindow) -> Replay:
    """Return the replay of a quiet window.

    The time between its baseline and the window equals that of one of the recording's incidents in turn, so
    that the times of a session do not distinguish a control from a fault.
    """
    if control.baseline is not None:
        return Replay(
            id=control.id,
            system=control.system,
            recording=recording,
            incident=None,
            onset_ns=control.baseline.end_ns,
            start_ns=control.window.start_ns,
            end_ns=control.window.end_ns,
            baseline=control.baseline,
            compared=control.reference,
        )
    manifest = recording.manifest
    gaps = [
        one.start_ns - one.onset_ns for one in (replay_of_incident(recording, i) for i in manifest.incidents)
    ]
    turn = manifest.controls.index(control) if control in manifest.controls else 0
    gap_ns = gaps[turn % len(gaps)] if gaps else 0
    return Replay(
        id=control.id,
        system=control.system,
        recording=recording,
        incident=None,
        onset_ns=control.window.start_ns - gap_ns,
        start_ns=control.window.start_ns,
        end_ns=control.window.end_ns,
    )


def _floor(instant_ns: Nanos) -> Nanos:
    return instant_ns // NANOS_PER_SECOND * NANOS_PER_SECOND


def scenario_of(replay: Replay) -> Scenario:
    """Return the scenario of a replay, with timing that fits the recorded telemetry.

    Impact is not required, since the recorded fault is known to have occurred. Captured sessions keep their
    labels and the reason why they are ungated.
    """
    incident = replay.incident
    manifest = replay.recording.manifest
    captured = next((one.scenario for one in manifest.captured if one.id == replay.id), None)
    tags = {
        "system": replay.system,
        "fault_type": (incident.fault_type or "unknown") if incident else "control",
        "recording": manifest.id,
        **(dict(captured.tags) if captured else {}),
        **(dict(incident.tags) if incident else {}),
    }
    healthy = captured.expectation if captured else Expectation(healthy=True)
    return Scenario(
        id=replay.id,
        faults=(Fault(flag=replay.id, variant=incident.variant),) if incident else (),
        ungated=captured.ungated if captured else "",
        expectation=incident.expectation if incident else healthy,
        timing=_timing(replay),
        require_impact=False,
        tags=tuple(tags.items()),
        investigation_path=captured.investigation_path if captured else (),
    )


def _timing(replay: Replay) -> Timing:
    observe_s = (replay.end_ns - replay.start_ns) / NANOS_PER_SECOND
    return Timing(
        baseline_s=(
            replay.baseline.duration_s
            if replay.baseline is not None
            else _baseline_s(replay.recording.manifest, replay.onset_ns)
        ),
        guard_s=(replay.start_ns - replay.onset_ns) / NANOS_PER_SECOND,
        impact_timeout_s=observe_s,
        impact_poll_s=max(5.0, observe_s / 24),
        observe_s=observe_s,
        recover_timeout_s=0.0,
    )


def _baseline_s(manifest: RecordingManifest, onset_ns: Nanos) -> float:
    """Return the length of the quiet telemetry directly before the onset, at most that of the policy.

    Without quiet telemetry it is the policy's length: sparser signals such as metrics may still exist.
    """
    policy = manifest.policy
    slack = seconds_to_ns(policy.gap_s)
    before = [quiet for quiet in manifest.quiet if quiet.start_ns < onset_ns <= quiet.end_ns + slack]
    covered_s = max(((onset_ns - quiet.start_ns) / NANOS_PER_SECOND for quiet in before), default=0.0)
    return min(covered_s, policy.baseline_s) if covered_s >= policy.min_quiet_s else policy.baseline_s
