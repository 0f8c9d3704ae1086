"""Every outcome explains itself, alike in the terminal, in pages and in files: real runs."""

import html
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

CHECKED = """
    import pytest

    @pytest.mark.otel_flag("incident-back")
    def test_check(diagnosis):
        diagnosis.assert_root_cause("back")
        diagnosis.assert_anomaly(service="front", signal="cpu")

    @pytest.mark.otel_flag("incident-back")
    def test_bug(diagnosis):
        diagnosis.nothing_like_this()

    @pytest.mark.otel_flag("incident-back")
    def test_right(diagnosis):
        diagnosis.assert_expected()
"""
REASON = "the anomaly was not found: expected front cpu, found no anomalies"


def run_folder(pytester: pytest.Pytester) -> Path:
    (folder,) = (pytester.path / "reports").iterdir()
    return folder


def kept(pytester: pytest.Pytester) -> list[dict]:
    lines = (run_folder(pytester) / "sessions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def properties(pytester: pytest.Pytester) -> list[list[tuple[str, str]]]:
    cases = ElementTree.parse(pytester.path / "junit.xml").iter("testcase")
    return [[(one.get("name"), one.get("value")) for one in case.iter("property")] for case in cases]


def test_a_test_that_failed_is_green_nowhere(pytester, diag) -> None:
    pytester.makepyfile(test_c=CHECKED)
    ran = diag("--junitxml=junit.xml", "--html=page.html", "--self-contained-html")
    ran.assert_outcomes(passed=1, failed=2)
    ran.stdout.fnmatch_lines(
        [
            f"  incident-back*: {REASON} (detected, root cause ranked 1)*",
            "missed or failed",
            f"  test_c.py::test_check  failed check  {REASON[:60]}*",
            "  test_c.py::test_bug    failed check  AttributeError: *nothing_like_this*",
            "report: *report.html",
            "run again what missed or failed: the same command with --lf",
            "run one test alone: the same options with test_c.py::test_check",
        ]
    )
    assert [bool(session["unmet"]) for session in kept(pytester)] == [True, True, False]
    page = (run_folder(pytester) / "report.html").read_text()
    assert len(re.findall(r'class="badge bad">failed check<', page)) == 2
    assert len(re.findall(r'class="badge good">', page)) == 1
    assert REASON in (run_folder(pytester) / "scorecard.md").read_text()
    blob = re.search(r'data-jsonblob="([^"]*)"', (pytester.path / "page.html").read_text())
    rows = json.loads(html.unescape(blob[1]))["tests"]["test_c.py::test_check"]
    assert f"<td>{REASON}</td>" in rows[0]["resultsTableRow"]
    (drawn,) = [extra["content"] for extra in rows[0]["extras"]]
    assert "badge bad" in drawn
    assert drawn.index(REASON) < drawn.index("<table")
    assert ("otel_diag.failure", REASON) in properties(pytester)[0]


def test_what_missed_under_the_gate_is_explained_and_rerun_by_last_failed(pytester, diag) -> None:
    pytester.makepyfile(test_c=CHECKED)
    ran = diag("--otel-diag-gate", "-k", "not bug", "--junitxml=junit.xml")
    ran.stdout.fnmatch_lines(["*gate: *", f"  test_c.py::test_check  failed check  {REASON[:60]}*"])
    (skipped,) = ElementTree.parse(pytester.path / "junit.xml").iter("skipped")
    assert skipped.get("message") == f"missed, left to the gate: {REASON}"
    again = diag("--otel-diag-gate", "--lf", "--collect-only", "-q")
    again.stdout.fnmatch_lines(["test_c.py::test_check"])
    assert "test_right" not in again.stdout.str()


def test_an_expected_failure_stays_one_under_the_gate(pytester, diag) -> None:
    pytester.makepyfile(
        test_x="""
        import pytest

        @pytest.mark.xfail(reason="a known blind spot")
        @pytest.mark.otel_flag("incident-back")
        def test_known(diagnosis):
            diagnosis.assert_anomaly(service="front")
        """
    )
    ran = diag("--otel-diag-gate", "-rx")
    ran.assert_outcomes(xfailed=1)
    ran.stdout.fnmatch_lines(["XFAIL test_x.py::test_known - a known blind spot"])
    assert kept(pytester)[0]["failures"] == []


RETRYING = """
    import pytest
    from _pytest.runner import runtestprotocol

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(item, nextitem):
        "Runs a test that failed again, as plugins for that do: the teardown of the attempt is not logged."
        failed = True
        while failed:
            item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            item._initrequest()
            failed = False
            for report in runtestprotocol(item, nextitem=nextitem, log=False):
                failed = report.failed
                report.outcome = "rerun" if failed else report.outcome
                item.ihook.pytest_runtest_logreport(report=report)
                if failed:
                    break
            item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True
"""
IMPROVING = """
    import itertools

    asked = itertools.count()

    def improving(investigation):
        "Right from the second time on."
        right = next(asked) > 0
        return {"detected": right, "root_causes": [{"service": "back"}] if right else []}
"""


def test_each_attempt_of_a_retried_test_has_its_own_session_alone(pytester, diag) -> None:
    pytester.makeconftest(RETRYING)
    pytester.makepyfile(
        improving=IMPROVING,
        test_r="""
        import pytest

        @pytest.mark.otel_flag("incident-back")
        def test_it(diagnosis):
            diagnosis.assert_root_cause("back")
        """,
    )
    diag("--alluredir=allure", "--junitxml=junit.xml", analyzer="improving:improving")
    assert [bool(session["unmet"]) for session in kept(pytester)] == [True, False]
    last = [value for name, value in properties(pytester)[-1] if name == "otel_diag.verdict"]
    assert last == ["detected, root cause ranked 1"]
    files = sorted((pytester.path / "allure").glob("*-result.json"), key=lambda file: file.stat().st_mtime_ns)
    first, second = (json.loads(file.read_text()) for file in files)
    assert (first["status"], second["status"]) == ("failed", "passed")
    for name in ("historyId", "labels", "parameters"):
        assert first[name] == second[name]
    assert [len(attempt["steps"]) for attempt in (first, second)] == [1, 1]
    assert first["stop"] <= second["start"]


@pytest.mark.parametrize(
    ("arguments", "outcomes"),
    [
        (("--stepwise", "--maxfail=2"), {"failed": 1}),
        (("-p", "no:terminal", "-x"), None),
        (("-p", "no:cacheprovider", "--durations=3"), {"failed": 2, "passed": 1}),
    ],
    ids=["stepwise", "no-terminal", "no-cache"],
)
def test_further_options_of_pytest_keep_their_meaning(pytester, diag, arguments, outcomes) -> None:
    pytester.makepyfile(test_c=CHECKED)
    ran = diag(*arguments)
    assert ran.ret in (1, 2)
    if outcomes is not None:
        ran.assert_outcomes(**outcomes)
        assert len(kept(pytester)) == sum(outcomes.values())
    else:
        assert len(kept(pytester)) == 1
    if "no:cacheprovider" in arguments:
        ran.stdout.fnmatch_lines(["run one test alone: *test_check"])
        ran.stdout.no_fnmatch_line("*--lf*")


def test_an_error_in_a_hook_of_the_project_fails_the_run_and_loses_no_session(pytester, diag) -> None:
    pytester.makeconftest("def pytest_otel_diag_session_finish(session): raise LookupError('no \x1b such')")
    pytester.makepyfile(test_c=CHECKED)
    ran = diag("-k", "right")
    assert ran.ret == pytest.ExitCode.TESTS_FAILED
    ran.assert_outcomes(passed=1, deselected=2)
    ran.stdout.fnmatch_lines(["*errors in hooks*", "*LookupError: no \\x1b such (*conftest.py:1)"])
    ran.stdout.no_fnmatch_line("*INTERNALERROR*")
    assert len(kept(pytester)) == 1


def test_an_async_test_that_no_plugin_runs_is_refused_before_its_session(pytester, diag) -> None:
    pytester.makeini("[pytest]\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(
        test_a="""
        import pytest

        @pytest.mark.otel_flag("incident-back")
        async def test_lost(diagnosis):
            diagnosis.assert_expected()
        """
    )
    ran = diag()
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    ran.stderr.fnmatch_lines(["*the test is async and no plugin runs it: *asyncio_mode=auto*"])
    assert not (pytester.path / "reports").exists()


def test_the_terminal_gets_no_escape_sequence_of_an_analyzer(pytester, diag) -> None:
    pytester.makepyfile(
        rude="""
        def rude(investigation):
            raise LookupError("\x1b]0;owned\x07 \u202e")
        """,
        test_c=CHECKED,
    )
    ran = diag("-k", "right", "--alluredir=allure", "--junitxml=junit.xml", analyzer="rude:rude")
    out = ran.stdout.str()
    assert "\x1b]0" not in out
    assert "\\x1b]0;owned\\x07 \\u202e" in out
    written = [
        *(pytester.path / "allure").iterdir(),
        pytester.path / "junit.xml",
        *run_folder(pytester).iterdir(),
    ]
    assert [file.name for file in written if "\x1b" in file.read_text() or "\u202e" in file.read_text()] == []
