"""``recording.json``: what a recording holds, where it comes from, and what the right answers are."""

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
_Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Source(Model):
    """Where the telemetry comes from and under which licence it may be used."""

    title: str
    citation: str = ""
    licence: str = ""
    importer: str = ""


class RecordedFile(Model):
    """One Parquet file: rows in order of time, in the columns of an exporter table.

    ``columns`` maps column name to Arrow type; ``start_ns`` and ``end_ns`` are the first and the
    last timestamp (both inclusive).
    """

    name: str
    table: str
    rows: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    columns: Mapping[str, str]
    start_ns: Nanos
    end_ns: Nanos


class QuietPolicy(Model):
    """How quiet windows and controls were cut; kept so that a reader can judge and repeat it.

    ``fault_s`` bounds how long a fault whose end is not recorded lasts, ``settle_s`` how long the
    system takes to be itself again. A run of telemetry breaks where nothing is seen for ``gap_s``;
    quiet pieces under ``min_quiet_s`` hold too little to compare with. ``baseline_s`` is the longest
    baseline of a session, ``reference_span_s`` how far away in time a reference window may lie
    (None: anywhere). Controls are between ``control_min_s`` and ``control_max_s`` long.
    """

    fault_s: _Seconds = 180.0
    settle_s: _Seconds = 60.0
    gap_s: _Seconds = 20.0
    min_quiet_s: _Seconds = 10.0
    baseline_s: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    reference_span_s: float | None = Field(default=43_200.0, gt=0, allow_inf_nan=False)
    control_min_s: float = Field(default=15.0, gt=0, allow_inf_nan=False)
    control_max_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)


class Incident(Model):
    """One recorded fault with its ground truth. Nothing of it may reach an analyzer.

    ``start_ns`` is the labelled start, right to ±``label_uncertainty_s``: no control comes that close.
    ``guard_s`` is the time before it in which baselines and reference windows have ended; it may be
    shorter, since a median over many windows bears a few that are not quite quiet. ``end_ns`` is None
    where the source does not say when the fault ended. ``telemetry_from_ns`` to ``telemetry_to_ns``
    bounds the telemetry that belongs to the incident: a session observes until ``telemetry_to_ns``,
    from the start of the fault or, where the source has nothing of its first moments, from
    ``telemetry_from_ns``.

    ``baseline`` and ``reference`` are set where the incident is a captured session: then they are what
    that session compared with, and a replay compares with the same. None leaves them to the policy.
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
            raise ValueError(f"incident {self.id!r} has the variant 'off', which is no fault")
        if self.end_ns is not None and self.end_ns < self.start_ns:
            raise ValueError(f"incident {self.id!r} ends at {iso(self.end_ns)}, before it starts")
        return self

    @property
    def onset_ns(self) -> Nanos:
        """The last instant that is certainly before the fault."""
        return self.start_ns - seconds_to_ns(self.guard_s)

    def disturbed(self, policy: QuietPolicy, *, strict: bool = False) -> Window:
        """Return the time that the fault may colour: from its onset until the system has settled.

        *strict* counts from the earliest instant that the label allows.
        """
        end = self.end_ns if self.end_ns is not None else self.start_ns + seconds_to_ns(policy.fault_s)
        earliest = self.start_ns - seconds_to_ns(self.label_uncertainty_s)
        return Window(
            start_ns=min(self.onset_ns, earliest) if strict else self.onset_ns,
            end_ns=max(end, self.telemetry_to_ns) + seconds_to_ns(policy.settle_s),
        )


class ControlWindow(Model):
    """A quiet stretch that is judged like an incident; the right answer is that nothing is wrong.

    ``baseline`` and ``reference`` as those of an :class:`Incident`.
    """

    id: str = Field(min_length=1)
    system: str = Field(min_length=1)
    window: Window
    baseline: Window | None = None
    reference: tuple[Window, ...] | None = None


class CapturedSession(Model):
    """What was known of a session when it was captured. Nothing of it may reach an analyzer.

    ``id`` names its incident or control. ``scenario`` is what was run, with its expectation; the
    timeline tells how its flags were served, ``telemetry`` is all that was kept (reference, baseline,
    incident, recovery). ``leaks`` counts rows that tell which flag was on, by kind; with ``redacted``
    they were taken out. Instants are moved with the telemetry when a recording is shifted.
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


class Manifest(Model):
    """All that ``recording.json`` says. Times are UTC nanoseconds; ``end_ns`` is exclusive."""

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

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [incident.id for incident in self.incidents] + [control.id for control in self.controls]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"ids are used twice: {', '.join(twice)}; each incident and control needs its own"
            )
        files = [file.name for file in self.files]
        if len(set(files)) != len(files):
            raise ValueError(f"a file is listed twice among {', '.join(files)}")
        return self
