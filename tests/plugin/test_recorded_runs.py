"""Runs that record their sessions: parallel workers write into one folder."""

from __future__ import annotations

import json

import pytest

from pytest_otel_diag.recordings.format.reader import read_recording
from pytest_otel_diag.recordings.library import find_recordings
from tests.support.plugins import NO_HYPOTHESIS

TESTS = """
import pytest

pytestmark = [
    pytest.mark.otel_timing(baseline_s=60, observe_s=40, impact_timeout_s=60, recover_timeout_s=60),
]

@pytest.mark.otel_flag("paymentUnreachable")
def test_fault(diagnosis):
    assert not diagnosis.detected

@pytest.mark.otel_control
def test_quiet(diagnosis):
    assert not diagnosis.detected
"""

SILENT = """
from pytest_otel_diag.model.diagnosis import Diagnosis

async def silent(investigation):
    return Diagnosis(detected=False)
"""


def test_workers_record_their_sessions_in_one_folder(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    pytester.makepyfile(silence=SILENT)
    done = pytester.runpytest_subprocess(
        *("-q", "-p", "no:cacheprovider", "-n", "2", "--otel-diag-record=kept", "--otel-diag-keep"),
        *NO_HYPOTHESIS,
        *("--otel-diag-target=shop:reference_s=60,settle_s=20", "--otel-diag-analyzer=silence:silent"),
    )
    done.assert_outcomes(passed=2)
    recordings = [read_recording(folder) for folder in find_recordings(pytester.path / "kept")]
    assert sorted(len(one.manifest.incidents) - len(one.manifest.controls) for one in recordings) == [-1, 1]
    for one in recordings:
        one.verify()
    (kept,) = (pytester.path / "reports").glob("*/sessions.jsonl")
    sessions = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    assert {one.manifest.captured[0].session_id for one in recordings} == {
        session["session_id"] for session in sessions
    }
    assert [session["notes"] for session in sessions] == [[], []]
    missed = next(session for session in sessions if session["scenario"]["faults"])
    (telemetry,) = (kept.parent / "telemetry").iterdir()  # that of the control is gone: its answer is right
    assert telemetry.name == missed["session_id"]
    assert read_recording(telemetry).manifest.captured[0].session_id == missed["session_id"]
    done.stdout.fnmatch_lines([f"telemetry of paymentUnreachable=on: otel-diag sql *{telemetry.name}"])


def test_a_replay_is_not_recorded_again(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    done = pytester.runpytest_subprocess(
        *("-q", "-p", "no:cacheprovider", "--otel-diag-record=kept"), "--otel-diag-target=replay:nowhere"
    )
    assert done.ret != 0
    assert not (pytester.path / "kept").exists()
