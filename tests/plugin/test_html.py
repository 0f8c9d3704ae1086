"""pytest-html shows whole sessions: real runs, plain and with workers."""

import html
import json
import re

import pytest

RECORDED = """
import pytest

@pytest.mark.otel_recorded("incidents")
def test_incident(diagnosis):
    diagnosis.assert_expected()
"""


def shown(pytester) -> tuple[str, str]:
    """The page, and what pytest-html's script puts below the tests."""
    page = (pytester.path / "page.html").read_text()
    blob = re.search(r'data-jsonblob="([^"]*)"', page)
    tests = json.loads(html.unescape(blob[1]))["tests"]
    return page, "".join(extra["content"] for rows in tests.values() for extra in rows[0]["extras"])


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["plain", "workers"])
def test_a_session_is_drawn_once_below_its_test(pytester, diag, workers) -> None:
    pytester.makepyfile(RECORDED)
    diag("-k", "incident-back", "--html=page.html", "--self-contained-html", *workers)
    page, below = shown(pytester)
    assert page.count("prefers-color-scheme") == 2  # one of the page's own rules, one of the pictures
    assert below.count("class='otel-diag od-light'") == 1
    for picture in ("timeline", "service graph", "critical path"):
        assert below.count(f"<figcaption>{picture}</figcaption>") == 1
    assert "▼ fault on" in below
    assert "expected and found" in below
    assert "<script" not in below


def test_a_crashed_analyzer_leaves_reason_phases_and_traceback(pytester, diag) -> None:
    pytester.makepyfile(RECORDED)
    diag("-k", "incident-back", "--html=page.html", "--self-contained-html", analyzer="my_analyzers:crash")
    _, below = shown(pytester)
    assert "traceback of the analyzer" in below
    assert "LookupError: no idea" in below
    assert "<details open><summary>phases</summary>" in below


def test_pages_of_other_tests_stay_as_they_are(pytester, diag) -> None:
    pytester.makepyfile("def test_nothing(): ...")
    diag("--html=page.html", "--self-contained-html")
    page, below = shown(pytester)
    assert "otel-diag od-" not in page
    assert below == ""
