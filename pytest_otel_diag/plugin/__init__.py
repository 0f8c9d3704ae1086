"""The pytest11 entry: options, markers, fixtures, and hooks that delegate to the other modules.

Imports the standard library and pytest only, and does nothing until a test uses it: an installed plugin
must cost other pytest runs nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_otel_diag.config.options import OPTIONS, misspelt_variables
from pytest_otel_diag.errors import nearest
from pytest_otel_diag.plugin import hooks, markers
from pytest_otel_diag.plugin.collector import ResultCollector, register_reporters
from pytest_otel_diag.plugin.settings import ACTIVE, check_reports, expected_cost, is_worker, options_of
from pytest_otel_diag.plugin.termination import TERMINATION
from pytest_otel_diag.secret import masked

if TYPE_CHECKING:
    from pytest_otel_diag.config.settings import Settings
    from pytest_otel_diag.plugin.fixtures import Diagnose, FlagAccess, TargetAccess, TelemetryAccess
    from pytest_otel_diag.scoring.assertions import DiagnosedSession

SCENARIO_SUFFIXES = (".scenario.yaml", ".scenario.yml")

SCENARIO_FIXTURE = "_otel_diag_scenario"
"""All fixtures of this plugin request this one; a project's own ``diagnose`` fixture does not."""

pytest.register_assert_rewrite("pytest_otel_diag.testing")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare every option for the command line and the ini file."""
    group = parser.getgroup("otel-diag", "diagnosis of OpenTelemetry systems under test")
    for option in OPTIONS:
        default = "" if str(option.default) in ("None", "", "False") else f" (default: {option.default})"
        explain = f"{option.help}{default} [{option.environment}]"
        if option.flag:
            group.addoption(option.cli, dest=option.ini, action="store_const", const="true", help=explain)
        elif option.bare:
            group.addoption(
                option.cli,
                dest=option.ini,
                metavar=option.metavar,
                nargs="?",
                const=option.bare,
                help=explain,
            )
        else:
            group.addoption(option.cli, dest=option.ini, metavar=option.metavar, help=explain)
        parser.addini(option.ini, option.help, default=None)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks that this plugin calls."""
    pluginmanager.add_hookspecs(hooks)


def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:  # noqa: ARG001 - needs args only
    """Name the nearest spelling of an unknown ``--otel-diag-…`` option, which pytest would only reject."""
    known = [option.cli for option in OPTIONS]
    for argument in args:
        name = argument.partition("=")[0]
        if argument == "--":
            return
        if name.startswith("--otel-diag-") and name not in known:
            raise pytest.UsageError(f"unrecognized arguments: {masked(argument)}{nearest(name, known)}")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and, in the process that reports, the collector of sessions."""
    for line in markers.registration_lines():
        config.addinivalue_line("markers", line)
    if not is_worker(config):
        config.pluginmanager.register(ResultCollector(config), "otel-diag-collector")
    if config.pluginmanager.hasplugin("html"):
        from pytest_otel_diag.plugin.integrations import html

        config.pluginmanager.register(html, "otel-diag-html")
        if not is_worker(config):
            config.pluginmanager.register(html.Sessions(), "otel-diag-html-sessions")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what the tests started."""
    if ACTIVE in config.stash:
        from pytest_otel_diag.plugin.runtime import runtime_of

        runtime_of(config).close()
    TERMINATION.restore()


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Show each setting that differs from its default with its source, and misspelt variables."""
    given = [
        f"{name}={item.value} ({item.source}: {item.spelling})"
        for name, item in options_of(config).items()
        if item.source != "default"
    ]
    shown = [f"otel-diag: {', '.join(given)}"] if given else []
    shown += [f"otel-diag: {sentence}" for sentence in expected_cost(config)]
    return shown + [f"otel-diag: warning: {sentence}" for sentence in misspelt_variables()]


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """Show what the collected tests are likely to take and cost, from earlier runs of their analyzer."""
    ahead = sum(_ours(item) for item in items)
    return [f"otel-diag: {sentence}" for sentence in expected_cost(config, ahead)] if ahead > 1 else []


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
        from pytest_otel_diag.plugin import collection, xdist

        collection.validate(config, items)
        if not is_worker(config):  # which cannot stop the run
            check_reports(config)
        TERMINATION.install(patient=is_worker(config))
        xdist.keep_sessions(config)
        register_reporters(config)


def pytest_keyboard_interrupt() -> None:
    """Note that the run ends: the signal that ends pytest-xdist's workers must not interrupt one twice."""
    TERMINATION.ending()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Conceal the name of the test, which pytest has just written again, from sessions that still run."""
    if ACTIVE in pyfuncitem.config.stash:
        from pytest_otel_diag.config.concealment import CONCEALMENT

        CONCEALMENT.renew()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin an attempt of the test without what an earlier one left."""
    if ACTIVE in item.config.stash:
        from pytest_otel_diag.plugin.results import begin_attempt

        begin_attempt(item)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the run after a session that left its fault on: the target would refuse the next one."""
    if ACTIVE in item.config.stash and nextitem is not None:
        from pytest_otel_diag.plugin.results import left_on

        if faults := left_on(item):
            item.session.shouldstop = f"otel-diag: {faults}"


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
    if ACTIVE in item.config.stash:
        from pytest_otel_diag.plugin.results import attach

        attach(item, call, report)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Show a wrong diagnosis that only the gate judges as missed."""
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


@pytest.fixture
def diagnose(
    request: pytest.FixtureRequest, _otel_diag_scenario: str | None, _otel_diag_repeat: int
) -> Iterator[Diagnose]:
    """Runs sessions with faults: await what a call returns, or call its ``result()``."""
    from pytest_otel_diag.plugin.fixtures import Diagnose

    factory = Diagnose(request.node, _otel_diag_repeat)
    yield factory
    factory.close()


@pytest.fixture
def diagnosis(diagnose: Diagnose) -> DiagnosedSession:
    """The answer of the analyzer under test to the scenario that the test's markers name."""
    __tracebackhide__ = True
    return diagnose.marked().result()


@pytest.fixture
def _otel_diag_target(request: pytest.FixtureRequest) -> Iterator[TargetAccess]:
    from pytest_otel_diag.plugin.fixtures import TargetAccess

    access = TargetAccess(request.node)
    yield access
    access.close()


@pytest.fixture
def otel_flags(_otel_diag_target: TargetAccess, _otel_diag_scenario: str | None) -> FlagAccess:
    """Flags of the target; the plugin restores them after the test."""
    from pytest_otel_diag.plugin.fixtures import FlagAccess

    return FlagAccess(_otel_diag_target)


@pytest.fixture
def otel_telemetry(_otel_diag_target: TargetAccess, _otel_diag_scenario: str | None) -> TelemetryAccess:
    """Read-only SQL over the telemetry of the target."""
    from pytest_otel_diag.plugin.fixtures import TelemetryAccess

    return TelemetryAccess(_otel_diag_target)
