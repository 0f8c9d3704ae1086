"""The ``otel-diag`` command: as a separate process where the process matters, else inside this one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_otel_diag.cli import main
from pytest_otel_diag.errors import FlagError
from tests.plugin.conftest import ANALYZERS
from tests.support import tiny_shop
from tests.support.command import otel_diag
from tests.support.deadlines import deadline_s


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording, analyzers and a cache."""
    place = tmp_path_factory.mktemp("command")
    tiny_shop.write(place / "tiny")
    (place / "my_analyzers.py").write_text(ANALYZERS)
    return place


def separately(place: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest_otel_diag.cli", *arguments]
    env = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    env |= {"OTEL_DIAG_CACHE": str(place / "cache"), "PYTHONPATH": str(place), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        command,
        cwd=place,
        env=env | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=deadline_s(60),
    )


def test_help_lists_the_commands(place: Path) -> None:
    shown = separately(place).stdout
    assert all(name in shown for name in ("recordings", "run", "report", "doctor"))


def test_a_recording_is_imported_validated_and_listed(place: Path) -> None:
    imported = otel_diag(place, "recordings", "import", "tiny", "imported")
    assert imported.returncode == 0, imported.stderr
    assert "2 incidents, 2 controls" in imported.stdout
    good = otel_diag(place, "recordings", "validate", "imported")
    assert (good.returncode, "0 errors" in good.stdout) == (0, True)
    listed = otel_diag(place, "recordings", "list", "imported").stdout
    assert "network_delay 2" in listed
    assert "traces.parquet" in listed
    assert "incident-back" not in listed
    named = otel_diag(place, "recordings", "list", "imported", "--incidents").stdout
    assert "incident-back  2023-11-14T22:17:20.000Z  back  network_delay" in named
    again = otel_diag(place, "recordings", "import", "tiny", "imported")
    assert again.returncode == 2
    assert "already exists" in again.stderr


def test_validation_fails_for_a_damaged_file(place: Path) -> None:
    assert otel_diag(place, "recordings", "import", "tiny", "damaged").returncode == 0
    traces = place / "damaged" / "traces.parquet"
    traces.write_bytes(traces.read_bytes()[:-100])
    bad = otel_diag(place, "recordings", "validate", "damaged")
    assert bad.returncode == 1
    assert "traces.parquet" in bad.stdout


def test_run_judges_every_scenario_and_report_shows_it_again(place: Path) -> None:
    ran = separately(
        place, "run", "--target", "replay:tiny", "--analyzer", "my_analyzers:slower", "--reports", "kept"
    )
    assert ran.returncode == 13, ran.stderr
    assert "incident-back  detected, root cause ranked 1" in ran.stdout
    assert "no alarm" in ran.stdout
    assert "gate: INCONCLUSIVE" in ran.stdout
    (run,) = (place / "kept").iterdir()
    assert len((run / "sessions.jsonl").read_text().splitlines()) == 4
    assert json.loads((run / "run.json").read_text())["target"]["name"] == "replay"
    text = otel_diag(place, "report", str(run))
    assert "gate: INCONCLUSIVE" in text.stdout
    page = otel_diag(place, "report", str(run), "--format", "html").stdout.strip()
    assert "incident-back" in Path(page).read_text()
    wrong = otel_diag(place, "report", str(run), "--format", "htm")
    assert wrong.returncode == 2
    assert "did you mean 'html'?" in wrong.stderr


def test_run_distinguishes_misses_false_alarms_and_errors(place: Path) -> None:
    chosen = ("--target", "replay:tiny", "--reports", "other")
    blamed = otel_diag(place, "run", *chosen, "--analyzer", "my_analyzers:front", "--scenario", "back").stdout
    assert "incident-back  detected, root cause not named" in blamed
    alarms = otel_diag(
        place, "run", *chosen, "--analyzer", "my_analyzers:front", "--scenario", "control"
    ).stdout
    assert alarms.count("false alarm  (") == 2
    crashed = otel_diag(place, "run", *chosen, "--analyzer", "my_analyzers:crash", "--no-controls")
    assert "incident-back  error: " in crashed.stdout
    assert "no idea" in crashed.stdout
    assert crashed.returncode == 12


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "--target", ""), "no system under fault is named"),
        (("run", "--target", "replay:tiny", "--scenario", "nothing"), "none with 'nothing' in its id"),
        (("run", "--target", "replay:tiny", "--scenario", "incident-bak"), "did you mean 'incident-back'?"),
        (("run", "--target", "reply:tiny"), "did you mean 'replay'?"),
        (("run", "--target", "replay:tiny", "--analyzer", "bultin"), "did you mean 'builtin'?"),
        (("report", "nowhere"), "nowhere"),
        (("recordings", "validate", "nowhere"), "nowhere"),
        (("recordings", "list", "tine"), "did you mean 'tiny'?"),
    ],
)
def test_a_mistake_is_one_readable_line(place: Path, arguments: tuple[str, ...], sentence: str) -> None:
    done = otel_diag(place, *arguments)
    assert done.returncode in (1, 2)
    assert sentence in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_bad_settings_from_the_environment_are_named(place: Path) -> None:
    done = separately(place, "run", OTEL_DIAG_REPEAT="many")
    assert done.returncode == 2
    assert "OTEL_DIAG_REPEAT='many'" in done.stderr


def test_doctor_checks_store_analyzer_and_target(place: Path) -> None:
    fine = otel_diag(place, "doctor", "--target", "replay:tiny", "--analyzer", "my_analyzers:slower")
    assert fine.returncode == 0, fine.stdout
    assert "2 with a fault, 2 controls" in fine.stdout
    broken = otel_diag(
        place, "doctor", "--target", "replay:gone", "--analyzer", "nothing", "--store", "http://127.0.0.1:9/"
    )
    assert broken.returncode == 1
    assert broken.stdout.count("FAIL") == 3


def test_characters_that_a_terminal_lacks_are_replaced(place: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    command = [sys.executable, "-m", "pytest_otel_diag.cli", "catalog", "show", "cartFailure"]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "frontend ? checkout ? cart" in done.stdout


def test_escape_sequences_in_an_error_do_not_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise FlagError("no flag 'x'; known:\n  a\x1b[2J\u202eb")

    monkeypatch.setattr("pytest_otel_diag.cli.app.app", fails)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == "otel-diag: no flag 'x'; known:\n  a\\x1b[2J\\u202eb\n"
