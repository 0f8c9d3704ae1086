"""``otel-diag record``, in a separate process, and commands over its recordings."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_command import separately
from tests.support import tiny_shop
from tests.support.command import otel_diag
from tests.support.deadlines import deadline_s

SHORT = {"OTEL_DIAG_OBSERVE_S": "30", "OTEL_DIAG_IMPACT_TIMEOUT_S": "60"}
TARGET = "shop:reference_s=60,settle_s=20"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("record")


@pytest.fixture(scope="module")
def recorded(place: Path) -> Path:
    """Record one fault and one control."""
    done = separately(
        place,
        *("record", "--target", TARGET, "--scenario", "paymentUnreachable", "--controls", "1"),
        *("--out", "kept", "--shift-to", "2026-01-31T08:00:00Z"),
        **SHORT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 sessions kept in" in done.stdout
    assert "paymentUnreachable=on  VISIBLE, " in done.stdout
    return place / "kept"


def test_every_session_is_a_recording_that_replays(place: Path, recorded: Path) -> None:
    folders = sorted(recorded.iterdir())
    assert [folder.name.rpartition("-")[0] for folder in folders] == [
        "control-quiet",
        "paymentUnreachable-on",
    ]
    manifest = json.loads((folders[1] / "recording.json").read_text())
    assert manifest["notes"] == [f"all times were shifted by {_seconds(manifest)} s"]
    run = otel_diag(place, "run", "--target", "replay:kept", "--reports", "reports")
    assert "2 sessions, 2 scored: 1 scenario with a fault, 1 control" in run.stdout, run.stderr
    assert "paymentUnreachable=on-" in run.stdout
    assert "root cause ranked 1" in run.stdout


def test_the_suite_of_recordings_replays_them(place: Path, recorded: Path) -> None:
    """The system of a captured session, otel-demo-3.0, is a marker that begins like those of the plugin."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers"]
    chosen = ["--pyargs", "pytest_otel_diag.suites.recorded", "-m", "otel_demo_3_0"]
    options = [f"--otel-diag-target=replay:{recorded}", f"--otel-diag-cache={place / 'cache'}"]
    done = subprocess.run(
        [*command, *chosen, *options],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=deadline_s(120),
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_every_recording_of_a_folder_is_validated(place: Path, recorded: Path) -> None:
    sound = otel_diag(place, "recordings", "validate", "kept")
    control, fault = (f"{folder.name}: " for folder in sorted(recorded.iterdir()))
    assert sound.returncode == 0, sound.stdout + sound.stderr
    assert [f"kept/{name}0 errors" in sound.stdout for name in (control, fault)] == [True, True]
    shutil.copytree(recorded, place / "one damaged")
    (place / "one damaged" / fault.removesuffix(": ") / "traces.parquet").unlink()
    damaged = otel_diag(place, "recordings", "validate", "one damaged")
    assert damaged.returncode == 1
    assert f"one damaged/{control}0 errors" in damaged.stdout
    section = damaged.stdout.partition(f"one damaged/{fault}")[2]
    assert section.startswith("1 errors")
    assert "\n  error: traces.parquet: missing" in section


def _seconds(manifest: dict) -> int:
    """Return by how many seconds the recording was moved."""
    (note,) = manifest["notes"]
    assert 1_769_846_400 <= manifest["start_ns"] // 10**9 <= 1_769_846_401
    return int(note.split()[-2])


def test_recordings_are_changed_and_merged(place: Path, recorded: Path) -> None:
    nothing = otel_diag(place, "recordings", "shift", "kept", "same")
    assert (nothing.returncode, "nothing to change" in nothing.stderr) == (2, True)
    cut = otel_diag(place, "recordings", "shift", "kept", "cut", "--anonymise-time", "--redact")
    assert cut.stdout.count(": 2000-01-01T00:00:00.") == 2
    merged = otel_diag(place, "recordings", "merge", "cut", "one")
    assert "1 incidents, 1 controls" in merged.stdout, merged.stderr
    valid = otel_diag(place, "recordings", "validate", "one")
    assert (valid.returncode, "0 errors" in valid.stdout) == (0, True)
    listed = otel_diag(place, "recordings", "list", "one").stdout
    assert "captured from the target shop" in listed


def test_a_session_that_is_not_kept_is_reported(place: Path) -> None:
    """No telemetry shows this fault, so there is no ground truth to keep."""
    nothing = otel_diag(
        place,
        *("record", "--target", TARGET, "--scenario", "emailMemoryLeak", "--out", "lost"),
        OTEL_DIAG_OBSERVE_S="5",
        OTEL_DIAG_IMPACT_TIMEOUT_S="1",
    )
    assert nothing.returncode == 12, nothing.stdout + nothing.stderr
    assert "not kept" in nothing.stdout
    assert "0 of 1 sessions kept" in nothing.stdout
    assert not (place / "lost").exists()


def test_a_target_or_scenario_that_cannot_be_recorded_is_refused(place: Path) -> None:
    tiny_shop.write(place / "tiny")
    replay = otel_diag(place, "record", "--target", "replay:tiny", "--out", "x")
    assert (replay.returncode, "is a recording already" in replay.stderr) == (2, True)
    unknown = otel_diag(place, "record", "--target", TARGET, "--scenario", "nothing", "--out", "x")
    assert (unknown.returncode, "no scenario to run" in unknown.stderr) == (2, True)
    both = otel_diag(
        place, "record", "--target", TARGET, "--out", "x", "--shift-to", "2026-01-01", "--anonymise-time"
    )
    assert (both.returncode, "not both" in both.stderr) == (2, True)
