"""Failures and the scorecard as a reader sees them."""

import pytest

from pytest_otel_diag.plugin.collector import PLAIN, legible

SUITE = """
    import pytest

    @pytest.mark.otel_flag("incident-back")
    def test_fixture(diagnosis):
        pass

    @pytest.mark.otel_flag("incident-back")
    def test_miss(diagnose):
        diagnose(["incident-back"], analyzer="my_analyzers:front").result().assert_expected()
"""


def test_the_short_summary_has_the_reason_and_the_failure_the_line_of_the_test(pytester, diag) -> None:
    pytester.makepyfile(test_r=SUITE)
    run = diag("-rfE", analyzer="my_analyzers:crash")
    run.stdout.fnmatch_lines(
        [
            "session not scored: error (by analyzer): investigate: *no idea*",
            "test_r.py:9: diagnose(*).result().assert_expected()",
            "the root cause was not named first*",
            "FAILED *::test_miss - the root cause was not*",
            "ERROR *::test_fixture - session not scored*",
        ]
    )
    assert "assertions.py" not in run.stdout.str()


def test_tb_line_prints_one_line_each_and_ascii_needs_no_escapes(pytester, diag, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    pytester.makepyfile(test_r=SUITE)
    out = diag("--tb=line", analyzer="my_analyzers:crash", own=True).stdout.str()
    lines = [line for line in out.splitlines() if ".py:9: the root cause was not named first" in line]
    assert len(lines) == 1
    assert "\\u" not in out
    assert ">= 0.90" in out


@pytest.mark.parametrize("encoding", ["ascii", "no-such-encoding"])
def test_every_special_character_has_an_ascii_form(encoding: str) -> None:
    special = "".join(chr(code) for code in PLAIN)
    assert legible(special, encoding).isascii()
    assert "?" not in legible(special, encoding)
    assert legible("日", encoding) == "?"
    assert legible(special, "utf-8") == special


def test_a_run_whose_tests_all_need_another_target_reports_that_nothing_was_diagnosed(pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.otel_target("live")
        @pytest.mark.otel_flag("adFailure")
        def test_it(diagnosis):
            diagnosis.assert_expected()
        """
    )
    result = pytester.runpytest("-q")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["nothing was diagnosed: 1 test: needs target live, this run has shop"])
