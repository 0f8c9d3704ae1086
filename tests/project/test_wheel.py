"""What is published works without the source tree beside it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support import tiny_shop

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pytest_otel_diag"
NOT_SHIPPED = {"__pycache__", ".mypy_cache", ".ruff_cache"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and not NOT_SHIPPED & set(path.parts)
    }
    assert names == wanted
    assert "pytest_otel_diag/py.typed" in names


def test_a_suite_runs_from_the_unpacked_wheel(wheel: Path, tmp_path: Path) -> None:
    """The plugin is loaded from the wheel by name, with the editable installation hidden behind it."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    tiny_shop.write(tmp_path / "tiny")
    (tmp_path / "test_it.py").write_text(
        "import pytest, pytest_otel_diag\n"
        "@pytest.mark.otel_flag('incident-back')\n"
        "def test_it(diagnosis):\n"
        "    assert 'site' in pytest_otel_diag.__file__\n"
        "    diagnosis.assert_root_cause('back')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "test_it.py", "--otel-diag-target=replay:tiny"]
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin", "OTEL_DIAG_CACHE": "cache"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
