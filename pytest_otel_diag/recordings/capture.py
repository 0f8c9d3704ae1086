"""Records the telemetry of sessions so that a replay gives the same verdict.

Each session becomes a separate recording in a subfolder of the capture's folder, since sessions may come from
several processes and simulated ones may overlap in time. A replay names the parent folder. A recording holds
the session's reference, baseline, incident and recovery with their windows, so that a replay compares the
same windows. A folder appears by one rename; a killed process leaves a hidden folder, which readers ignore.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_otel_diag.errors import RecordingError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.scenario import Fault
from pytest_otel_diag.model.session import Blame, SessionResult, Status
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window
from pytest_otel_diag.ports import TableExporter, TargetSession
from pytest_otel_diag.recordings.format.layout import BY_TABLE, FileLayout
from pytest_otel_diag.recordings.format.manifest import (
    CapturedSession,
    ControlWindow,
    Incident,
    QuietPolicy,
    RecordingManifest,
    SignalName,
    Source,
)
from pytest_otel_diag.recordings.format.writer import write_recording
from pytest_otel_diag.recordings.leaks import Leaks
from pytest_otel_diag.recordings.time_shift import Shift, note_of, shifted_batch, shifted_manifest, step_to
from pytest_otel_diag.telemetry.views import merged

IMPORTER = "capture/1"
_UNSAFE = re.compile(r"[^\w.-]+")
_SIGNALS: Mapping[str, SignalName] = {"otel_traces": "traces", "otel_logs": "logs"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """The outcome of one session: its recording, or the reason why it was not recorded."""

    session_id: str
    folder: Path | None = None
    manifest: RecordingManifest | None = None
    reason: str = ""


@dataclass
class Capture:
    """A hook of the engine that records sessions below *directory*.

    A session without a witnessed fault or with an external one is no ground truth and is not recorded;
    ``kept`` has the reason. Call it while the target is still open. Concurrent sessions may share it.
    """

    directory: Path
    shift: Shift | None = None
    redact: bool = False
    kept: list[Kept] = field(default_factory=list)

    async def __call__(self, session: TargetSession, result: SessionResult) -> None:
        """Record one session; raises RecordingError or TelemetryError when it cannot be written."""
        reason = unfit(session, result)
        if reason:
            _log.warning("session %s is not recorded: %s", result.session_id, reason)
            self.kept.append(Kept(result.session_id, reason=reason))
            return
        name = f"{result.scenario.id}-{result.session_id[:8]}"
        folder = self.directory / _UNSAFE.sub("-", name).replace("--", "-")
        manifest = await self.record(session, result, folder)
        self.kept.append(Kept(result.session_id, folder, manifest))

    async def record(self, session: TargetSession, result: SessionResult, folder: Path) -> RecordingManifest:
        """Record a session with a baseline, an incident and an exporter in *folder*, whatever its status."""
        assert session.exporter is not None
        described = describe(result, until_ns=session.clock.now())
        exporter = await session.exporter()
        cancelled = threading.Event()
        try:
            return await asyncio.to_thread(self._write, folder, described, exporter, cancelled)
        finally:
            cancelled.set()  # the thread of a cancelled session must stop reading the closed target

    def _write(
        self, folder: Path, described: RecordingManifest, exporter: TableExporter, cancelled: threading.Event
    ) -> RecordingManifest:
        captured = described.captured[0]
        step_ns = step_to(described.start_ns, self.shift.wanted_ns) if self.shift else 0
        leaks = Leaks([fault.flag for fault in captured.scenario.faults])
        work = _RecordingStream(exporter, captured.telemetry, leaks, self.redact, step_ns, cancelled)
        there = [table for table in BY_TABLE if table in exporter.tables()]

        def finish(manifest: RecordingManifest) -> RecordingManifest:
            known = captured.model_copy(update={"leaks": leaks.counts, "redacted": self.redact})
            update: dict[str, Any] = {"captured": (known,)}
            if manifest.incidents:
                signals = tuple(dict.fromkeys(work.signals))
                update["incidents"] = (manifest.incidents[0].model_copy(update={"signals": signals}),)
            if self.shift:
                update["notes"] = (*manifest.notes, note_of(step_ns, secret=self.shift.secret))
            return shifted_manifest(manifest.model_copy(update=update), step_ns)

        tables = {table: work.stream(BY_TABLE[table]) for table in there}
        return write_recording(folder, described, tables, finish=finish)


@dataclass
class _RecordingStream:
    """Reads, counts, redacts and shifts the batches of one recording."""

    exporter: TableExporter
    windows: tuple[Window, ...]
    leaks: Leaks
    redact: bool
    step_ns: int
    cancelled: threading.Event
    signals: list[SignalName] = field(default_factory=list)

    def stream(self, layout: FileLayout) -> Iterator[Any]:
        """Yield the batches of one table in the form that is written."""
        columns = [*layout.required, *layout.optional]
        for read in self.exporter.batches(layout.table, columns, self.windows):
            if self.cancelled.is_set():
                raise RecordingError("the session was cancelled during its recording")
            self.leaks.count(read)
            batch = self.leaks.redacted(read) if self.redact else read
            if batch.num_rows:
                self.signals.append(_SIGNALS.get(layout.table, "metrics"))
                yield shifted_batch(batch, self.step_ns)


def unfit(session: TargetSession, result: SessionResult) -> str:
    """Return why a session cannot serve as ground truth, empty when it can."""
    analyzer_failed = result.status is Status.ERROR and result.blame is Blame.ANALYZER
    if result.status is not Status.SCORED and not analyzer_failed:
        return f"{result.status.value}: {result.reason}"
    if result.windows.incident is None or result.windows.baseline is None:
        return "it has no baseline, or ended before its incident was observed"
    if session.exporter is None:
        return f"the target {result.target} cannot be recorded (a replay is a recording already)"
    return ""


def describe(result: SessionResult, *, until_ns: Nanos) -> RecordingManifest:
    """Return the manifest, without files, of a session that ended at *until_ns*."""
    windows, scenario = result.windows, result.scenario
    baseline, incident = windows.baseline, windows.incident
    assert baseline is not None
    assert incident is not None
    name = f"{scenario.id}-{result.session_id[:8]}"
    own = Window(start_ns=baseline.start_ns, end_ns=max(until_ns, incident.end_ns))
    kept = merged((*windows.reference, own))
    demo = result.provenance.get("demo", "")
    system = f"otel-demo-{demo}" if demo else result.target
    captured = CapturedSession(
        id=name,
        session_id=result.session_id,
        target=result.target,
        scenario=scenario,
        windows=windows,
        telemetry=kept,
        flag_timeline=result.flag_timeline,
        disturbances=result.disturbances,
        witnesses=result.witnesses,
        impact=result.impact,
        recovered=result.cleanup.recovered if result.cleanup else None,
        provenance=dict(result.provenance),
    )
    control = ControlWindow(
        id=name, system=system, window=incident, baseline=baseline, reference=windows.reference
    )
    return RecordingManifest(
        id=name,
        title=f"{scenario.id} in {system}",
        source=Source(title=_source(result.target, demo), importer=IMPORTER),
        systems=(system,),
        start_ns=kept[0].start_ns,
        end_ns=own.end_ns,
        policy=_policy(baseline),
        quiet=merged((*windows.reference, baseline)),
        controls=(control,) if scenario.control else (),
        incidents=() if scenario.control else (_incident(result, name, system),),
        captured=(captured,),
    )


def _source(target: str, demo: str) -> str:
    release = f" {demo}" if demo else ""
    return f"OpenTelemetry Demo{release}, captured from the target {target}"


def _policy(baseline: Window) -> QuietPolicy:
    """Return a policy without margins: the session defines its quiet windows and observed the recovery."""
    return QuietPolicy(
        fault_s=0.0, settle_s=0.0, min_quiet_s=0.0, baseline_s=baseline.duration_s, reference_span_s=None
    )


def _incident(result: SessionResult, name: str, system: str) -> Incident:
    windows, scenario = result.windows, result.scenario
    baseline, window = windows.baseline, windows.incident
    assert baseline is not None
    assert window is not None
    faults = tuple(_served(fault, result) for fault in scenario.faults)
    keys = {fault.flag for fault in faults}
    # an incident has one flag with a variant other than "off"; several faults, or a load that is switched
    # off, are combined into one
    plain = len(faults) == 1 and faults[0].variant not in {None, "off"}
    flag = faults[0].flag if plain else "+".join(str(fault) for fault in faults)
    expected = scenario.expectation
    return Incident(
        id=name,
        system=system,
        service=_root_cause_service(result),
        flag=flag or "none",
        variant=str(faults[0].variant) if plain else "on",
        fault_type="+".join(fault.flag for fault in faults) or "external",
        label=", ".join(str(fault) for fault in faults) or scenario.external,
        start_ns=window.start_ns,
        end_ns=_undone_ns(result, keys, window),
        guard_s=max(0, window.start_ns - baseline.end_ns) / NANOS_PER_SECOND,
        telemetry_from_ns=window.start_ns,
        telemetry_to_ns=window.end_ns,
        baseline=baseline,
        reference=windows.reference,
        tags=scenario.tags,
        expectation=expected.model_copy(update={"flags": tuple(sorted({*expected.flags, *keys}))}),
    )


def _served(fault: Fault, result: SessionResult) -> Fault:
    """Return the fault with the variant that was witnessed as served."""
    proven = [w.variant for w in result.witnesses if w.flag == fault.flag and w.confirmed]
    return (
        fault if fault.variant is not None or not proven else fault.model_copy(update={"variant": proven[0]})
    )


def _root_cause_service(result: SessionResult) -> str:
    expected = result.scenario.expectation
    named = [*(cause.service for cause in expected.root_causes), *(a.service for a in expected.anomalies)]
    return named[0] if named else "unknown"


def _undone_ns(result: SessionResult, keys: set[str], window: Window) -> Nanos | None:
    """Return when the first of the flags was witnessed as undone, None if that was not observed."""
    back = [m.at_ns for m in result.flag_timeline if m.flag in keys and m.at_ns >= window.end_ns]
    return min(back, default=None)
