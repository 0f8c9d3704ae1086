"""Scenarios in YAML are tests like any other: collected, selected, repeated, reported."""

import json

import pytest

SOME = """
schema: 1
defaults:
  tags: { severity: high }
scenarios:
  - id: back
    faults: [{ flag: incident-back }]
    assert:
      - detected
      - root_cause: back
      - not_blamed: front
    marks: [slow]
  - id: middle
    faults: [{ flag: incident-middle }]
    tags: { severity: low }
    marks: [otel_demo]
  - id: same
    scenario: incident-middle
"""


@pytest.fixture
def write(pytester):
    pytester.makeini(
        "[pytest]\naddopts = --strict-markers\nasyncio_mode = auto\n"
        "asyncio_default_fixture_loop_scope = function\n"
    )

    def write(text: str, name: str = "some") -> None:
        (pytester.path / f"{name}.scenario.yaml").write_text(text)

    return write


def sessions(pytester) -> list[dict]:
    (run,) = (pytester.path / "reports").iterdir()
    return [json.loads(line) for line in (run / "sessions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["plain", "xdist"])
def test_a_file_is_a_suite(pytester, diag, write, workers) -> None:
    write(SOME)
    result = diag("--junitxml=junit.xml", *workers)
    result.assert_outcomes(passed=3)
    kept = {session["scenario"]["id"]: session for session in sessions(pytester)}
    assert {name: session["verdict"]["service_rank"] for name, session in kept.items()} == {
        "back": 1,
        "middle": 1,
        "same": 1,
    }
    assert kept["back"]["test_id"] == "some.scenario.yaml::back"
    assert ["severity", "high"] in kept["back"]["scenario"]["tags"]
    assert 'name="otel_diag.root_cause" value="back"' in (pytester.path / "junit.xml").read_text()


def test_labels_select_and_names_match(pytester, diag, write) -> None:
    write(SOME)
    listed = diag("--collect-only", "-q", "-m", "severity_high and not slow", target="replay:none")
    assert "unknown" not in listed.stdout.str()
    chosen = diag("--collect-only", "-q", "-m", "severity_high and not slow")
    chosen.stdout.fnmatch_lines(["some.scenario.yaml::same"])
    assert "::back" not in chosen.stdout.str()
    diag("-k", "middle", "--otel-diag-repeat=2").assert_outcomes(passed=2, deselected=4)
    assert [session["repeat"] for session in sessions(pytester)] == [0, 1]


def test_every_assertion_that_does_not_hold_is_shown_with_its_line(pytester, diag, write) -> None:
    write(SOME)
    result = diag("-k", "back", analyzer="my_analyzers:front")
    result.assert_outcomes(failed=1, deselected=2)
    result.stdout.fnmatch_lines(
        [
            "some.scenario.yaml:10: root_cause: service=back",
            "*the root cause was not named*",
            "*expected*back, first*",
            "some.scenario.yaml:11: not_blamed: service=front",
            "*an innocent service was blamed*",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    assert "def runtest" not in result.stdout.str()
    (session,) = sessions(pytester)
    assert "some.scenario.yaml:10" in session["failures"][0]


def test_under_the_gate_a_wrong_diagnosis_is_missed(pytester, diag, write) -> None:
    write(SOME)
    result = diag("-k", "back", "--otel-diag-gate", analyzer="my_analyzers:front")
    result.stdout.fnmatch_lines(["*1 missed*"])


def test_a_session_that_is_not_scored_is_an_error(pytester, diag, write) -> None:
    write(SOME)
    result = diag("-k", "back", analyzer="my_analyzers:crash")
    result.assert_outcomes(errors=1, deselected=2)
    result.stdout.fnmatch_lines(["*session not scored: error (by analyzer)*"])


def test_all_mistakes_of_all_files_are_reported_before_anything_runs(pytester, diag, write) -> None:
    write("schema: 1\nfaults: [{flg: a}]\n", "one")
    write("schema: 1\ncontrol: true\nassert: [helthy]\n", "two")
    result = diag()
    result.stdout.fnmatch_lines(["*one.scenario.yaml:2: faults.0.flg: unknown key*"])
    result.stdout.fnmatch_lines(
        ["*two.scenario.yaml:3: assert.0.helthy: unknown key (did you mean 'healthy'*"]
    )
    assert not (pytester.path / "reports").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("faults: [{flag: incident-bak}]\n", "*did you mean 'incident-back'*"),
        ("scenario: incident-bak\n", "*some.scenario.yaml:2: scenario: target replay has no scenario*back'*"),
        ("scenario: incident-back\nenvironment: {users: 5}\n", "*the past cannot be changed*"),
        ("control: true\n", "*some.scenario.yaml*control*"),
    ],
)
def test_mistakes_that_only_the_target_knows_stop_the_run(pytester, diag, write, text, sentence) -> None:
    write(f"schema: 1\n{text}")
    result = diag()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([sentence])


def test_scenarios_for_another_target_are_skipped_with_the_reason(pytester, diag, write) -> None:
    write("schema: 1\ntargets: [shop, live]\ncontrol: true\n")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.otel_target("shop")
        @pytest.mark.otel_flag("no-such-flag")
        def test_shop(diagnosis):
            pass

        @pytest.mark.otel_target(("replay", "shop"))
        @pytest.mark.otel_flag("incident-back")
        def test_both(diagnosis):
            diagnosis.assert_expected()

        @pytest.mark.otel_target("shop")
        @pytest.mark.otel_recorded("incidents")
        def test_recorded(diagnosis):
            pass
        """
    )
    result = diag("-rs")
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(
        ["*needs target shop or live, this run has replay", "*needs target shop, this run has replay"]
    )


def test_a_misspelt_target_is_a_mistake_and_no_reason_to_skip(pytester, write) -> None:
    write("schema: 1\ntargets: [shpo]\ncontrol: true\n")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.otel_target(("live", "shp"))
        @pytest.mark.otel_control
        def test_it(diagnosis):
            pass
        """
    )
    result = pytester.runpytest("--otel-diag-target=shop")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines_random(
        [
            "*some.scenario.yaml:2: targets: no target 'shpo' (did you mean 'shop'?); choose from *shop*",
            "*::test_it: no target 'shp' (did you mean 'shop'?); choose from *shop*",
        ]
    )


def test_an_expectation_that_neither_file_nor_catalog_has_is_a_mistake(pytester, write) -> None:
    write("schema: 1\nfaults: [{flag: adFailure}]\nexpect: {root_causes: []}\n")
    result = pytester.runpytest_subprocess("--otel-diag-target=shop")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*some.scenario.yaml:2*the catalog has no expectation for adFailure*"])


def test_flags_of_another_release_are_skipped_unless_the_test_names_its_own(pytester, write) -> None:
    write("schema: 1\nfaults: [{flag: intlShippingSlowdown}]\n", "one")
    write("schema: 1\nfaults: [{flag: cartFailure, variant: 100%}]\nenvironment: {demo: 3.0}\n", "two")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.otel_flag("cartFailure", variant="100%")
        def test_share(diagnosis):
            pass

        @pytest.mark.otel_flag("cartFailure", variant="100%")
        @pytest.mark.otel_environment(demo="3.0")
        def test_named(diagnosis):
            pass
        """
    )
    result = pytester.runpytest_subprocess("--otel-diag-target=shop:demo=2.2", "-rs", "-k", "one or share")
    result.assert_outcomes(skipped=2, deselected=2)
    result.stdout.fnmatch_lines(
        [
            "*demo 2.2 has no intlShippingSlowdown; it is in 3.0, 3.1",
            "*demo 2.2 has no cartFailure=100%; it is in 3.0, 3.1",
        ]
    )


def test_a_conftest_may_import_the_types_of_the_fixtures(pytester, diag) -> None:
    pytester.makeconftest("from pytest_otel_diag.plugin.fixtures import Diagnose\n")
    pytester.makepyfile(
        """
        def test_it(diagnose):
            diagnose(["incident-back"]).result().assert_expected()
        """
    )
    diag().assert_outcomes(passed=1)
