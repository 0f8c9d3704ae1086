"""What sessions are likely to cost, from the folder of earlier runs."""

from __future__ import annotations

import pytest

from pytest_otel_diag.model.diagnosis import Diagnosis, Usage
from pytest_otel_diag.model.session import Status
from pytest_otel_diag.model.transcript import TranscriptSummary
from pytest_otel_diag.runs.directory import RunWriter
from pytest_otel_diag.runs.forecast import forecast
from pytest_otel_diag.runs.manifest import AnalyzerIdentity, Manifest
from tests.scoring.samples import faulty, session


def earlier(reports, run_id, *costs, analyzer="llm:m", details=None, seconds=10.0):
    identity = AnalyzerIdentity(id=analyzer, details=details or {})
    manifest = Manifest(run_id=run_id, started_at_ns=1, analyzers=(identity,))
    with RunWriter.start(reports, manifest) as writer:
        for cost in costs:
            answer = Diagnosis(detected=True, usage=Usage(cost_usd=cost))
            one = session(faulty("a"), status="error", blame="analyzer", reason="x").model_copy(
                update={"analyzer": analyzer, "diagnosis": answer, "wall_s": seconds}
            )
            writer.append(one)
        lost = one.model_copy(
            update={
                "diagnosis": None,
                "status": Status.ERROR,
                "transcript": TranscriptSummary(entries=1, usage=Usage(cost_usd=0.6)),
            }
        )
        writer.append(lost)


def test_earlier_sessions_of_the_analyzer_tell_time_and_cost(tmp_path):
    earlier(tmp_path, "1", 0.1, 0.2)
    earlier(tmp_path, "2", 9.0, analyzer="other")
    earlier(tmp_path, "3", 5.0, details={"tape": "replayed from x"})

    found = forecast(tmp_path, "llm:m")

    assert found is not None and found.sessions == 3
    assert found.mean_usd == pytest.approx(0.3) and found.most_usd == 0.6
    assert found.described(12) == (
        "forecast for 12 sessions: 2 minutes one after another and 3.6 USD, as 3 earlier ones took and cost"
    )
    assert found.described() == (
        "forecast: 3 earlier sessions of this analyzer took 10 s and cost 0.3 USD each (at most 0.6)"
    )


def test_nothing_is_forecast_from_nothing_or_from_broken_runs(tmp_path):
    assert forecast(tmp_path / "none", "llm:m") is None
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "run.json").write_text("[]")
    (tmp_path / "1" / "sessions.jsonl").write_text('{"analyzer": "llm:m"}\nnonsense\n{"torn')
    assert forecast(tmp_path, "llm:m") is None
