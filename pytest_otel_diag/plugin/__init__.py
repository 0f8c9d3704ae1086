"""The pytest11 entry: options, markers, fixtures, and hooks that hand over to the modules beside it.

Imports the standard library and pytest only, and does nothing until a test uses it, so that other
pytest runs pay nothing for the plugin being installed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_otel_diag.config.options import OPTIONS
from pytest_otel_diag.plugin import markers
from pytest_otel_diag.plugin.collector import Collector
from pytest_otel_diag.plugin.settings import options_of
from pytest_otel_diag.plugin.stash import MISTAKES, RUNTIME, SESSIONS, SPOOL
from pytest_otel_diag.plugin.termination import SIGNALS

if TYPE_CHECKING:
    from pytest_otel_diag.config.settings import Settings
    from pytest_otel_diag.plugin.diagnose import Diagnose
    from pytest_otel_diag.plugin.fixtures import FlagAccess, OpenTarget, TelemetryAccess
    from pytest_otel_diag.scoring.assertions import DiagnosedSession

SCENARIO_SUFFIXES = (".scenario.yaml", ".scenario.yml")

SCENARIO_FIXTURE = "_otel_diag_scenario"
"""Every fixture of ours asks for this one: a project's own ``diagnose`` fixture is not mistaken for ours."""

pytest.register_assert_rewrite("pytest_otel_diag.testing")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare every option for the command line and the ini file."""
    group = parser.getgroup("otel-diag", "diagnosis of OpenTelemetry systems under test")
    for option in OPTIONS:
        default = "" if option.default in (None, "", False) else f" (default: {option.default})"
        explain = f"{option.help}{default} [{option.environment}]"
        if option.flag:
            group.addoption(option.cli, dest=option.ini, action="store_const", const="true", help=explain)
        else:
            group.addoption(option.cli, dest=option.ini, metavar=option.metavar, help=explain)
        parser.addini(option.ini, option.help, default=None)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and, in the process that reports, the collector of results."""
    for line in markers.registration_lines():
        config.addinivalue_line("markers", line)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(config), "otel-diag-collector")
    if config.pluginmanager.hasplugin("html"):
        from pytest_otel_diag.plugin.integrations import html

        config.pluginmanager.register(html, "otel-diag-html")
        if not hasattr(config, "workerinput"):
            config.pluginmanager.register(html.Sessions(), "otel-diag-html-sessions")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what the tests started."""
    if RUNTIME in config.stash:
        config.stash[RUNTIME].close()
    SIGNALS.restore()


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Show each setting that somebody set, with its source; nothing in runs without any."""
    given = [
        f"{name}={item.value} ({item.source}: {item.spelling})"
        for name, item in options_of(config).items()
        if item.source != "default"
    ]
    return [f"otel-diag: {', '.join(given)}"] if given else []


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect scenarios written as YAML."""
    if not file_path.name.endswith(SCENARIO_SUFFIXES):
        return None
    from pytest_otel_diag.plugin.yaml_files import ScenarioFile

    return ScenarioFile.from_parent(parent, path=file_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Multiply tests by recorded incidents and repeats."""
    if SCENARIO_FIXTURE in metafunc.fixturenames:
        from pytest_otel_diag.plugin import collection

        collection.parametrize(metafunc)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Validate all markers before any flag is touched."""
    if any(_ours(item) for item in items):
        from pytest_otel_diag.plugin import collection
        from pytest_otel_diag.plugin.terminal import listeners

        collection.validate(config, items)
        listeners.of(config)
        _guard(config)


def _guard(config: pytest.Config) -> None:
    """Let signals end the run in order; in a worker, keep sessions for a controller that is interrupted."""
    from pytest_otel_diag.plugin import xdist as spool

    given: dict[str, Any] = getattr(config, "workerinput", {})
    SIGNALS.install(patient=bool(given))
    if spool.INPUT in given and SPOOL not in config.stash:
        config.stash[SPOOL] = spool.WorkerSpool(Path(given[spool.INPUT]), given["workerid"])


def pytest_keyboard_interrupt() -> None:
    """Note it: what ends the workers of pytest-xdist must not hit one twice."""
    SIGNALS.ending()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the controller that every session of this worker has ended."""
    if SPOOL in session.config.stash:
        session.config.stash[SPOOL].close()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the run after a session that left its fault on: the next one could only be refused."""
    ended = [one.cleanup for one in item.stash.get(SESSIONS, ()) if one.cleanup is not None]
    left_on = [cleanup.detail for cleanup in ended if cleanup.left_on]
    if left_on and nextitem is not None:
        item.session.shouldstop = f"otel-diag: {left_on[-1]}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail an item whose markers are mistaken, in workers of pytest-xdist."""
    if MISTAKES in item.stash:
        pytest.fail(f"mistake in markers: {item.stash[MISTAKES]}", pytrace=False)


