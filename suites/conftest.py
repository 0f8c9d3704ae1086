"""Labels of the suites: category by folder, flag and severity by the catalog, so that -m can choose."""

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
    """Register the labels that suites use by hand."""
    for name in CATEGORIES:
        config.addinivalue_line("markers", f"{name}: scenarios of the folder suites/{name}")
    for name, meaning in OWN.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Label every test by its folder, and by the flags it sets."""
    folder = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
    flags = [str(flag.args[0]) for flag in item.iter_markers("otel_flag") if flag.args]
    given = {"category": folder} if folder in CATEGORIES else {}
    mark(item, (*labels(flags, given), "control") if folder == "control" else labels(flags, given))
