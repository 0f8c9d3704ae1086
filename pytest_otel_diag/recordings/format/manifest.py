"""``recording.json``: the content of a recording, its source, and the ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from pytest_otel_diag.model.base import Model, Nanos
from pytest_otel_diag.model.scenario import Expectation, Scenario
from pytest_otel_diag.model.session import DisturbanceMoment, FlagMoment, Impact, SessionWindows, Witness
from pytest_otel_diag.model.windows import Window, iso, seconds_to_ns

SCHEMA_VERSION: Final = 1
"""Version of the format written by this package."""

MANIFEST = "recording.json"
"""Name of the manifest in the folder of a recording."""

SignalName = Literal["traces", "logs", "metrics"]
_LONGEST_S = 1e9
_Seconds = Annotated[float, Field(ge=0.0, le=_LONGEST_S, allow_inf_nan=False)]


class Source(Model):
    """The source of the telemetry and its licence."""

    title: str
    citation: str = ""
    licence: str = ""
    importer: str = ""


class RecordedFile(Model):
    """One Parquet file: rows in order of time with the columns of an exporter table.

    ``columns`` maps column names to Arrow types; ``start_ns`` and ``end_ns`` are the first and last
    timestamp, both inclusive.
    """

    name: str
    table: str
    rows: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    columns: Mapping[str, str]
    start_ns: Nanos
    end_ns: Nanos


class QuietPolicy(Model):
    """The parameters by which quiet windows and controls were cut.

    ``fault_s`` is the longest duration of a fault without a recorded end, ``settle_s`` the time that the
    system needs to recover. Windows of telemetry are split at gaps of ``gap_s``; quiet windows under
    ``min_quiet_s`` are dropped. ``baseline_s`` is the longest baseline of a session, ``reference_span_s`` the
    largest distance of a reference window (None: unlimited). Controls last from ``control_min_s`` to
    ``control_max_s``.
    """

    fault_s: _Seconds = 180.0
    settle_s: _Seconds = 60.0
    gap_s: _Seconds = 20.0
    min_quiet_s: _Seconds = 10.0
    baseline_s: float = Field(default=120.0, gt=0, le=_LONGEST_S)
    reference_span_s: float | None = Field(default=43_200.0, gt=0, le=_LONGEST_S)
    control_min_s: float = Field(default=15.0, gt=0, le=_LONGEST_S)
    control_max_s: float = Field(default=60.0, gt=0, le=_LONGEST_S)


class Incident(Model):
    """One recorded fault with its ground truth. Analyzers must not see any of it.

    ``start_ns`` is the labelled start, accurate to ±``label_uncertainty_s``; controls keep that distance.
    Baselines and reference windows end ``guard_s`` before the start; this may be shorter, since a median over
    many windows tolerates a few that are not quite quiet. ``end_ns`` is None if the source does not state the
    end of the fault. The telemetry of the incident is from ``telemetry_from_ns`` to ``telemetry_to_ns``: a
    session observes from the start of the fault, or from ``telemetry_from_ns`` if the source lacks the first
    moments, to ``telemetry_to_ns``.

    For a captured session, ``baseline`` and ``reference`` are the windows that it compared with, and a replay
    uses the same. None lets the policy choose them.
    """

    id: str = Field(min_length=1)
    system: str = Field(min_length=1)
    service: str = Field(min_length=1)
    instance: str | None = None
    flag: str = Field(min_length=1)
    variant: str = "on"
    fault_type: str = ""
    label: str = ""
    start_ns: Nanos
    end_ns: Nanos | None = None
    label_uncertainty_s: _Seconds = 0.0
    guard_s: _Seconds = 0.0
    telemetry_from_ns: Nanos
    telemetry_to_ns: Nanos
    baseline: Window | None = None
    reference: tuple[Window, ...] | None = None
    signals: tuple[SignalName, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    expectation: Expectation

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.telemetry_to_ns <= self.start_ns:
            raise ValueError(
                f"incident {self.id!r} starts at {iso(self.start_ns)} but its telemetry ends at "
                f"{iso(self.telemetry_to_ns)}; an incident needs telemetry after its start"
            )
        if self.variant == "off":
            raise ValueError(f"incident {self.id!r} has the variant 'off', which is not a fault")
        if self.end_ns is not None and self.end_ns < self.start_ns:
            raise ValueError(f"incident {self.id!r} ends at {iso(self.end_ns)}, before it starts")
        return self

    @property
    def onset_ns(self) -> Nanos:
        """The last instant that is certainly before the fault."""
        return self.start_ns - seconds_to_ns(self.guard_s)

    def disturbed(self, policy: QuietPolicy, *, strict: bool = False) -> Window:
        """Return the time that the fault may affect: from its onset until the system has settled.

        *strict* starts at the earliest instant within the uncertainty of the label.
        """
        end = self.end_ns if self.end_ns is not None else self.start_ns + seconds_to_ns(policy.fault_s)
        earliest = self.start_ns - seconds_to_ns(self.label_uncertainty_s)
        return Window(
            start_ns=min(self.onset_ns, earliest) if strict else self.onset_ns,
            end_ns=max(end, self.telemetry_to_ns) + seconds_to_ns(policy.settle_s),
        )


class ControlWindow(Model):
    """A quiet window that is judged like an incident; the right answer is that nothing is wrong.

    ``baseline`` and ``reference`` are as in :class:`Incident`.
    """

    id: str = Field(min_length=1)
    system: str = Field(min_length=1)
    window: Window
    baseline: Window | None = None
    reference: tuple[Window, ...] | None = None


class CapturedSession(Model):
    """The facts of a session at its capture. Analyzers must not see any of them.

    ``id`` is the id of its incident or control. ``scenario`` is the scenario with its expectation,
    ``flag_timeline`` how its flags were served, ``telemetry`` the recorded windows (reference, baseline,
    incident, recovery). ``leaks`` counts rows that reveal which flag was on, by kind; with ``redacted`` they
    were removed. A time shift applies to all instants.
    """

    id: str = Field(min_length=1)
    session_id: str
    target: str
    scenario: Scenario
    windows: SessionWindows
    telemetry: tuple[Window, ...]
    flag_timeline: tuple[FlagMoment, ...] = ()
    disturbances: tuple[DisturbanceMoment, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    impact: Impact | None = None
    recovered: bool | None = None
    provenance: Mapping[str, str] = Field(default_factory=dict)
    leaks: Mapping[str, int] = Field(default_factory=dict)
    redacted: bool = False


class RecordingManifest(Model):
    """The content of ``recording.json``. Times are UTC nanoseconds; ``end_ns`` is exclusive."""

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str = Field(min_length=1)
    title: str = ""
    source: Source
    systems: tuple[str, ...] = ()
    start_ns: Nanos
    end_ns: Nanos
    files: tuple[RecordedFile, ...] = ()
    policy: QuietPolicy = QuietPolicy()
    quiet: tuple[Window, ...] = ()
    controls: tuple[ControlWindow, ...] = ()
    incidents: tuple[Incident, ...] = ()
    captured: tuple[CapturedSession, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """The keys of the flags that were on, as far as the recording knows them."""
        captured = [fault.flag for one in self.captured for fault in one.scenario.faults]
        named = [flag for incident in self.incidents for flag in (incident.flag, *incident.expectation.flags)]
        return tuple(dict.fromkeys(flag for flag in [*captured, *named] if flag))

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [incident.id for incident in self.incidents] + [control.id for control in self.controls]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"ids are used twice: {', '.join(twice)}; each incident and control needs a unique id"
            )
        files = [file.name for file in self.files]
        if len(set(files)) != len(files):
            raise ValueError(f"a file is listed twice among {', '.join(files)}")
        return self
