"""Code as users write it, for type checkers alone: ``test_public_api.py`` runs mypy and pyright over it."""

from collections.abc import Mapping, Sequence
from typing import TypeVar, assert_type

import pytest

import pytest_otel_diag
from pytest_otel_diag import (
    Analyzer,
    Anomaly,
    CallEdge,
    CallEdges,
    CriticalPath,
    Diagnose,
    DiagnosedSession,
    Diagnosis,
    DiagnosisMissed,
    DiagnosticQuery,
    Evidence,
    Expectation,
    ExpectedRootCause,
    Fault,
    Flag,
    FlagAccess,
    FlagChange,
    FlagController,
    FlagDocument,
    Hypothesis,
    Investigation,
    Latest,
    LogCount,
    LogCounts,
    LogKind,
    LogKinds,
    Mechanism,
    MetricLevel,
    MetricLevels,
    OperationHealth,
    OperationHealthOf,
    OtelDiagError,
    PathEdge,
    PathMetrics,
    QueryLimits,
    Question,
    RootCause,
    Runner,
    Scenario,
    ScenarioRejected,
    SecretText,
    ServedFlag,
    ServiceHealth,
    ServiceHealthOf,
    SessionEvent,
    SessionNotScored,
    SessionResult,
    Settings,
    Signal,
    Status,
    Table,
    TableExporter,
    Target,
    TargetSession,
    Telemetry,
    TelemetryAccess,
    TelemetrySchema,
    Timing,
    Usage,
    Verdict,
    Window,
    report_waiting,
)

T = TypeVar("T")

assert_type(pytest_otel_diag.__version__, str)


class SlowestService:
    """An analyzer is anything with this method; it inherits from nothing."""

    async def diagnose(self, investigation: Investigation) -> Diagnosis:
        incident = investigation.incident
        assert_type(incident, Window)
        assert_type(investigation.baseline, Window | None)
        table = await investigation.telemetry.query("SELECT 1", {"start": incident.start_ns})
        assert_type(table, Table)
        health = await investigation.telemetry.service_health(incident, bucket_s=10)
        assert_type(health, Sequence[ServiceHealth])
        return Diagnosis(
            detected=True,
            root_causes=(RootCause(service="payment", mechanism=Mechanism.ERROR, confidence=0.9),),
            anomalies=(Anomaly(service="payment", signal=Signal.ERROR_RATE, direction="up"),),
            critical_paths=(
                CriticalPath(
                    id="p1",
                    name="checkout",
                    services=("frontend", "payment"),
                    startService="frontend",
                    endService="payment",
                    edges=(PathEdge(source="frontend", target="payment"),),
                    metrics=PathMetrics(requestCount=1, avgLatency=1.0, errorRate=0.0, p99Latency=1.0),
                    priority="high",
                    severity=0.5,
                ),
            ),
            hypotheses=(Hypothesis(statement="the network is slow", status="eliminated", reason="no"),),
            query=DiagnosticQuery(sql="SELECT 1"),
            usage=Usage(prompts=1, cost_usd=0.01),
            confidence=0.9,
        )


analyzer: Analyzer = SlowestService()


@pytest.mark.otel_flag("paymentFailure", variant="50%")
def test_a_marked_scenario(diagnosis: DiagnosedSession) -> None:
    diagnosis.assert_detected()
    diagnosis.assert_root_cause("payment", operation="Charge", mechanism="error", top=1)
    diagnosis.assert_anomaly(service="payment", signal=Signal.ERROR_RATE, direction="up")
    assert_type(diagnosis.verdict, Verdict)
    assert_type(diagnosis.result, SessionResult)
    assert_type(diagnosis.status, Status)
    evidence: tuple[Evidence, ...] = diagnosis.root_causes[0].evidence
    assert not evidence


async def test_a_session_on_demand(
    diagnose: Diagnose, otel_flags: FlagAccess, otel_telemetry: TelemetryAccess
) -> None:
    scenario = Scenario(
        id="checkout-loses-payment",
        faults=(Fault(flag="paymentUnreachable", variant="on"),),
        expectation=Expectation(root_causes=(ExpectedRootCause(service="checkout"),)),
        timing=Timing(observe_s=60),
    )
    try:
        answer = await diagnose(scenario=scenario)
    except (SessionNotScored, DiagnosisMissed, OtelDiagError):
        raise
    assert_type(answer, DiagnosedSession)
    assert_type(diagnose(["adFailure"]).result(), DiagnosedSession)
    await otel_flags.set("adFailure", "on")
    assert_type(await otel_telemetry.query("SELECT 1"), Table)


async def run_without_pytest(scenario: Scenario) -> SessionResult:
    def show(event: SessionEvent) -> None:
        if event.kind == "session_ended":
            assert_type(event.status, Status)

    with Runner(
        Settings(target="shop", seed=7, store=SecretText("chdb://memory")), analyzers={"mine": analyzer}
    ) as runner:
        try:
            prepared = runner.prepare(scenario)
        except ScenarioRejected as rejected:
            assert_type(rejected.mistakes, tuple[str, ...])
            raise
        return await runner.run(prepared, emit=show, analyzer="mine")


def describe(target: Target) -> Mapping[str, str]:
    return target.describe()


class MyFlags:
    """A flag controller is anything with these methods."""

    def __init__(self) -> None:
        self.variant = "off"

    async def document(self) -> FlagDocument:
        flag = Flag(key="adFailure", variants={"off": False, "on": True}, default_variant=self.variant)
        return FlagDocument(raw=b"{}", flags={flag.key: flag})

    async def apply(self, change: FlagChange) -> None:
        self.variant = change.variant

    async def restore(self, document: FlagDocument) -> None:
        self.variant = document.flags["adFailure"].default_variant

    async def served(self, key: str, context: Mapping[str, object]) -> ServedFlag:
        report_waiting("the first read of a flag takes long")
        return ServedFlag(key=key, variant=self.variant, value=self.variant == "on", at_ns=0)


flags: FlagController = MyFlags()


class MyTelemetry(Telemetry):
    """Telemetry of a target provides three methods and inherits the named questions."""

    async def query(
        self, sql: str, parameters: Mapping[str, object] | None = None, limits: QueryLimits | None = None
    ) -> Table:
        raise NotImplementedError

    async def schema(self) -> TelemetrySchema:
        raise NotImplementedError

    async def ask(self, question: Question[T]) -> T:
        raise NotImplementedError


async def ask_everything(session: TargetSession, window: Window) -> TableExporter | None:
    telemetry = session.telemetry
    assert_type(await telemetry.ask(Latest()), int | None)
    assert_type(await telemetry.ask(ServiceHealthOf(window, 10)), Sequence[ServiceHealth])
    assert_type(await telemetry.ask(CallEdges(window)), Sequence[CallEdge])
    assert_type(await telemetry.ask(OperationHealthOf(window, 10, ("ad",))), Sequence[OperationHealth])
    assert_type(await telemetry.ask(MetricLevels(window, 10, ("ad",))), Sequence[MetricLevel])
    assert_type(await telemetry.ask(LogCounts(window, 10, ("ad",))), Sequence[LogCount])
    assert_type(await telemetry.ask(LogKinds(window, 10, ("ad",))), Sequence[LogKind])
    return None if session.exporter is None else await session.exporter()
