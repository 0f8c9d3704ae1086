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


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the wheel where Python finds it before the editable installation."""
    folder = tmp_path_factory.mktemp("unpacked") / "site"
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run_pytest(site: Path, folder: Path, *arguments: str) -> str:
    """Run pytest in *folder* with the unpacked wheel; return what it printed, fail when it fails."""
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "OTEL_DIAG_CACHE": "cache"}
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shipped(folder: Path, under: str) -> set[str]:
    """Return the files below *folder* that belong into the wheel, as paths below *under*."""
    return {
        f"{under}/{path.relative_to(folder).as_posix()}"
        for path in folder.rglob("*")
        if path.is_file() and not NOT_SHIPPED & set(path.parts)
    }


def test_the_wheel_holds_the_package_with_its_suites_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    suites = shipped(ROOT / "suites", "pytest_otel_diag/suites")
    assert names == shipped(PACKAGE, "pytest_otel_diag") | suites
    assert "pytest_otel_diag/py.typed" in names
    assert any(name.endswith(".scenario.yaml") for name in suites)


def test_a_test_runs_with_the_unpacked_wheel(site: Path, tmp_path: Path) -> None:
    tiny_shop.write(tmp_path / "tiny")
    (tmp_path / "test_it.py").write_text(
        "import pytest, pytest_otel_diag\n"
        "@pytest.mark.otel_flag('incident-back')\n"
        "def test_it(diagnosis):\n"
        "    assert 'site' in pytest_otel_diag.__file__\n"
        "    diagnosis.assert_root_cause('back')\n"
    )
    run_pytest(site, tmp_path, "test_it.py", "--otel-diag-target=replay:tiny")


def test_the_suites_run_from_an_empty_folder(site: Path, tmp_path: Path) -> None:
    """Scenarios in Python and in YAML are collected; reports land in the current folder."""
    suites = ["--pyargs", "pytest_otel_diag.suites", "--strict-markers"]
    collected = run_pytest(site, tmp_path, *suites, "--collect-only", "-m", "not slow")
    assert "control/test_control.py::test_a_quiet_hour[0]" in collected
    assert "complex/leaks.scenario.yaml::email-leak-slow" in collected
    ran = run_pytest(site, tmp_path, *suites, "-k", "test_one_product_fails and not live")
    assert "1 passed" in ran
    (sessions,) = tmp_path.glob("reports/*/sessions.jsonl")
    assert "productCatalogFailure" in sessions.read_text(encoding="utf-8")


def test_the_suites_of_the_checkout_are_those_of_the_package() -> None:
    """Editable installations find them by a link, so that both run the same files."""
    assert (PACKAGE / "suites").resolve() == ROOT / "suites"
    assert (PACKAGE / "suites").readlink() == Path("../suites")  # relative: a clone may lie anywhere
