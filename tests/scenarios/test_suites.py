"""The suites cover what the documentation promises, and can be selected by markers."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_otel_diag import catalog

ROOT = Path(__file__).parents[2]
CATEGORIES = ("adversarial", "complex", "control", "performance", "service_failure", "system_level")
ELSEWHERE = ("live", "recorded")
"""Suites for other targets."""

COLLECT = """
import json, sys, pytest

class Names:
    def pytest_collection_finish(self, session):
        marks = {item.nodeid: [mark.name for mark in item.iter_markers()] for item in session.items}
        print("MARKS" + json.dumps(marks))

sys.exit(pytest.main(["suites", "--collect-only", "-q", "-p", "no:cacheprovider"], plugins=[Names()]))
"""


@pytest.fixture(scope="module")
def marks() -> dict[str, list[str]]:
    """Markers by test, of everything that is collected on the shop."""
    done = subprocess.run(
        [sys.executable, "-c", COLLECT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("MARKS"))
    return json.loads(line.removeprefix("MARKS"))


def folder(name: str) -> str:
    return name.split("/")[1]


def test_there_are_enough_faults_and_controls(marks) -> None:
    shop = [name for name in marks if folder(name) not in ELSEWHERE]
    controls = [name for name in shop if "control" in marks[name]]
    assert len(controls) >= 35  # fewer could not show a false positive rate below 0.10 with confidence
    assert {folder(name) for name in controls} == {"adversarial", "control"}
    assert len(shop) - len(controls) >= 40
    assert sum(".scenario.yaml::" in name for name in shop) >= 30
    assert {folder(name) for name in shop} == {*CATEGORIES}


def test_every_flag_of_the_default_release_is_set_somewhere(marks) -> None:
    labels = {label for names in marks.values() for label in names}
    assert [key for key in catalog.generation().flags if key not in labels] == []


def test_labels_name_category_severity_flag_and_target(marks) -> None:
    for name, labels in marks.items():
        if folder(name) not in ELSEWHERE:
            nothing_wrong = {"control"} if folder(name) == "adversarial" else set()
            assert {*labels} & {*CATEGORIES} - nothing_wrong == {folder(name)}, name
            assert "otel_target" in labels, name
    by_flag = {name for name, labels in marks.items() if "paymentFailure" in labels}
    assert len(by_flag) >= 8
    assert all("severity_critical" in marks[name] for name in by_flag if folder(name) == "service_failure")
    assert all(re.search("severity_", " ".join(marks[name])) for name in by_flag)
