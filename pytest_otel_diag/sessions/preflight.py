"""Checks before anything is touched: analyzer, flags, disturbances, signals, faults of other clients."""

from __future__ import annotations

from pytest_otel_diag.errors import ScenarioError
from pytest_otel_diag.model.diagnosis import Signal
from pytest_otel_diag.model.session import Blame, Status
from pytest_otel_diag.model.telemetry import TelemetrySchema
from pytest_otel_diag.ports import Analyzer, PreparedAnalyzer
from pytest_otel_diag.sessions.context import SessionContext
from pytest_otel_diag.sessions.ending import SessionStopped
from pytest_otel_diag.sessions.faults.external_changes import foreign_faults, refuse_foreign
from pytest_otel_diag.sessions.faults.injection import resolve_faults
from pytest_otel_diag.sessions.faults.not_served import disabled
from pytest_otel_diag.sessions.faults.schedule import schedule_of
from pytest_otel_diag.sessions.faults.scheduler import FaultScheduler, refuse_not_served
from pytest_otel_diag.sessions.faults.witness import FlagWitness, contexts_of
from pytest_otel_diag.sessions.log import SessionLog
from pytest_otel_diag.sessions.settings import EngineSettings

_NEEDS: dict[Signal, tuple[str, ...]] = {
    Signal.LOGS: ("logs",),
    **dict.fromkeys((Signal.CPU, Signal.MEMORY, Signal.GC, Signal.METRIC), ("metrics",)),
}
"""Expected signal → what the store must hold for it beside traces."""


async def prepare_faults(context: SessionContext) -> FaultScheduler:
    """Return the scheduler of the session's faults, once everything that they need was checked.

    Raises ScenarioError for unknown names, SessionStopped for a flag that cannot be served, a fault that is
    already on and signals that the store lacks, FlagError and TelemetryError where these cannot be read.
    """
    system, scenario = context.system, context.scenario
    _check_redaction(context)
    document = await system.flags.document()
    changes = resolve_faults(scenario.faults, document)
    _check_disturbances(context)
    flags = [document.flags[change.key] for change in changes]
    if off := [disabled(flag) for flag in flags if not flag.enabled]:
        raise refuse_not_served(context.log, "; ".join(off))
    witness = FlagWitness(system, context.settings, contexts_of(scenario.faults))
    refuse_foreign(await foreign_faults(witness, document))
    _check_signals(context, await system.telemetry.schema())
    found = await witness.variants(change.key for change in changes)
    return FaultScheduler(context, schedule_of(scenario, changes, found), witness, document, found)


async def prepare_analyzer(analyzer: Analyzer, log: SessionLog, settings: EngineSettings) -> None:
    """Let the analyzer check what it depends on; raises what :meth:`PreparedAnalyzer.prepare` raises."""
    if settings.affordable is not None:
        settings.affordable()
    if isinstance(analyzer, PreparedAnalyzer):
        for remark in await analyzer.prepare():
            log.note(remark)


def _check_redaction(context: SessionContext) -> None:
    if context.settings.leaks == "redact" and not context.system.redacted:
        raise ScenarioError(
            "--otel-diag-leaks=redact: this target cannot hide evaluations of flags in its telemetry; "
            "use keep or refuse, or redact a recording with: otel-diag recordings shift --redact"
        )


def _check_disturbances(context: SessionContext) -> None:
    scenario = context.scenario
    if scenario.disturbances and context.system.disturb is None:
        kinds = ", ".join(sorted({one.kind for one in scenario.disturbances}))
        raise ScenarioError(
            f"scenario {scenario.id!r} has disturbances ({kinds}), which this target cannot make; "
            "take them out or use a target that can"
        )


def _check_signals(context: SessionContext, schema: TelemetrySchema) -> None:
    present = schema.signals()
    wanted = {one.signal for one in context.scenario.expectation.anomalies if one.signal is not None}
    missing = sorted({name for signal in wanted for name in _NEEDS.get(signal, ()) if name not in present})
    if not present:
        raise SessionStopped(
            Status.ERROR,
            f"preflight: no telemetry tables in database {schema.database!r}; point the target at the "
            "database the collector's ClickHouse exporter writes to",
            Blame.INFRASTRUCTURE,
        )
    if missing:
        raise SessionStopped(
            Status.ERROR,
            f"preflight: the scenario expects anomalies in {', '.join(missing)}, the store has "
            f"{', '.join(present)} only; export the missing signals or drop the expectation",
            Blame.INFRASTRUCTURE,
        )