def _ours(item: pytest.Item) -> bool:
    marked = any(mark.name.startswith("otel_") for mark in item.iter_markers())
    written = item.path.name.endswith(SCENARIO_SUFFIXES)
    return marked or written or SCENARIO_FIXTURE in getattr(item, "fixturenames", ())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put ended sessions on the report."""
    report = yield
    if RUNTIME in item.config.stash:
        from pytest_otel_diag.plugin import results

        results.attach(item, call, report)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Show a diagnosis that the gate is left to judge as missed."""
    return ("missed", "m", "MISSED") if hasattr(report, "otel_diag_missed") else None


@pytest.fixture
def otel_diag_settings(request: pytest.FixtureRequest) -> Settings:
    """Settings of the run, resolved from command line, environment, ini and defaults."""
    from pytest_otel_diag.plugin.runtime import settings_of

    return settings_of(request.config)


@pytest.fixture
def _otel_diag_scenario(request: pytest.FixtureRequest) -> str | None:
    return getattr(request, "param", None)


@pytest.fixture
def _otel_diag_repeat(request: pytest.FixtureRequest) -> int:
    return int(getattr(request, "param", 0))


@pytest.fixture(name="diagnose")  # the module of that name takes the attribute once it is imported
def _diagnose(
    request: pytest.FixtureRequest, _otel_diag_scenario: str | None, _otel_diag_repeat: int
) -> Iterator[Diagnose]:
    """Runs sessions of faults: await what a call returns, or ask it for its ``result()``."""
    from pytest_otel_diag.plugin.diagnose import Diagnose

    factory = Diagnose(request.node, _otel_diag_repeat)
    yield factory
    factory.close()


@pytest.fixture
def diagnosis(diagnose: Diagnose) -> DiagnosedSession:
    """The answer of the analyzer under test to the scenario that the test's markers name."""
    return diagnose.marked().result()


@pytest.fixture
def _otel_diag_open(request: pytest.FixtureRequest) -> Iterator[OpenTarget]:
    from pytest_otel_diag.plugin.fixtures import OpenTarget

    opened = OpenTarget(request.node)
    yield opened
    opened.close()


@pytest.fixture
def otel_flags(_otel_diag_open: OpenTarget, _otel_diag_scenario: str | None) -> FlagAccess:
    """Flags of the target; whatever the test sets is undone after it."""
    from pytest_otel_diag.plugin.fixtures import FlagAccess

    return FlagAccess(_otel_diag_open)


@pytest.fixture
def otel_telemetry(_otel_diag_open: OpenTarget, _otel_diag_scenario: str | None) -> TelemetryAccess:
    """Read-only SQL over the telemetry of the target."""
    from pytest_otel_diag.plugin.fixtures import TelemetryAccess

    return TelemetryAccess(_otel_diag_open)


def __getattr__(name: str) -> Any:
    """Offer the types of the fixtures for annotations without importing them beforehand."""
    homes = {
        "DiagnosedSession": "pytest_otel_diag.scoring.assertions",
        "Diagnose": "pytest_otel_diag.plugin.diagnose",
        "FlagAccess": "pytest_otel_diag.plugin.fixtures",
        "TelemetryAccess": "pytest_otel_diag.plugin.fixtures",
        "Settings": "pytest_otel_diag.config.settings",
    }
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(homes[name]), name)
