"""Where the plugin is installed but not used, it costs and changes nothing."""

import json
import subprocess
import sys

import pytest

HEAVY = ("numpy", "pandas", "pyarrow", "pydantic", "clickhouse_connect", "chdb", "drain3", "litellm", "httpx")

LOADED = """
import json, sys, time
import pytest
begin = time.process_time()
import pytest_otel_diag.plugin
spent = time.process_time() - begin
print(json.dumps({"spent_s": spent, "modules": sorted(sys.modules)}))
"""


def loaded() -> dict:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_entry_imports_the_standard_library_and_pytest_only() -> None:
    modules = loaded()["modules"]
    assert [name for name in HEAVY if name in modules] == []
    ours = [name for name in modules if name.startswith("pytest_otel_diag")]
    assert set(ours) <= {
        "pytest_otel_diag",
        "pytest_otel_diag.config",
        "pytest_otel_diag.config.declaration",
        "pytest_otel_diag.config.options",
        "pytest_otel_diag.errors",
        "pytest_otel_diag.plugin",
        "pytest_otel_diag.plugin.collector",
        "pytest_otel_diag.plugin.settings",
        "pytest_otel_diag.plugin.markers",
        "pytest_otel_diag.plugin.termination",
        "pytest_otel_diag.plugin.stash",
    }


def test_the_entry_stays_within_its_budget_of_30_ms() -> None:
    assert min(loaded()["spent_s"] for _ in range(5)) < 0.030


def test_a_run_that_does_not_use_the_plugin_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import sys

        def pytest_unconfigure():
            heavy = [name for name in sys.modules if name.startswith("pytest_otel_diag.")]
            print("LOADED", sorted(heavy))
        """
    )
    pytester.makepyfile("def test_nothing(): pass")
    result = pytester.runpytest_subprocess("-p", "no:hypothesispytest", "-p", "no:allure_pytest")
    assert result.ret == 0
    output = result.stdout.str()
    assert "otel-diag:" not in output
    (line,) = [line for line in output.splitlines() if line.startswith("LOADED")]
    assert "runtime" not in line
    assert "model" not in line
    assert not (pytester.path / "reports").exists()
