"""The command as a whole: version, completion, nearest spellings, options from the one declaration."""

import sys
from importlib import metadata

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from pytest_otel_diag.cli.app import app
from pytest_otel_diag.cli.commands import run as run_command
from pytest_otel_diag.config.options import OPTIONS
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.operations import installation_checks as installation


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.output


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version") == (0, f"otel-diag {metadata.version('pytest-otel-diag')}\n")


def test_completion_can_be_installed() -> None:
    _, shown = run("--help")
    assert "--install-completion" in shown
    assert "--show-completion" in shown


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (("docter",), "'doctor'"),
        (("flags", "lst"), "'list'"),
        (("run", "--analyser", "builtin"), "--analyzer"),
    ],
)
def test_unknown_commands_and_options_get_the_nearest_spelling(
    arguments: tuple[str, ...], nearest: str
) -> None:
    code, shown = run(*arguments)
    assert code == 2
    assert nearest in shown


def test_options_that_are_settings_are_spelt_and_explained_as_declared() -> None:
    options = {option.name: option for option in get_command(app).commands["run"].params}
    for declared in OPTIONS:
        if declared.pytest_only:
            assert declared.name not in options
        else:
            assert declared.command in options[declared.name].opts
            assert declared.environment in options[declared.name].help


def test_a_run_receives_every_option_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[Settings] = []

    def keep(settings: Settings, *_: object) -> int:
        received.append(settings)
        return 0

    monkeypatch.setattr(run_command, "run", keep)
    code, shown = run("run", "--seed", "7001", "--observe-s", "60", "--no-drive", "--skip-cleanup")
    assert code == 0, shown
    (settings,) = received
    assert (settings.seed, settings.observe_s, settings.drive, settings.skip_cleanup) == (
        7001,
        60.0,
        False,
        True,
    )


def test_doctor_reports_that_parallel_runs_are_not_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xdist", None)
    (check,) = [
        check for check in map(installation._package, installation._PACKAGES) if "xdist" in check.detail
    ]
    assert check.state == "absent"
    assert check.detail == (
        "pytest-xdist for parallel runs (pytest -n) is not installed: tests run one after another; "
        'pip install "pytest-otel-diag[xdist]"'
    )


def test_doctor_fails_without_a_package_that_the_default_target_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(installation, "_installed", lambda module: module != "simpy")
    checks = list(installation.installation_checks(Settings()))
    (failed,) = [check for check in checks if check.state == "failed" and check.name == "package"]
    assert failed.detail == (
        'simpy for the simulated shop is not installed; pip install "pytest-otel-diag[local]"'
    )
