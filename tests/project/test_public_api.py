"""The public API: what ``pytest_otel_diag`` exports, that it stays cheap to import, and that it is typed."""

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pytest_otel_diag

ROOT = Path(__file__).parents[2]
USAGE = Path(__file__).with_name("typed_usage.py")


def seen_by_type_checkers() -> dict[str, str]:
    """Return the module of each name that ``__init__.py`` imports for type checkers."""
    tree = ast.parse(Path(pytest_otel_diag.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_every_name_loads_from_the_module_that_type_checkers_see() -> None:
    loaded = {name: f"pytest_otel_diag.{module}" for name, module in pytest_otel_diag._HOMES.items()}
    assert loaded == seen_by_type_checkers()
    for name, module in loaded.items():
        assert getattr(pytest_otel_diag, name) is getattr(import_module(module), name)


def test_all_lists_every_name_in_order() -> None:
    assert pytest_otel_diag.__all__ == sorted({*pytest_otel_diag._HOMES, "__version__"})
    assert set(pytest_otel_diag.__all__) <= set(dir(pytest_otel_diag))


def test_every_name_has_a_docstring() -> None:
    names = set(pytest_otel_diag.__all__) - {"__version__"}
    assert [name for name in sorted(names) if not getattr(pytest_otel_diag, name).__doc__] == []


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="module 'pytest_otel_diag' has no attribute 'Diagnosys'"):
        pytest_otel_diag.Diagnosys  # noqa: B018


def test_importing_the_package_loads_none_of_its_modules() -> None:
    code = "import json, sys, pytest_otel_diag; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in json.loads(done.stdout) if name.startswith("pytest_otel_diag.")] == []


def test_mypy_accepts_code_as_users_write_it() -> None:
    command = [sys.executable, "-m", "mypy", "--strict", str(USAGE)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_type_checkers_refuse_names_that_do_not_exist(tmp_path: Path) -> None:
    misspelt = tmp_path / "misspelt.py"
    misspelt.write_text("from pytest_otel_diag import Diagnosys\n")
    command = [sys.executable, "-m", "mypy", "--strict", str(misspelt)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert 'has no attribute "Diagnosys"; maybe "Diagnosis"' in done.stdout


def test_pyright_accepts_code_as_users_write_it(tmp_path: Path) -> None:
    project = tmp_path / "pyrightconfig.json"
    project.write_text(json.dumps({"typeCheckingMode": "strict", "include": [str(USAGE)]}))
    command = [sys.executable, "-m", "basedpyright", "-p", str(project), "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
