"""Nothing that a run or a command prints or writes contains a credential of its options."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pytest_otel_diag.cli.app import app
from pytest_otel_diag.secret import MASK, hidden
from pytest_otel_diag.shop.realtime.endpoint import OtlpEndpoint

PASSWORD, TOKEN, LOGIN = "Canary/Pass#word1", "canary-token-2", "canary-login-3"
QUOTED = "Canary%2FPass%23word1"
CREDENTIALS = (PASSWORD, QUOTED, TOKEN, LOGIN)

NOBODY = "127.0.0.1:9"
OPTIONS = {
    "store": f"clickhouse://admin:{QUOTED}@{NOBODY}/otel?token={TOKEN}",
    "frontend": f"http://admin:{QUOTED}@{NOBODY}/?api_key={TOKEN}",
    "flags": f"flagd-ui:http://{LOGIN}@{NOBODY}/feature",
    "flagd": f"ofrep:http://admin:{QUOTED}@{NOBODY}",
    "restart": f"restart --token {TOKEN} --url http://admin:{QUOTED}@host {{service}}",
}
"""Valid options of the target live, of which none reaches a server."""

DSNS = (
    f"clickhouse://admin:{PASSWORD}@{NOBODY}/otel",
    f"clickhouses://{LOGIN}@{NOBODY}",
    f"http://admin:{QUOTED}@{NOBODY}/?token={TOKEN}",
    f"https://{NOBODY}?password={TOKEN}&user=admin",
    f"mysql://admin:{QUOTED}@{NOBODY}",
    f"admin:{TOKEN}@{NOBODY}",
    f"clickhouse://admin:{QUOTED}@{NOBODY}:port/",
    f"clickhouse://admin:{QUOTED}@/",
)

COMMANDS = (
    ("doctor", "--target", "live"),
    ("heal",),
    ("emergency-stop", "--all-off", "--wait-s", "0"),
    ("flags", "list"),
    ("flags", "set", "adFailure", "on"),
    ("flags", "reset"),
    ("run", "--target", "live"),
    ("record", "--target", "live", "--out", "kept"),
    ("receive", "--http", "127.0.0.1:0", "--grpc", "off"),
    ("scenarios", "list"),
    ("sql", "-c", "SELECT 1"),
)

HIDING = """
import pytest

@pytest.mark.otel_recorded("incidents")
def test_back(diagnosis):
    assert diagnosis.detected
"""

LEAKING = f"""
def leaking(investigation):
    raise ConnectionError({f"cannot connect to http://admin:{PASSWORD}@{NOBODY} with {TOKEN}, {LOGIN}"!r})
"""


def leaks(text: str) -> list[str]:
    return [credential for credential in CREDENTIALS if credential in text]


def written(folder: Path, ours: tuple[str, ...] = ()) -> Iterator[tuple[Path, str]]:
    """Yield every file below the folder with its text, but for those that the test wrote itself."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ours and "__pycache__" not in path.parts:
            yield path, path.read_bytes().decode(errors="replace")


def assert_clean(folder: Path, ours: tuple[str, ...] = ()) -> None:
    assert {str(path): leaks(text) for path, text in written(folder, ours) if leaks(text)} == {}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a command, with state and reports of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("state", "reports", "cache"):
        monkeypatch.setenv(f"OTEL_DIAG_{name.upper()}", str(tmp_path / name))
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_mask_the_options_in_the_environment(
    place: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    for name, value in OPTIONS.items():
        monkeypatch.setenv(f"OTEL_DIAG_{name.upper()}", value)
    done = CliRunner().invoke(app, command)
    assert leaks(done.output) == []
    assert leaks(str(done.exception)) == []
    assert_clean(place)


@pytest.mark.parametrize("dsn", DSNS)
def test_every_form_of_a_dsn_is_masked(place: Path, dsn: str) -> None:
    done = CliRunner().invoke(app, ("doctor", "--target", "shop", "--store", dsn))
    assert done.exit_code != 0
    assert leaks(done.output) == []
    assert_clean(place)


def test_a_dsn_that_is_an_argument_is_masked(place: Path) -> None:
    done = CliRunner().invoke(app, ("sql", DSNS[0], "-c", "SELECT 1"))
    assert leaks(done.output + str(done.exception)) == []
    assert_clean(place)


def test_headers_of_the_shop_are_hidden(place: Path) -> None:
    headers = f"x-tenant={LOGIN},authorization=Bearer {TOKEN}"
    endpoint = OtlpEndpoint.parse(f"http://admin:{QUOTED}@{NOBODY}", headers=headers)
    assert leaks(f"{endpoint} {endpoint!r}") == []
    assert leaks(str(hidden(headers))) == []
    done = CliRunner().invoke(app, ("shop", "run", "--headers", f"{TOKEN},x"))
    assert "entry 1 is not key=value" in str(done.exception)
    assert leaks(done.output + str(done.exception)) == []


@pytest.mark.parametrize("source", ["command line", "environment", "ini"])
def test_a_run_writes_no_credential(diag, pytester: pytest.Pytester, monkeypatch, source: str) -> None:
    given = []
    options = {name: value for name, value in OPTIONS.items() if name != "store"}
    if source == "command line":
        given = [f"--otel-diag-{name}={value}" for name, value in options.items()]
    elif source == "environment":
        for name, value in options.items():
            monkeypatch.setenv(f"OTEL_DIAG_{name.upper()}", value)
    else:
        lines = [f"otel_diag_{name} = {value}" for name, value in options.items()]
        loop = "asyncio_default_fixture_loop_scope = function"
        pytester.makeini("\n".join(["[pytest]", loop, *lines, ""]))
    pytester.makepyfile(test_one=HIDING, leaking_analyzer=LEAKING)
    reports = ("--junitxml=junit.xml", "--html=page.html", "--self-contained-html", "--alluredir=allure")
    done = diag(*given, *reports, "-v", analyzer="leaking_analyzer:leaking")
    shown = str(done.outlines) + str(done.errlines)
    assert "ConnectionError" in shown and MASK in shown
    assert leaks(shown) == []
    assert_clean(pytester.path, ours=("leaking_analyzer.py", "tox.ini"))
    run = next(Path(os.fspath(pytester.path)).glob("reports/*/run.json")).read_text()
    assert f"http://{MASK}@{NOBODY}" in run


def test_a_live_run_that_cannot_start_writes_no_credential(diag, pytester: pytest.Pytester) -> None:
    given = [f"--otel-diag-{name}={value}" for name, value in OPTIONS.items()]
    pytester.makepyfile(
        test_one="import pytest\n\n@pytest.mark.otel_flag('adFailure')\ndef test_ad(diagnosis): ...\n"
    )
    done = diag(*given, "--junitxml=junit.xml", target="live")
    assert leaks(str(done.outlines) + str(done.errlines)) == []
    assert_clean(pytester.path)
