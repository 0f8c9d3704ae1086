"""Events of whole runs: recorded by every process while it runs, followed by other processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_otel_diag.model.events import PhaseEnded, SessionEnded, SessionEvent, SessionStarted
from pytest_otel_diag.model.session import Phase
from pytest_otel_diag.runs.directory import has_ended
from pytest_otel_diag.runs.events import read_events
from pytest_otel_diag.runs.tracker import Follower

SUITE = """
    import pytest

    @pytest.mark.otel_recorded("incidents")
    def test_incident(diagnosis): ...
"""


def only_run(pytester: pytest.Pytester) -> Path:
    (folder,) = (pytester.path / "reports").iterdir()
    return folder


def of_kind(events: list[SessionEvent], kind: type[SessionEvent]) -> list[SessionEvent]:
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["plain", "xdist"])
def test_every_session_of_a_run_has_its_events(pytester, diag, workers) -> None:
    pytester.makepyfile(SUITE)
    diag(*workers).assert_outcomes(passed=2)
    folder = only_run(pytester)
    events = read_events(folder)
    kept = [json.loads(line) for line in (folder / "sessions.jsonl").read_text().splitlines()]
    assert {event.session_id for event in events} == {session["session_id"] for session in kept}
    assert len(of_kind(events, SessionStarted)) == len(of_kind(events, SessionEnded)) == 2
    for session in kept:
        own = [event for event in events if event.session_id == session["session_id"]]
        assert isinstance(own[0], SessionStarted) and isinstance(own[-1], SessionEnded)
        assert own[0].test_id == session["test_id"]
        phases = [event.record.phase.value for event in of_kind(own, PhaseEnded)]
        assert phases == [record["phase"] for record in session["phases"]]
    assert has_ended(folder)


def test_a_session_that_dies_with_its_worker_ends_in_the_events(pytester, diag) -> None:
    pytester.makepyfile(SUITE)
    diag("-n", "1", "-k", "incident-back", analyzer="my_analyzers:die")
    events = read_events(only_run(pytester))
    (started,) = of_kind(events, SessionStarted)
    (ended,) = of_kind(events, SessionEnded)
    assert ended.session_id == started.session_id
    assert "the worker process died in this test" in ended.reason


def test_another_process_follows_the_sessions_of_workers(pytester, diag) -> None:
    """The analyzer reads the events of the run that it is part of."""
    pytester.makepyfile(
        reader="""
        from pathlib import Path
        from pytest_otel_diag.model.diagnosis import Diagnosis
        from pytest_otel_diag.runs.tracker import Follower

        async def diagnose(investigation):
            (folder,) = Path("reports").iterdir()
            (flight,) = Follower(folder.resolve()).refresh().flights()
            Path("seen").write_text(f"{flight.phase.value} of {flight.started.scenario_id}")
            return Diagnosis(detected=False)
        """
    )
    pytester.makepyfile(SUITE)
    diag("-n", "1", "-k", "incident-back", analyzer="reader:diagnose")
    assert (pytester.path / "seen").read_text() == f"{Phase.INVESTIGATE.value} of incident-back"
    (state,) = Follower(only_run(pytester)).refresh().ended()
    assert state.series, "the samples of services"


def test_other_plugins_get_each_ended_session(pytester, diag) -> None:
    pytester.makeconftest(
        """
        def pytest_otel_diag_session_finish(config, session):
            folder, = (config.rootpath / "reports").iterdir()
            print("FINISHED", session.scenario.id, session.status.value, (folder / "sessions.jsonl").exists())
        """
    )
    pytester.makepyfile(SUITE)
    result = diag("-s", "-k", "incident-back")
    result.stdout.fnmatch_lines(["*FINISHED incident-back scored True"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--otel-diag-analyser=x"],
            "unrecognized arguments: --otel-diag-analyser=x (did you mean '--otel-diag-analyzer'?)",
        ),
        (
            ["--otel-diag-stroe=clickhouse://me:secret@host"],
            "unrecognized arguments: --otel-diag-stroe=clickhouse://***@host (did you mean",
        ),
        (
            ["--otel-diag-target=shp"],
            "no target 'shp' in 'shp' (did you mean 'shop'?); choose from live, replay, shop",
        ),
        (
            ["--otel-diag-target=shop", "--otel-diag-analyzer=bultin"],
            "no analyzer 'bultin' (did you mean 'builtin'?)",
        ),
    ],
)
def test_misspelt_names_are_reported_before_any_test_is_collected(pytester, arguments, sentence) -> None:
    pytester.makepyfile("raise AssertionError('this module was imported')")
    result = pytester.runpytest_inprocess("-p", "no:asyncio", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stderr.str() + result.stdout.str()
    assert sentence in text
    assert "was imported" not in text
