"""The shop and the built-in analyzer share nothing but OpenTelemetry's own words."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_otel_diag import catalog

PACKAGE = Path(catalog.__file__).parents[1]
ANALYZER = PACKAGE / "analyzers" / "builtin"
SHOP = PACKAGE / "shop"

OPENTELEMETRY = {
    *("Server", "Consumer", "ms", "ns", "TRACE", "DEBUG", "INFO"),
    *("otel_traces", "otel_logs", "otel_metrics_", "Timestamp", "TimeUnix", "StartTimeUnix", "Body", "Value"),
    *("traces", "logs", "metrics", "trace_id", "error", "gauge", "histogram", "bounds", "counts", "points"),
}
"""Kinds of spans, units, severities, tables and columns of the exporter, signals and their parts."""

ENGLISH = {" of ", "critical", "high", "kept", "low", "medium", "service", "waiting"}


def files(folder: Path, suffix: str) -> list[Path]:
    """Return the files below *folder*; fails when there are none, as a moved folder would pass every test."""
    found = sorted(folder.rglob(f"*.{suffix}"))
    assert found, f"no *.{suffix} below {folder}"
    return found


def strings(folder: Path) -> Iterator[str]:
    """Yield every string in the code except docstrings."""
    for path in files(folder, "py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield node.value


def names_of_the_demo() -> set[str]:
    """Return the flags and services of every release, and the operations that the catalog expects."""
    known = catalog.load()
    names: set[str] = set()
    for demo in ("1.12", "2.2", "3.0", "3.1"):
        names |= set(catalog.generation(demo).services.values())
        for scenario in catalog.scenarios(demo):
            names |= {fault.flag for fault in scenario.faults}
            names |= {cause.operation for cause in scenario.expectation.root_causes if cause.operation}
    assert known
    # an everyday word, or a word of a convention, is not a name by itself
    return {name for name in names if len(name) > 4} - {"email", "quote", "agent"}


def test_no_string_of_the_analyzer_is_one_of_the_shop() -> None:
    words = {text for text in strings(ANALYZER) if re.search(r"[a-z]{2}", text, re.IGNORECASE)}
    assert (words & set(strings(SHOP))) - OPENTELEMETRY - ENGLISH == set()


@pytest.mark.parametrize("suffix", ["py", "sql"])
def test_the_analyzer_names_nothing_of_the_demo(suffix: str) -> None:
    names = names_of_the_demo()
    assert {"paymentFailure", "checkout", "fraud-detection"} <= names
    for path in files(ANALYZER, suffix):
        text = path.read_text(encoding="utf-8")
        found = {name for name in names if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)}
        assert not found, f"{path.name} names {found}"


def test_the_shop_names_nothing_of_the_analyzer() -> None:
    for path in files(SHOP, "py"):
        assert "analyzers" not in re.findall(r"pytest_otel_diag\.(\w+)", path.read_text(encoding="utf-8"))
