"""A plugin that is installed but not used costs and changes nothing."""

import json
import subprocess
import sys

import pytest

HEAVY = (
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "clickhouse_connect",
    "chdb",
    "drain3",
    "litellm",
    "httpx",
    "mcp",
    "starlette",
    "uvicorn",
)

LOADED = """
import json, sys
import pytest
before = set(sys.modules)
import pytest_otel_diag.plugin
print(json.dumps({"before": sorted(before), "added": sorted(set(sys.modules) - before)}))
"""


@pytest.fixture(scope="module")
def loaded() -> dict:
    """Modules that a fresh process has with pytest, and those that the plugin adds."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_entry_imports_the_standard_library_and_pytest_only(loaded) -> None:
    modules = loaded["added"]
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
        "pytest_otel_diag.plugin.hooks",
        "pytest_otel_diag.runs",
        "pytest_otel_diag.runs.place",
        "pytest_otel_diag.secret",
    }
    foreign = [name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names]
    assert set(foreign) == set(ours)


def test_the_entry_adds_few_modules_to_those_of_pytest(loaded) -> None:
    """Importing a module of the standard library takes about a third of a millisecond."""
    assert len(loaded["added"]) <= 30, loaded["added"]


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


def test_the_gateway_loads_a_server_with_the_first_access_and_mcp_with_its_first_request() -> None:
    names = "access, application, gateway, mcp_door, routes, wire"
    code = f"import sys; from pytest_otel_diag.gateway import {names}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"chdb", "httpx", "mcp", "numpy", "pyarrow", "starlette", "uvicorn"}
    assert heavy & set(done.stdout.split()) == set()


def test_the_investigator_loads_a_client_with_the_model_that_needs_it() -> None:
    code = "import sys; from pytest_otel_diag.analyzers.investigator import opening; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"chdb", "httpx", "litellm", "mcp", "numpy", "openai", "pyarrow", "starlette", "uvicorn"}
    assert heavy & set(done.stdout.split()) == set()


def test_a_command_loads_no_other_commands() -> None:
    called = "from pytest_otel_diag.cli.app import app; app(['init', '--help'], standalone_mode=False)"
    code = f"import sys; {called}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    commands = "pytest_otel_diag.cli.commands"
    loaded = set(done.stdout.split())
    assert {name for name in loaded if name.startswith(f"{commands}.")} == {f"{commands}.init"}
    assert {"chdb", "numpy", "pyarrow"} & loaded == set()
