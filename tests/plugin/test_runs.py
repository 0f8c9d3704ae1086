"""Whole pytest runs with the plugin, as a user starts them."""

import json
from pathlib import Path

import pytest

from tests.support.deadlines import deadline_s

RECORDED = """
    import pytest

    @pytest.mark.otel_recorded("incidents")
    def test_incident(diagnosis):
        diagnosis.assert_expected()

    @pytest.mark.otel_recorded("controls")
    def test_control(diagnosis):
        diagnosis.assert_healthy()
"""


def only_run(pytester: pytest.Pytester) -> Path:
    """Return the folder of the only run."""
    (run,) = (pytester.path / "reports").iterdir()
    return run


def sessions(pytester: pytest.Pytester) -> list[dict]:
    lines = (only_run(pytester) / "sessions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["plain", "xdist"])
def test_a_recorded_suite_is_scored_and_kept(pytester, diag, workers) -> None:
    pytester.makepyfile(RECORDED)
    result = diag("--otel-diag-gate", "--junitxml=junit.xml", *workers)
    kept = sessions(pytester)
    incidents = [s for s in kept if s["scenario"]["faults"]]
    assert [s["verdict"]["service_rank"] for s in incidents] == [1, 1]
    assert len(kept) == 4
    assert {s["status"] for s in kept} == {"scored"}
    assert {s["verdict"]["detected"] for s in kept if not s["scenario"]["faults"]} == {False}
    result.stdout.fnmatch_lines(["*gate: INCONCLUSIVE*"])
    assert result.ret == 13
    manifest = json.loads((only_run(pytester) / "run.json").read_text())
    assert {s["run_id"] for s in kept} == {manifest["run_id"]}
    assert manifest["target"]["name"] == "replay"
    assert manifest["analyzers"][0]["source"] == "my_analyzers:slower"
    assert {s["name"]: s["source"] for s in manifest["settings"]}["target"] == "command line"
    assert (only_run(pytester) / "scorecard.json").is_file()
    junit = (pytester.path / "junit.xml").read_text()
    assert 'name="otel_diag.root_cause" value="back"' in junit
    assert 'name="otel_diag.status" value="scored"' in junit


def test_an_inconclusive_gate_passes_if_the_settings_allow_it(pytester, diag) -> None:
    pytester.makepyfile(RECORDED)
    result = diag("--otel-diag-gate", "--otel-diag-inconclusive=pass")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*accepted, since the settings say inconclusive=pass*"])


def test_without_the_gate_none_is_shown(pytester, diag) -> None:
    pytester.makepyfile(RECORDED)
    result = diag("-k", "incident-back")
    assert result.ret == 0
    assert "gate:" not in result.stdout.str()


def test_a_wrong_diagnosis_is_missed_under_the_gate_and_failed_without(pytester, diag) -> None:
    pytester.makepyfile(RECORDED)
    gated = diag("--otel-diag-gate", "-k", "incident", analyzer="my_analyzers:front")
    gated.stdout.fnmatch_lines(["*2 missed*"])
    plain = diag("-k", "incident", analyzer="my_analyzers:front")
    plain.assert_outcomes(failed=2, deselected=plain.parseoutcomes()["deselected"])
    plain.stdout.fnmatch_lines(
        ["*the root cause was not named first*", "*expected*back, first*", "*found*front*"]
    )
    assert plain.ret == 1


def test_a_failing_gate_has_its_own_exit_code(pytester, diag) -> None:
    pytester.makepyfile(RECORDED)
    result = diag("--otel-diag-gate", analyzer="my_analyzers:front", own=True)
    assert result.ret == 11
    result.stdout.fnmatch_lines(["*gate: FAIL*", "*false alarms on controls: 1.00*"])


@pytest.mark.parametrize(
    ("analyzer", "reason"),
    [
        ("my_analyzers:crash", '*raise LookupError("no idea")*'),
        ("my_analyzers:hang", "*analyzer*"),
        ("my_analyzers:other", "*detected*"),
    ],
)
def test_a_broken_analyzer_is_an_error_of_the_analyzer_and_not_scored(
    pytester, diag, analyzer, reason
) -> None:
    pytester.makepyfile(RECORDED)
    limit_s = 1 if analyzer.endswith("hang") else 600
    result = diag("-k", "incident-back", f"--otel-diag-analyze-timeout-s={limit_s}", analyzer=analyzer)
    result.assert_outcomes(errors=1, deselected=result.parseoutcomes()["deselected"])
    (session,) = sessions(pytester)
    assert (session["status"], session["blame"]) == ("error", "analyzer")
    assert session["cleanup"]["restored"] is True
    assert session["verdict"] is None
    result.stdout.fnmatch_lines([reason])


def test_sync_and_async_tests_work_in_strict_mode_too(pytester, diag) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.otel_flag("incident-back")
        @pytest.mark.asyncio
        async def test_marked(diagnosis):
            diagnosis.assert_root_cause("back", top=1)
            assert diagnosis.named("back") and not diagnosis.named("middle", top=1)

        @pytest.mark.asyncio
        async def test_factory(diagnose):
            result = await diagnose(["incident-middle=on"])
            result.assert_detected()
            again = await diagnose(["incident-middle"], analyzer="my_analyzers:front")
            assert again.named("front", top=1)

        def test_sync_factory(diagnose):
            assert diagnose(["incident-back"]).result().named("back", top=1)
        """
    )
    result = diag("-o", "asyncio_mode=strict")
    result.assert_outcomes(passed=3)
    assert len(sessions(pytester)) == 4


def test_repeats_multiply_tests_and_are_numbered(pytester, diag) -> None:
    pytester.makepyfile(RECORDED)
    result = diag("-k", "incident-back", "--otel-diag-repeat=3")
    result.assert_outcomes(passed=3, deselected=result.parseoutcomes()["deselected"])
    assert [s["repeat"] for s in sessions(pytester)] == [0, 1, 2]
    assert [s["seed"] for s in sessions(pytester)] == [0, 1, 2]


def test_fault_type_and_system_are_markers(pytester, diag) -> None:
    pytester.makepyfile(RECORDED)
    result = diag("-m", "network_delay and tinyshop", "--strict-markers")
    result.assert_outcomes(passed=2, deselected=result.parseoutcomes()["deselected"])


def test_all_mistakes_are_reported_together_before_anything_runs(pytester, diag) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.otel_flag("incident-bak")
        def test_misspelt(diagnosis): ...

        @pytest.mark.otel_flag("incident-back", variant="50%")
        def test_variant(diagnosis): ...

        @pytest.mark.otel_scenario("nothing")
        def test_scenario(diagnosis): ...

        @pytest.mark.otel_flag("incident-back")
        def test_unused(): ...

        def test_no_scenario(diagnosis): ...

        @pytest.mark.otel_flag("incident-back")
        @pytest.mark.otel_control
        def test_both(diagnosis): ...

        @pytest.mark.otel_flag("incident-back")
        @pytest.mark.otel_expect(root_cause="back", mechanism="cpuu")
        def test_mechanism(diagnosis): ...

        @pytest.mark.otel_timing(observe_s=10)
        def test_timing_only(diagnosis): ...

        @pytest.mark.otel_flag("incident-back")
        @pytest.mark.otel_timing(impact_poll_s=0)
        def test_timing(diagnosis): ...
        """
    )
    result = diag()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stderr.str() + result.stdout.str()
    for sentence in (
        "9 mistakes in markers",
        "did you mean 'incident-back'?",
        "recorded with variant 'on', not '50%'",
        "has no scenario 'nothing'",
        "nothing would run",
        "names no scenario",
        "contradict each other",
        "mechanism 'cpuu' is not in the taxonomy (did you mean 'cpu'?)",
        "otel_timing without a scenario",
        "impact_poll_s=0",
    ):
        assert sentence in text, sentence
    assert not (pytester.path / "reports").exists()


