"""The times that a session shows do not tell a fault from a control."""

import pytest

from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.recordings.format.reader import Recording
from pytest_otel_diag.recordings.library import open_recording
from pytest_otel_diag.targets.replay.timeline import replay_of_control, replay_of_incident, scenario_of
from tests.support import tiny_shop


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    place = tmp_path_factory.mktemp("windows")
    return open_recording(tiny_shop.write(place / "tiny"), place / "cache")


def test_gaps_of_controls_are_gaps_of_incidents(recording: Recording) -> None:
    manifest = recording.manifest
    incidents = [replay_of_incident(recording, incident) for incident in manifest.incidents]
    controls = [replay_of_control(recording, control) for control in manifest.controls]
    gaps = [replay.start_ns - replay.onset_ns for replay in incidents]
    assert all(gap > 0 for gap in gaps)
    assert [replay.start_ns - replay.onset_ns for replay in controls] == [
        gaps[turn % len(gaps)] for turn in range(len(controls))
    ]


def test_every_window_begins_and_ends_on_a_whole_second(recording: Recording) -> None:
    manifest = recording.manifest
    replays = [replay_of_incident(recording, incident) for incident in manifest.incidents]
    replays += [replay_of_control(recording, control) for control in manifest.controls]
    assert {edge % NANOS_PER_SECOND for replay in replays for edge in (replay.start_ns, replay.end_ns)} == {0}


def test_a_control_shows_no_time_that_an_incident_disturbs(recording: Recording) -> None:
    manifest = recording.manifest
    disturbed = [incident.disturbed(manifest.policy) for incident in manifest.incidents]
    for control in manifest.controls:
        replay = replay_of_control(recording, control)
        for window in replay.visible(scenario_of(replay).timing):
            assert not any(window.overlaps(other) for other in disturbed), control.id
