"""Errors about missing packages name extras that exist."""

import sys
from importlib import metadata
from typing import get_args

import pytest

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.extras import Extra, require


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