def test_expectation_and_timing_of_a_marker_replace_the_recorded_ones(pytester, diag) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.otel_flag("incident-back")
        @pytest.mark.otel_expect(root_cause=("front", "middle"), mechanism="network", not_blamed=("back",))
        @pytest.mark.otel_timing(observe_s=30)
        def test_other_truth(diagnosis):
            assert diagnosis.verdict.named_red_herring == "back"
            assert diagnosis.verdict.service_rank == 2
            diagnosis.assert_not_blamed("back")
        """
    )
    result = diag()
    result.assert_outcomes(failed=1)
    (session,) = sessions(pytester)
    assert session["scenario"]["timing"]["observe_s"] == 30
    assert len(session["failures"]) == 1
    assert "back" in session["failures"][0]


def test_a_test_reads_telemetry_and_sets_flags_which_are_restored(pytester, diag) -> None:
    pytester.makepyfile(
        """
        import pytest

        # The reference windows of the recording, here from 580 s on, stay visible at any time.
        SPANS = '''SELECT count() AS n, max(Timestamp) AS last FROM otel_traces
                   WHERE Timestamp < fromUnixTimestamp64Nano(1700000500000000000)'''

        @pytest.mark.otel_flag("incident-back")
        async def test_telemetry(diagnosis, otel_telemetry):
            seen = await otel_telemetry.query(SPANS)
            assert seen.column("last")[0] <= diagnosis.result.windows.incident.end_ns
            assert await otel_telemetry.now() == diagnosis.result.windows.incident.end_ns

        @pytest.mark.otel_flag("incident-back")
        def test_flags(otel_flags, otel_telemetry):
            assert otel_flags.served("incident-back").result().variant == "off"
            before = otel_telemetry.query(SPANS).result().column("n")[0]
            otel_telemetry.advance(60).result()
            assert otel_telemetry.query(SPANS).result().column("n")[0] > before
            otel_flags.set("incident-back", "on").result()
            assert otel_flags.served("incident-back").result().variant == "on"
            assert list(otel_flags.document().result().flags) == ["incident-back"]
            with pytest.raises(Exception, match="onn"):
                otel_flags.set("incident-back", "onn").result()
        """
    )
    diag().assert_outcomes(passed=2)


def test_without_a_recording_the_skip_reason_names_the_option(pytester, diag) -> None:
    pytester.makepyfile(RECORDED)
    result = diag("-rs", target="shop")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*--otel-diag-target=replay:PATH*"])
    gated = diag("--otel-diag-gate", "--otel-diag-inconclusive=pass", target="shop")
    assert gated.ret == 12, "nothing scored is never green"


def test_bad_options_stop_the_run_with_every_mistake(pytester, diag) -> None:
    pytester.makepyfile("def test_nothing(): ...")
    result = diag("--otel-diag-repeat=none", "--otel-diag-inconclusive=maybe")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stderr.str() + result.stdout.str()
    assert "--otel-diag-repeat='none'" in text
    assert "--otel-diag-inconclusive='maybe'" in text


@pytest.mark.parametrize("collect_only", [(), ("--collect-only",)])
def test_a_bad_option_without_a_header_is_two_lines(pytester, monkeypatch, collect_only) -> None:
    monkeypatch.setenv("OTEL_DIAG_SEED", "abc")
    pytester.makepyfile("def test_uses(diagnosis): ...")
    result = pytester.runpytest("-q", *collect_only)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: otel-diag options:", "  OTEL_DIAG_SEED='abc': must be a whole number"]
    )
    assert "Traceback" not in result.stdout.str() and "test_uses" not in result.stdout.str()


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("repaly:x", "no target 'repaly'"),
        ("replay:/nowhere/at/all", "/nowhere/at/all"),
        ("replay:", "replay:PATH"),
    ],
)
def test_a_bad_target_is_a_readable_error(pytester, diag, target, sentence) -> None:
    pytester.makepyfile(RECORDED)
    result = diag(target=target)
    assert result.ret != 0
    text = result.stderr.str() + result.stdout.str()
    assert sentence in text
    assert "INTERNALERROR" not in text


def test_a_bad_analyzer_is_a_readable_error(pytester, diag) -> None:
    pytester.makepyfile(RECORDED)
    result = diag("-k", "incident-back", analyzer="my_analyzers:slowr")
    text = result.stderr.str() + result.stdout.str()
    assert text.count("did you mean 'slower'?") == 1
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_header_names_settings_with_their_source(pytester, diag, monkeypatch) -> None:
    monkeypatch.setenv("OTEL_DIAG_SEED", "7")
    loops = "asyncio_default_fixture_loop_scope = function"
    pytester.makeini(f"[pytest]\n{loops}\notel_diag_reports = elsewhere\n")
    pytester.makepyfile("def test_nothing(): ...")
    result = diag()
    result.stdout.fnmatch_lines(
        ["otel-diag: target=replay:*(command line:*seed=7 (environment: OTEL_DIAG_SEED)*"]
    )
    result.stdout.fnmatch_lines(["*reports=elsewhere (ini: otel_diag_reports)*"])


def test_html_rows_carry_the_verdict(pytester, diag) -> None:
    pytester.makepyfile(RECORDED)
    diag("-k", "incident-back", "--html=page.html", "--self-contained-html")
    page = (pytester.path / "page.html").read_text()
    assert "<th>Root cause named</th>" in page
    assert "root cause ranked 1" in page


@pytest.mark.parametrize("body", ["import nothing_there", RECORDED], ids=["module", "target"])
def test_html_does_not_hide_an_error_of_collection(pytester, diag, body) -> None:
    pytester.makepyfile(body)
    result = diag("--html=page.html", "--self-contained-html", target="replay:nowhere")
    text = result.stdout.str() + result.stderr.str()
    assert "INTERNALERROR" not in text
    assert "nothing_there" in text or "nowhere is not a folder" in text


def test_an_interrupted_test_undoes_its_fault_and_keeps_what_ended(pytester, diag) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.otel_flag("incident-back")
        def test_first(diagnosis): ...

        @pytest.mark.otel_flag("incident-middle")
        def test_second(diagnosis):
            raise KeyboardInterrupt
        """
    )
    result = diag(own=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    kept = sessions(pytester)
    assert [s["scenario"]["id"] for s in kept] == ["incident-back", "incident-middle"]
    assert all(s["cleanup"]["restored"] for s in kept)
    assert json.loads((only_run(pytester) / "run.json").read_text())["ended_at_ns"]


def test_a_dying_xdist_worker_loses_only_its_test(pytester, diag) -> None:
    pytester.makepyfile(
        """
        import os
        import pytest

        @pytest.mark.otel_flag("incident-back")
        def test_first(diagnosis): ...

        @pytest.mark.otel_flag("incident-middle")
        def test_second(diagnosis):
            os._exit(3)
        """
    )
    result = diag("-n", "1")
    assert result.ret != 0
    kept = [(s["scenario"]["id"], s["status"]) for s in sessions(pytester)]
    assert kept == [("incident-back", "scored"), ("incident-middle", "scored")], "ended before the worker did"


def test_a_session_that_dies_with_its_worker_is_kept_as_an_error(pytester, diag) -> None:
    pytester.makepyfile(RECORDED)
    result = diag("-n", "2", "-k", "incident-back", "--otel-diag-gate", analyzer="my_analyzers:die")
    assert result.ret == 1
    (session,) = sessions(pytester)
    assert (session["status"], session["blame"]) == ("error", "infrastructure")
    assert "worker process died" in session["reason"]
    assert session["test_id"].endswith("test_incident[incident-back]")


def test_a_session_that_takes_too_long_is_cancelled_and_undone(pytester, diag, monkeypatch) -> None:
    limit_s = deadline_s(1.5)
    monkeypatch.setenv("SESSION_TIMEOUT_MINUTES", str(limit_s / 60))
    pytester.makepyfile(RECORDED)
    result = diag("-k", "incident-back", analyzer="my_analyzers:hang")
    result.assert_outcomes(errors=1, deselected=result.parseoutcomes()["deselected"])
    (session,) = sessions(pytester)
    assert session["status"] == "error"
    assert session["cleanup"]["restored"] is True
    result.stdout.fnmatch_lines([f"*session_timeout_s={limit_s} (environment: SESSION_TIMEOUT_MINUTES)*"])


def test_mistakes_stop_a_parallel_run_too(pytester, diag) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.otel_flag("incident-bak")
        def test_misspelt(diagnosis): ...

        @pytest.mark.otel_flag("incident-back")
        def test_fine(diagnosis): ...
        """
    )
    result = diag("-n", "2")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*mistake in markers*did you mean 'incident-back'?*"])
    assert "INTERNALERROR" not in result.stdout.str()
    assert not (pytester.path / "reports").exists()


def test_a_bad_target_in_a_parallel_run_is_readable(pytester, diag) -> None:
    pytester.makepyfile(RECORDED)
    result = diag("-n", "2", target="replay:nowhere")
    assert result.ret != 0
    assert "INTERNALERROR" not in result.stdout.str()
    result.stdout.fnmatch_lines(["*nowhere is not a folder*"])


def test_fixtures_of_the_same_name_in_a_project_are_left_alone(pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def diagnose():
            return 42

        @pytest.fixture
        def diagnosis(diagnose):
            return diagnose

        def test_own(diagnose, diagnosis):
            assert diagnosis == 42
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_using_an_answer_before_it_is_awaited_names_the_remedy(pytester, diag) -> None:
    pytester.makepyfile(
        """
        def test_forgotten(diagnose):
            diagnose(["incident-back"]).assert_detected()
        """
    )
    result = diag()
    result.stdout.fnmatch_lines(
        ["*'assert_detected' belongs to the answer*await it, or call .result() first*"]
    )


def test_telemetry_without_a_scenario_names_the_marker_to_add(pytester, diag) -> None:
    pytester.makepyfile(
        """
        def test_bare(otel_telemetry):
            otel_telemetry.now().result()
        """
    )
    diag().stdout.fnmatch_lines(
        ["*opens for a scenario: the test names no scenario; mark it with otel_flag*"]
    )


def test_reports_that_cannot_be_written_are_refused_before_anything_runs(pytester, diag) -> None:
    pytester.makepyfile(RECORDED)
    (pytester.path / "taken").write_text("a file")
    result = diag("--otel-diag-reports=taken")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stderr.str() + result.stdout.str()
    assert "no reports can be written to" in text
    assert "change --otel-diag-reports=taken" in text
    assert "INTERNALERROR" not in text


@pytest.mark.parametrize("options", [("--otel-diag-reports=taken/below",), ()])
def test_reports_are_checked_for_the_default_target_too(pytester, options) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.otel_flag("cartFailure")
        def test_it(diagnosis): ...
        """)
    for name in ("taken", "reports"):
        (pytester.path / name).write_text("a file")
    result = pytester.runpytest("-q", *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if "otel-diag" in line and "ERROR" in line]
    assert "is not a folder; change --otel-diag-reports=" in line


