"""Markers of the suites for ``-m``: the category from the folder, flag and severity from the catalog."""

from pathlib import Path

import pytest

from pytest_otel_diag.plugin.yaml_files import mark
from pytest_otel_diag.scenario_files.knowledge import labels

HERE = Path(__file__).parent
CATEGORIES = tuple(
    sorted(folder.name for folder in HERE.iterdir() if folder.is_dir() and folder.name[0] not in "_.")
)
OWN = {"slow": "takes more than five seconds", "control": "nothing is wrong in it"}


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers that are not those of flags."""
    for name in CATEGORIES:
        config.addinivalue_line("markers", f"{name}: scenarios of the folder suites/{name}")
    for name, meaning in OWN.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark every test with its folder and the flags that it sets."""
    folder = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
    flags = [str(flag.args[0]) for flag in item.iter_markers("otel_flag") if flag.args]
    given = {"category": folder} if folder in CATEGORIES else {}
    mark(item, (*labels(flags, given), "control") if folder == "control" else labels(flags, given))
