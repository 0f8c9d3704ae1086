"""``otel-diag doctor``: what would not work here, and the way out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import metadata, util

from pytest_otel_diag.cli.spelling import as_typed
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.runs import composition
from pytest_otel_diag.telemetry import Store

Echo = Callable[[str], object]
Check = tuple[str, bool, str]

EXTRAS = {
    "chdb": ("embedded", "embedded store and recordings"),
    "pyarrow": ("embedded", "recordings"),
    "drain3": ("builtin", "built-in analyzer"),
    "numpy": ("builtin", "built-in analyzer"),
    "xdist": ("xdist", "parallel runs"),
    "pytest_html": ("html", "verdicts in pytest-html"),
}


def doctor(settings: Settings, echo: Echo) -> int:
    """Print every check; return 1 when one that is needed failed."""
    failed = False
    for name, ok, detail in _checks(settings):
        echo(f"{'ok' if ok else 'FAIL':<6}{name:<12}{as_typed(detail)}")
        failed = failed or not ok
    kind, _, rest = settings.target.partition(":")
    if kind == "live":
        from pytest_otel_diag.operations import live_checks  # noqa: PLC0415 - what a live system needs, on use

        for row in live_checks.rows(rest, settings):
            echo(f"{row.state:<6}{row.name:<12}{as_typed(row.detail)}")
            failed = failed or row.state == "FAIL"
    return int(failed)


def _checks(settings: Settings) -> Iterator[Check]:
    yield "python", sys.version_info[:2] >= (3, 11), sys.version.split()[0]
    yield "version", True, metadata.version("pytest-otel-diag")
    for name, item in settings.not_default().items():
        yield "setting", True, f"{name}={item.value} ({item.source}: {item.spelling})"
    for module, (extra, purpose) in EXTRAS.items():
        there = util.find_spec(module) is not None
        way_out = "" if there else f'; pip install "pytest-otel-diag[{extra}]"'
        yield "package", there or extra in ("html", "xdist"), f"{module} for {purpose}{way_out}"
    live = settings.target.partition(":")[0] == "live"
    if not live:  # what a live system's telemetry is in is a check of its own
        yield _store(settings)
    yield _analyzer(settings)
    if live:
        return
    if settings.target:
        yield from _target(settings)
    else:
        yield "target", True, "none named; --target replay:PATH checks a recording too"


def _store(settings: Settings) -> Check:
    dsn = settings.store or "chdb://memory"
    try:
        with closing(Store.open(dsn)) as store:
            return "store", True, f"{dsn}: {len(store.databases())} databases"
    except OtelDiagError as error:
        return "store", False, str(error)


def _analyzer(settings: Settings) -> Check:
    try:
        composition.open_analyzer(settings.analyzer)
    except OtelDiagError as error:
        return "analyzer", False, str(error)
    return "analyzer", True, settings.analyzer


def _target(settings: Settings) -> Iterator[Check]:
    try:
        with composition.opened(settings, "doctor") as target:
            known = target.scenarios()
            yield "target", True, ", ".join(f"{name}={value}" for name, value in target.describe().items())
            controls = sum(scenario.control for scenario in known)
            yield "scenarios", bool(known), f"{len(known) - controls} with a fault, {controls} controls"
    except OtelDiagError as error:
        yield "target", False, str(error)
