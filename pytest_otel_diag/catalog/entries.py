"""The content of a catalog file: releases, services and flags of a system, as frozen values.

Entries name services by their newest name; ``Catalog`` translates them to the names of a release.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from pytest_otel_diag.model.base import Finite, Model, Ratio
from pytest_otel_diag.model.diagnosis import Direction, Mechanism, Signal
from pytest_otel_diag.model.flags import FlagScalar
from pytest_otel_diag.model.scenario import InvestigationStep

Category = Literal["service_failure", "performance", "system_level"]
Severity = Literal["low", "medium", "high", "critical"]
Kind = Literal["fault", "load", "inert"]
"""A fault; a change of load that an operator may want; a flag that does nothing as shipped."""

SourceClass = Literal["read in source", "measured by third party", "inferred", "stated upstream"]
"""Where a fact comes from: ``inferred`` follows from source code, ``stated upstream`` comes without code."""

Text = Annotated[str, Field(min_length=1)]
Releases = Annotated[str, Field(pattern=r"^\S+?(\.\.\S*)?$")]
"""One release (``2.2``), a range with both ends (``1.9..1.12``) or an open one (``2.1..``)."""


class Release(Model):
    """A release of the system, with the flags and names that it has."""

    demo: Text
    released: str = ""
    known: Literal["complete", "partial"] = "complete"
    load_generator: str = ""
    note: str = ""
    source: SourceClass = "read in source"


class FormerName(Model):
    """The name of a service in some releases."""

    releases: Releases
    name: Text


class ServiceEntry(Model):
    """A service: its newest name, former names, language and runtime.

    ``spans=False`` marks infrastructure that appears in spans of others but sends none itself.
    """

    name: Text
    language: Text
    runtime: str = ""
    releases: Releases = ".."
    formerly: tuple[FormerName, ...] = ()
    aliases: tuple[str, ...] = ()
    spans: bool = True
    note: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All names, the newest first."""
        return tuple(dict.fromkeys((self.name, *self.aliases, *(former.name for former in self.formerly))))


class AnomalyEntry(Model):
    """An expected deviation, and why the code causes it."""

    service: Text
    signal: Signal
    operation: str | None = None
    direction: Direction
    why: Text


class RootCauseEntry(Model):
    """An accepted culprit; several are alternatives."""

    service: Text
    operation: str | None = None
    mechanisms: tuple[Mechanism, ...] = Field(min_length=1)
    why: Text


class RedHerringEntry(Model):
    """A service that must not be named first, and why."""

    service: Text
    why: Text


class ExpectationEntry(Model):
    """The right answer, with reasons from the code. ``healthy`` means that nothing is wrong.

    Hints of ``investigation_path`` write services as ``{payment}``, by their newest name.
    """

    healthy: bool = False
    anomalies: tuple[AnomalyEntry, ...] = ()
    paths: tuple[Annotated[tuple[str, ...], Field(min_length=1)], ...] = ()
    root_causes: tuple[RootCauseEntry, ...] = ()
    red_herrings: tuple[RedHerringEntry, ...] = ()
    investigation_path: tuple[InvestigationStep, ...] = ()


class Traffic(Model):
    """Requests that trigger the fault.

    ``per_minute`` counts them at 5 users; ``share`` is the part of them that shows the fault, ``variant``
    where the variant's value says so. ``services`` are called when traffic is driven on purpose. ``users``
    overrides the number of users of a scenario, with the reason in ``why``.
    """

    requests: Text
    services: tuple[str, ...] = ()
    per_minute: Finite = Field(ge=0)
    share: Ratio | Literal["variant"] = 1.0
    users: int | None = Field(default=None, ge=1, le=500)
    browser: bool = False
    why: str = ""
    source: SourceClass


class Visibility(Model):
    """When and where the fault shows once it is served; ``seconds`` is typical at 5 users."""

    signals: tuple[Literal["traces", "metrics", "logs"], ...] = Field(min_length=1)
    seconds: Finite = Field(ge=0)
    shows: Text
    source: SourceClass


class Cleanup(Model):
    """The residual effect once the flag is off and its remedy; ``restart`` is the service to restart."""

    residue: Text
    reset: Text
    restart: str | None = None
    source: SourceClass


class VariantNote(Model):
    """A remark on one variant; ``ungated`` is the reason why a session with it should not count."""

    variant: Text
    why: Text
    ungated: str = ""
    seconds: Finite | None = Field(default=None, ge=0)


class Period(Model):
    """The flag in some releases.

    ``context`` is the evaluation context in which a rule of ``targeting`` gives the switched variant.
    ``inert`` and ``broken`` say why the flag has no effect, or another one than it claims, in these releases.
    ``expectation`` replaces the flag's own where the code behaves differently.
    """

    releases: Releases
    name: Text
    variants: Mapping[str, FlagScalar] = Field(min_length=2)
    default: str = "off"
    suggested: str | None = None
    targeting: Mapping[str, Any] | None = None
    context: Mapping[str, FlagScalar] = Field(default_factory=dict)
    inert: str = ""
    broken: str = ""
    expectation: ExpectationEntry | None = None
    note: str = ""
    source: SourceClass = "read in source"


class Diagnosable(Model):
    """Whether telemetry allows the right answer, with reasons from the code."""

    answer: bool = True
    why: Text


class FlagEntry(Model):
    """A flag over all releases; ``key`` is its newest name.

    ``observe_s`` is how long a scenario observes once the fault is visible, in seconds.
    """

    key: Text
    does: Text
    kind: Kind = "fault"
    category: Category
    severity: Severity
    suggested: str
    aliases: tuple[str, ...] = ()
    implemented_by: tuple[str, ...] = Field(min_length=1)
    shown_by: tuple[str, ...] = ()
    absent: str = ""
    periods: tuple[Period, ...] = Field(min_length=1)
    behaviour: Text
    source: SourceClass
    traffic: Traffic
    visibility: Visibility
    cleanup: Cleanup | None = None
    variants: tuple[VariantNote, ...] = ()
    diagnosable: Diagnosable
    expectation: ExpectationEntry
    observe_s: float = Field(default=180.0, gt=0)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, the newest first, without aliases."""
        return tuple(dict.fromkeys((self.key, *(period.name for period in reversed(self.periods)))))


class CatalogFile(Model):
    """One file; every section is optional. Without a ``system`` it belongs to the shipped one."""

    system: str = ""
    releases: tuple[Release, ...] = ()
    services: tuple[ServiceEntry, ...] = ()
    flags: tuple[FlagEntry, ...] = ()
