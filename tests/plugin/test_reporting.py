"""How failures and the scorecard read in odd runs."""

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


def test_reasons_stand_in_the_short_summary_and_before_them_the_line_of_the_test(pytester, diag) -> None:
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


def test_one_line_each_where_lines_are_asked_for_and_no_escapes_in_ascii(pytester, diag, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    pytester.makepyfile(test_r=SUITE)
    out = diag("--tb=line", analyzer="my_analyzers:crash", own=True).stdout.str()
    lines = [line for line in out.splitlines() if ".py:9: the root cause was not named first" in line]
    assert len(lines) == 1
    assert "\\u" not in out
    assert ">= 0.90" in out


@pytest.mark.parametrize("encoding", ["ascii", "no-such-encoding"])
def test_every_sign_of_ours_has_a_plain_form(encoding: str) -> None:
    ours = "".join(chr(code) for code in PLAIN)
    assert legible(ours, encoding).isascii()
    assert "?" not in legible(ours, encoding)
    assert legible("日", encoding) == "?"
    assert legible(ours, "utf-8") == ours


def test_a_run_whose_tests_are_all_for_another_target_says_that_nothing_was_diagnosed(pytester) -> None:
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
    result.stdout.fnmatch_lines(["nothing was diagnosed: 1 tests: needs target live, this run has shop"])
