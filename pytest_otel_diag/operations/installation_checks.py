"""Checks this installation, the telemetry store, the analyzer and the target of the settings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from importlib import metadata, util
from typing import NamedTuple

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.extras import Extra, install
from pytest_otel_diag.operations.checks import CheckResult
from pytest_otel_diag.runs.opening import open_analyzer
from pytest_otel_diag.runs.runner import Runner
from pytest_otel_diag.secret import SecretText
from pytest_otel_diag.telemetry import Store


class _Package(NamedTuple):
    module: str
    distribution: str
    extra: Extra
    purpose: str
    without: str = ""
    """What happens without an optional package; empty for a package that the default target needs."""


_PACKAGES = (
    _Package("chdb", "chdb-core", "local", "the embedded telemetry store"),
    _Package("pyarrow", "pyarrow", "local", "the embedded telemetry store and recordings"),
    _Package("simpy", "simpy", "local", "the simulated shop"),
    _Package("openfeature.contrib.tools.flagd.core", "openfeature-flagd-core", "local", "flags of the shop"),
    _Package("drain3", "drain3", "local", "the built-in analyzer"),
    _Package("numpy", "numpy", "local", "the built-in analyzer"),
    _Package("xdist", "pytest-xdist", "xdist", "parallel runs (pytest -n)", "tests run one after another"),
    _Package("pytest_html", "pytest-html", "html", "sessions in pytest-html", "reports are written anyway"),
)


def installation_checks(settings: Settings) -> Iterator[CheckResult]:
    """Yield the checks one by one; a live target's store and system are left to :mod:`.live_checks`."""
    supported = sys.version_info[:2] >= (3, 11)
    needs = "" if supported else ", Python 3.11 or newer is needed"
    yield CheckResult("ok" if supported else "failed", "python", f"{sys.version.split()[0]}{needs}")
    yield CheckResult("ok", "version", metadata.version("pytest-otel-diag"))
    for name, item in settings.not_default().items():
        yield CheckResult("ok", "setting", f"{name}={item.value} ({item.source}: {item.spelling})")
    yield from map(_package, _PACKAGES)
    live = settings.target.partition(":")[0] == "live"
    if not live:
        yield _store(settings)
    yield _analyzer(settings)
    if not live:
        yield from _target(settings)


def _package(package: _Package) -> CheckResult:
    if _installed(package.module):
        version = metadata.version(package.distribution)
        return CheckResult("ok", "package", f"{package.distribution} {version} for {package.purpose}")
    absent = f"{package.distribution} for {package.purpose} is not installed"
    if package.without:
        return CheckResult("absent", "package", f"{absent}: {package.without}; {install(package.extra)}")
    return CheckResult("failed", "package", f"{absent}; {install(package.extra)}")


def _installed(module: str) -> bool:
    try:
        return util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


def _store(settings: Settings) -> CheckResult:
    dsn = settings.store or SecretText("chdb://memory")
    try:
        with closing(Store.open(dsn.reveal())) as store:
            return CheckResult("ok", "store", f"{dsn}: {len(store.databases())} databases")
    except OtelDiagError as error:
        return CheckResult("failed", "store", str(error))


def _analyzer(settings: Settings) -> CheckResult:
    try:
        open_analyzer(settings.analyzer.reveal(), settings)
    except OtelDiagError as error:
        return CheckResult("failed", "analyzer", str(error))
    return CheckResult("ok", "analyzer", str(settings.analyzer))


def _target(settings: Settings) -> Iterator[CheckResult]:
    if not settings.target:
        yield CheckResult("ok", "target", "none is named; --target replay:PATH checks a recording too")
        return
    try:
        with Runner(settings, worker="doctor") as runner:
            known = runner.target.scenarios()
            described = runner.target.describe()
            yield CheckResult("ok", "target", ", ".join(f"{key}={value}" for key, value in described.items()))
            controls = sum(scenario.control for scenario in known)
            found = f"{len(known) - controls} with a fault, {controls} controls"
            yield CheckResult("ok" if known else "failed", "scenarios", found)
    except OtelDiagError as error:
        yield CheckResult("failed", "target", str(error))
