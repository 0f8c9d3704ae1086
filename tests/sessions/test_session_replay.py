"""Sessions over a real store: recorded incidents of the sample system, replayed from Parquet."""

from __future__ import annotations

import asyncio
import datetime
import json

import pytest

from pytest_otel_diag.errors import QueryRejected
from pytest_otel_diag.model.diagnosis import Diagnosis, DiagnosticQuery, RootCause
from pytest_otel_diag.model.session import ImpactReason, Phase, SessionWindows, Status
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.scoring.judge import judge
from pytest_otel_diag.sessions import SessionEngine, SessionPlan, as_analyzer
from pytest_otel_diag.sessions.exhibits.facts import service_windows, services_in
from pytest_otel_diag.targets.replay.target import ReplayTarget
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.testing.telemetry_contract import START_NS, span, traces_table
from tests.recordings.sample_cases import write_sample_cases

EMPTY = Window(start_ns=7, end_ns=7)
SLOWEST = """
SELECT ServiceName AS service, quantileExact(0.5)(Duration) AS median_ns
FROM otel_traces
WHERE Timestamp >= fromUnixTimestamp64Nano({start_ns:Int64})
  AND Timestamp < fromUnixTimestamp64Nano({end_ns:Int64})
GROUP BY service
ORDER BY median_ns DESC
"""


@pytest.fixture(scope="session")
def target(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sessions")
    target = ReplayTarget(
        [write_sample_cases(folder / "sample")], store_dsn="chdb://memory", cache_dir=folder / "cache"
    )
    yield target
    target.close()


async def run(target, item, analyzer):
    plan = SessionPlan(scenario=item, session_id=item.id, run_id="run")
    return await SessionEngine(target, as_analyzer(analyzer), judge).run(plan)


def incident(target, kind):
    return next(item for item in target.scenarios() if item.id.endswith(kind))


async def test_an_incident_without_telemetry_after_its_start_is_not_scored(tmp_path):
    folder = write_sample_cases(tmp_path / "late")
    cases = json.loads((folder / "cases.json").read_text())
    for case in cases:  # local time taken for UTC
        at = datetime.datetime.fromisoformat(case["inject_time"]) + datetime.timedelta(hours=8)
        case["inject_time"] = at.isoformat()
    (folder / "cases.json").write_text(json.dumps(cases))
    late = ReplayTarget([folder], store_dsn="chdb://memory", cache_dir=tmp_path / "cache")
    try:
        faulty = next(item for item in late.scenarios() if not item.control)
        result = await run(late, faulty, names_cart)
    finally:
        late.close()
    assert result.status is Status.INVALID
    assert "no telemetry is newer than the start of the incident" in result.reason


async def names_cart(investigation):
    window = {"start_ns": investigation.incident.start_ns, "end_ns": investigation.incident.end_ns}
    table = await investigation.telemetry.query(SLOWEST, window)
    assert set(table.column("service")) == {"frontend", "cart", "db"}
    return Diagnosis(
        detected=True,
        root_causes=(RootCause(service="cart"),),
        query=DiagnosticQuery(sql="SELECT ServiceName, count() FROM otel_traces GROUP BY ServiceName"),
    )


async def test_a_recorded_incident_is_diagnosed_and_judged(target):
    result = await run(target, incident(target, "network_delay"), names_cart)

    assert (result.status, result.reason) == (Status.SCORED, "")
    assert result.verdict is not None and result.verdict.top1
    assert result.verdict.query is not None and result.verdict.query.executed
    assert result.impact is not None and result.impact.reason is ImpactReason.VISIBLE
    assert (result.impact.service, result.impact.signal) == ("frontend", "latency")
    assert [(query.rows, query.data_sources) for query in result.queries] == [(3, ("traces",))]
    assert result.cleanup is not None and result.cleanup.verified
    assert result.windows.baseline is not None and result.windows.reference
    assert [record.phase for record in result.phases] == list(Phase)


async def test_a_recorded_control_has_nothing_to_find(target):
    control = next(item for item in target.scenarios() if item.control)

    result = await run(target, control, lambda _: Diagnosis(detected=False))

    assert result.status is Status.SCORED
    assert result.verdict is not None and not result.verdict.fault_present


async def test_sessions_side_by_side_keep_apart(target):
    items = [incident(target, "network_delay"), incident(target, "exception")]

    async def windows(investigation):
        latest = await investigation.telemetry.latest()
        assert investigation.incident.start_ns < latest <= investigation.clock.now()
        return {"detected": True}

    results = await asyncio.gather(*(run(target, item, windows) for item in items))

    assert [result.reason for result in results] == ["", ""]
    assert results[0].windows.incident != results[1].windows.incident


async def test_an_analyzer_may_only_read(target):
    async def vandal(investigation):
        with pytest.raises(QueryRejected):
            await investigation.telemetry.query("DROP TABLE otel_traces")
        return {"detected": False}

    result = await run(target, incident(target, "exception"), vandal)

    assert result.status is Status.SCORED
    assert result.queries[0].error is not None and result.queries[0].error.startswith("QueryRejected")


async def test_a_service_that_vanished_is_known_from_the_quiet_windows(target):
    services = {}

    async def listening(diagnosis, scenario, facts):
        windows = service_windows(facts.windows)
        own = windows[-1]
        assert windows[:-1] == facts.windows.reference
        for name, asked in (("all", windows), ("own", (own,)), ("none", ()), ("empty", (EMPTY,))):
            services[name] = await services_in(facts.telemetry, asked)
        services["facts"] = facts.known_services
        return Verdict(fault_present=True, detected=diagnosis.detected)

    plan = SessionPlan(scenario=incident(target, "network_delay"), session_id="s", run_id="run")
    result = await SessionEngine(target, as_analyzer(names_cart), listening).run(plan)

    assert result.status is Status.SCORED
    assert services["facts"] == services["all"] and set(services["own"]) <= set(services["all"])
    assert {"cart", "db", "frontend"} <= set(services["facts"])
    assert (services["none"], services["empty"]) == ((), ())


def test_windows_for_services_are_what_the_session_knows():
    quiet, incident_ = Window(start_ns=0, end_ns=5), Window(start_ns=30, end_ns=40)
    windows = SessionWindows(reference=(quiet,), incident=incident_)
    assert service_windows(windows) == (quiet, incident_)
    both = windows.model_copy(update={"baseline": Window(start_ns=10, end_ns=20)})
    assert service_windows(both) == (quiet, Window(start_ns=10, end_ns=40))
    assert service_windows(SessionWindows(reference=(quiet,))) == (quiet,)


async def test_services_are_found_in_each_window_and_not_beside_them():
    def at(second):
        return START_NS + second * 1_000_000_000

    with Store.open("chdb://memory") as store:
        store.create_database("vanished")
        traces = [span(name, name, service=name, at_s=at_s) for name, at_s in (("gone", 5), ("foreign", 50))]
        store.ingest_arrow("vanished", "otel_traces", traces_table([*traces, span("s", "s", at_s=95)]))
        telemetry = store.telemetry("vanished")
        quiet, own = Window(start_ns=at(0), end_ns=at(10)), Window(start_ns=at(90), end_ns=at(100))
        assert await services_in(telemetry, (quiet, own)) == ("front", "gone")
        assert await services_in(telemetry, (own,)) == ("front",)
        store.drop_database("vanished")
