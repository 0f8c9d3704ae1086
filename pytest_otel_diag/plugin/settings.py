"""What the user asked of this pytest run, and where the run is kept. As light as the entry module."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_otel_diag.config.declaration import Option
from pytest_otel_diag.config.options import OPTIONS, Resolved, resolve
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.runs.place import RunPlace, why_unwritable

ACTIVE: pytest.StashKey[bool] = pytest.StashKey()
"""On the config: this process runs sessions. Hooks look here before they import what is heavy."""

PLACE: pytest.StashKey[RunPlace] = pytest.StashKey()
"""On the config: where the run is kept, for all of its processes."""

PLACE_INPUT = "otel_diag_place"
"""Key of the place in the input of a worker of pytest-xdist, as ``[folder, start in ns]``."""

ANALYZER = next(option for option in OPTIONS if option.name == "analyzer")
REPORTS = next(option for option in OPTIONS if option.name == "reports")


def options_of(config: pytest.Config, only: Sequence[Option] = OPTIONS) -> dict[str, Resolved]:
    """Return the options with their sources; raises UsageError that lists every bad value."""
    command_line = {option.ini: config.getoption(option.ini, None) for option in only}
    ini = {option.ini: config.getini(option.ini) for option in only}
    try:
        return resolve(command_line, ini, only=only)
    except ConfigurationError as error:
        raise pytest.UsageError(str(error)) from None


def place_of(config: pytest.Config) -> RunPlace | None:
    """Return where the run is kept; None in a worker that cannot reach that folder, on another machine."""
    if PLACE not in config.stash:
        given: dict[str, Any] | None = getattr(config, "workerinput", None)
        if given is None:
            reports = config.rootpath / options_of(config, (REPORTS,))["reports"].value
            config.stash[PLACE] = RunPlace.new(reports, time.time_ns())
        elif PLACE_INPUT in given:
            folder, started_ns = given[PLACE_INPUT]
            config.stash[PLACE] = RunPlace(Path(folder), started_ns)
    return config.stash.get(PLACE, None)


def expected_cost(config: pytest.Config, ahead: int = 0) -> list[str]:
    """Return what *ahead* sessions of the analyzer may take and cost, from earlier runs; empty without."""
    options = options_of(config, (ANALYZER, REPORTS))
    if options["analyzer"].source == "default" or config.option.collectonly:
        return []
    from pytest_otel_diag.runs.forecast import forecast  # noqa: PLC0415 - most runs have no use for it

    found = forecast(config.rootpath / options["reports"].value, str(options["analyzer"].value))
    return [] if found is None else [found.described(ahead)]


def check_reports(config: pytest.Config) -> None:
    """Raise UsageError when runs cannot be kept in the folder for reports; a mere collection keeps none."""
    if config.option.collectonly:
        return
    reports = options_of(config, (REPORTS,))["reports"]
    folder = config.rootpath / reports.value
    if reason := why_unwritable(folder):
        raise pytest.UsageError(
            f"otel-diag: no reports can be written to {folder}: {reason}; "
            f"change {reports.spelling}={reports.value} to a folder that can be written"
        )


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker of pytest-xdist: another process reports on its tests."""
    return hasattr(config, "workerinput")
