"""Errors about missing packages name extras that exist."""

import subprocess
import sys
from importlib import metadata
from typing import get_args

import pytest

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.extras import Extra, require
from tests.support.deadlines import deadline_s


def test_every_extra_that_errors_may_name_is_declared() -> None:
    declared = set(metadata.metadata("pytest-otel-diag").get_all("Provides-Extra") or ())
    assert set(get_args(Extra)) <= declared


def test_a_missing_module_is_reported_with_one_command() -> None:
    with pytest.raises(ConfigurationError) as caught:
        require("no_such_package", "otlp", "receiving telemetry", alternative="use a ClickHouse server")
    assert str(caught.value) == (
        "receiving telemetry needs no_such_package, which cannot be imported (No module named "
        "'no_such_package'); run: pip install \"pytest-otel-diag[otlp]\", or use a ClickHouse server"
    )


def without(module: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run *code* in a Python that cannot import *module*."""
    hidden = f"import sys; sys.modules[{module!r}] = None; {code}"
    return subprocess.run(
        [sys.executable, "-c", hidden], capture_output=True, text=True, check=False, timeout=deadline_s(60)
    )


def test_the_shop_in_real_time_names_its_extra() -> None:
    ran = without(
        "simpy", "sys.argv = ['otel-diag', 'shop', 'run']; from pytest_otel_diag.cli import main; main()"
    )
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert line.startswith("otel-diag: the simulated shop in real time needs simpy")
    assert line.endswith('run: pip install "pytest-otel-diag[live]"')


def test_the_strategies_name_the_package_that_they_need() -> None:
    ran = without("hypothesis", "from pytest_otel_diag.testing import strategies")
    assert ran.returncode == 1
    assert ran.stderr.count("Error: ") == 1, "only the error that says what to do"
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: pytest_otel_diag.testing.strategies needs hypothesis")
    assert last.endswith("; run: pip install hypothesis")


def test_a_bare_installation_names_the_one_extra_for_its_default_target(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import pytest\n@pytest.mark.otel_flag('adFailure')\ndef test_ads(diagnosis):\n    pass\n"
    )
    missing = "sys.modules.update(simpy=None, chdb=None, numpy=None)"
    ran = pytester.run(sys.executable, "-c", f"import sys, pytest; {missing}; sys.exit(pytest.main(['-q']))")
    assert ran.ret is pytest.ExitCode.USAGE_ERROR
    line = next(line for line in reversed(ran.errlines) if line)
    assert line.startswith("ERROR: the target shop needs the package")
    assert line.endswith('run: pip install "pytest-otel-diag[local]"')
