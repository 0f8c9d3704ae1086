"""Writes a small project that tests a diagnosis: a first test, scenario, analyzer and CI workflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath

from pytest_otel_diag.errors import ConfigurationError

PYPROJECT = "pyproject.toml"

FILES: Mapping[str, str] = {
    PYPROJECT: "pyproject.toml.txt",
    "analyzer.py": "analyzer.py.txt",
    "tests/test_diagnosis.py": "test_diagnosis.py.txt",
    "tests/cart_failure.scenario.yaml": "cart_failure.scenario.yaml.txt",
    ".github/workflows/diagnosis.yml": "diagnosis.yml.txt",
    ".gitignore": "gitignore.txt",
}
"""Path in the new project → template in this package."""


@dataclass(frozen=True)
class NewProject:
    """What :func:`write_project` did; paths are relative to the folder.

    ``existing`` files were left as they are. ``missing_sections`` are texts by file for the user to add to
    existing files, without which the project does not run.
    """

    folder: Path
    written: tuple[str, ...]
    existing: tuple[str, ...]
    missing_sections: Mapping[str, str]


def template(name: str) -> str:
    """Return the content of the project's file *name*, a key of :data:`FILES`."""
    source = files("pytest_otel_diag.operations") / "project_template" / FILES[name]
    return source.read_text(encoding="utf-8")


def write_project(folder: Path) -> NewProject:
    """Write every file of the project that *folder* does not have yet; create the folder where needed.

    Raises ConfigurationError when a file cannot be written.
    """
    existing = tuple(name for name in FILES if (folder / PurePosixPath(name)).exists())
    written = tuple(name for name in FILES if name not in existing)
    for name in written:
        path = folder / PurePosixPath(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:  # never overwrites, whatever happens meanwhile
                file.write(template(name))
        except OSError as error:
            raise ConfigurationError(
                f"cannot write {path}: {error.strerror}; choose a folder in which you may write"
            ) from error
    missing = {}
    if PYPROJECT in existing and "otel_diag_" not in (folder / PYPROJECT).read_text(encoding="utf-8"):
        missing[PYPROJECT] = template(PYPROJECT)
    return NewProject(folder, written, existing, missing)
