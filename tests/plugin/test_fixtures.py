"""Values of the fixtures, and what stands in the way of a debugger."""

import sys

import pytest

from pytest_otel_diag.errors import ScenarioError
from pytest_otel_diag.model.diagnosis import Usage
from pytest_otel_diag.plugin.fixtures import properties
from pytest_otel_diag.plugin.scenarios import timed
from pytest_otel_diag.plugin.termination import ABORTED, Termination
from pytest_otel_diag.scoring.assertions import DiagnosedSession, DiagnosisMissed
from tests.scoring.samples import faulty, ranked


def test_a_debugger_stops_in_the_test_and_not_in_an_assertion() -> None:
    session = DiagnosedSession(ranked("a", 2))
    calls = [
        lambda: session.assert_root_cause("payment"),
        lambda: session.assert_anomaly(service="cart"),
        lambda: session.assert_path("cart", "payment"),
        lambda: session.assert_not_blamed("cart"),
        lambda: session.assert_query_shows("x"),
        session.assert_expected,
        session.assert_healthy,
    ]
    for call in calls:
        with pytest.raises(DiagnosisMissed) as raised:
            call()
        ours = [entry for entry in raised.traceback if "pytest_otel_diag" in str(entry.path)]
        assert ours
        assert all(entry.frame.f_locals.get("__tracebackhide__") for entry in ours)


def test_timing_of_a_call_takes_the_names_of_the_marker() -> None:
    changed = timed(faulty("a"), {"baseline_s": 60, "observe_s": 30.0}).timing
    assert (changed.baseline_s, changed.observe_s) == (60.0, 30.0)
    assert changed.impact_timeout_s == faulty("a").timing.impact_timeout_s
    with pytest.raises(ScenarioError, match=r"choose from baseline_s.*did you mean 'observe_s'"):
        timed(faulty("a"), {"observes": 1})
    with pytest.raises(ScenarioError, match="baseline_s='x': must be a number of seconds"):
        timed(faulty("a"), {"baseline_s": "x"})
    with pytest.raises(ScenarioError, match="baseline_s=0"):
        timed(faulty("a"), {"baseline_s": 0})


def test_times_and_usage_are_properties() -> None:
    session = ranked("a", 1, verdict={"time_to_impact_s": 12.0})
    used = Usage(input_tokens=700, output_tokens=50, cost_usd=0.25)
    session = session.model_copy(update={"diagnosis": session.diagnosis.model_copy(update={"usage": used})})
    shown = dict(properties(session))
    assert shown["otel_diag.time_to_root_cause_s"] == "13.5"
    assert (shown["otel_diag.tokens"], shown["otel_diag.cost_usd"]) == ("750", "0.25")


def test_another_interrupt_during_the_cleanup_ends_in_a_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    termination = Termination()
    termination.ending()
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == f"\n{ABORTED}\n"
    sys.excepthook(ValueError, ValueError("a bug"), None)
    assert "ValueError: a bug" in capsys.readouterr().err
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        termination.restore()
    assert sys.excepthook is not sys.__excepthook__, "the interrupt is about to end the process"
    termination.restore()
    assert sys.excepthook is sys.__excepthook__