def test_a_run_without_sessions_creates_no_folder_for_reports(pytester, diag) -> None:
    pytester.makepyfile("def test_nothing(): ...")
    assert diag("--otel-diag-reports=some/where").ret == 0
    assert not (pytester.path / "some").exists()


def test_the_factory_takes_scenarios_and_rejects_unknown_ones(pytester, diag) -> None:
    pytester.makepyfile(
        """
        import pytest
        from pytest_otel_diag.errors import ScenarioError
        from pytest_otel_diag.model.scenario import Expectation, ExpectedRootCause, Fault, Scenario

        def test_scenarios(diagnose):
            by_id = diagnose(scenario="incident-back").result()
            whole = diagnose(scenario=by_id.result.scenario).result()
            assert whole.named("back", top=1)
            other = Expectation(root_causes=(ExpectedRootCause(service="front"),))
            judged = diagnose([Fault(flag="incident-back")], expectation=other).result()
            assert judged.verdict.service_rank == 3

        @pytest.mark.parametrize(
            ("arguments", "sentence"),
            [
                ({"faults": "incident-back"}, "pass a list"),
                ({"faults": ["incident-bak"]}, "did you mean 'incident-back'"),
                ({"scenario": "incident-bak"}, "did you mean 'incident-back'"),
                ({}, "several controls"),
            ],
        )
        def test_mistakes(diagnose, arguments, sentence):
            with pytest.raises(ScenarioError, match=sentence):
                diagnose(**arguments)
        """
    )
    diag().assert_outcomes(passed=5)
    assert len(sessions(pytester)) == 3


def test_a_session_that_is_not_scored_raises_in_the_factory(pytester, diag) -> None:
    pytester.makepyfile(
        """
        import pytest
        from pytest_otel_diag.scoring.assertions import SessionNotScored

        def test_crash(diagnose):
            with pytest.raises(SessionNotScored, match="no idea"):
                diagnose(["incident-back"], analyzer="my_analyzers:crash").result()
            with pytest.raises(pytest.UsageError, match="nosuch"):
                diagnose(["incident-back"], analyzer="nosuch")
        """
    )
    diag().assert_outcomes(passed=1)
