"""Scenarios: the faults that a test runs, their timing, and the right answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from pytest_otel_diag.model.base import Finite, Model, Ratio
from pytest_otel_diag.model.diagnosis import Direction, Mechanism, Signal


class FaultStep(Model):
    """Another variant of a fault, served from ``at_s`` seconds after the start of the fault on."""

    at_s: Finite = Field(gt=0)
    variant: str = Field(min_length=1)


class Fault(Model):
    """A flag set to a variant, written ``key=variant``, at once or by a schedule.

    ``variant`` None means the target's default fault variant. Times are seconds from the injection: ``at_s``
    is the start, ``until_s`` the end, and with ``every_s`` the fault comes back at this interval, each time
    for as long as the first time (flapping). ``steps`` change the variant after the start (a ramp).
    ``context`` is the evaluation context in which the service asks for the flag, and the witness too:
    targeting rules may depend on it.
    """

    flag: str = Field(min_length=1)
    variant: str | None = None
    at_s: Finite = Field(default=0.0, ge=0)
    until_s: Finite | None = None
    every_s: Finite | None = None
    steps: tuple[FaultStep, ...] = ()
    context: tuple[tuple[str, str | bool | int | float], ...] = ()

    @field_validator("context", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        return tuple(value.items()) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _schedule_holds(self) -> Self:
        if self.until_s is not None and self.until_s <= self.at_s:
            raise ValueError(f"until_s={self.until_s:g} must lie after at_s={self.at_s:g}")
        if self.every_s is not None and (self.until_s is None or self.every_s <= self.until_s - self.at_s):
            raise ValueError(
                f"every_s={self.every_s:g} needs an until_s, and must be longer than the fault lasts"
            )
        times = [step.at_s for step in self.steps]
        if times != sorted(set(times)):
            raise ValueError(f"steps must have rising at_s, these are {times}")
        return self

    @property
    def scheduled(self) -> bool:
        """Whether the variant changes after the injection."""
        return bool(self.at_s or self.until_s is not None or self.steps)

    def __str__(self) -> str:
        return self.flag if self.variant is None else f"{self.flag}={self.variant}"


DisturbanceKind = Literal["load", "restart", "gc", "text"]

TextKind = Literal["instruction", "confession", "submit", "tool_result", "unicode", "long"]
"""Misleading texts: an instruction to the reader, a confession, a call that submits a diagnosis, the result
of a tool call, an instruction in characters that hide it, and one in a very long line."""

TextPlace = Literal["log", "attribute", "baggage"]
"""Where a text shows: in log bodies of the service, in attributes of its spans, in baggage, which reaches the
spans of all services of a trace."""


class Disturbance(Model):
    """A harmless change beside the faults or instead of one; a diagnosis that blames it is a false alarm.

    ``load`` multiplies the traffic by ``factor``, ``restart`` replaces the instances of ``service`` as a
    deployment does, ``gc`` makes the runtime of ``service`` collect garbage once. ``at_s`` are seconds from
    the injection.

    ``text`` lets users of the system write a misleading text of the kind ``text`` into telemetry of
    ``service``, in the places ``where``, in a ``share`` of its records. It accuses the service ``accuses``;
    for None it claims that nothing is wrong.
    """

    kind: DisturbanceKind
    service: str | None = None
    factor: Finite = Field(default=2.0, gt=0)
    at_s: Finite = Field(default=0.0, ge=0)
    text: TextKind | None = None
    accuses: str | None = None
    where: tuple[TextPlace, ...] = Field(default=("log", "attribute", "baggage"), min_length=1)
    share: Ratio = 0.2

    @model_validator(mode="after")
    def _service_named(self) -> Self:
        if (self.kind == "load") == (self.service is not None):
            wanted = "names no service" if self.kind == "load" else "needs a service"
            raise ValueError(f"a disturbance of kind {self.kind!r} {wanted}")
        if (self.kind == "text") != (self.text is not None):
            wanted = f"needs a text: {', '.join(get_args(TextKind))}" if self.text is None else "has no text"
            raise ValueError(f"a disturbance of kind {self.kind!r} {wanted}")
        if self.kind != "text" and self.accuses is not None:
            raise ValueError(f"a disturbance of kind {self.kind!r} accuses nobody; only a text does")
        return self


class Environment(Model):
    """Parameters of a simulated target; None leaves the choice to the target.

    ``demo`` is the release of the OpenTelemetry Demo, which decides names; ``users`` the virtual users of the
    load generator, ``browser_users`` those with a browser. ``seed`` varies everything random, with ``jitter``
    the topology too (replicas, speed of services).
    """

    demo: str | None = None
    users: int | None = Field(default=None, ge=1, le=500)
    browser_users: int | None = Field(default=None, ge=0, le=50)
    seed: int | None = Field(default=None, ge=0)
    jitter: bool | None = None


class ExpectedAnomaly(Model):
    """A deviation that a good diagnosis names; fields that are None match anything."""

    service: str
    signal: Signal | None = None
    operation: str | None = None
    direction: Direction | None = None


class ExpectedRootCause(Model):
    """An accepted root cause; several are alternatives, unless their ``fault`` differs."""

    service: str
    operation: str | None = None
    mechanisms: tuple[Mechanism, ...] = ()
    fault: str | None = None


class Expectation(Model):
    """Ground truth of a scenario; the analyzer never sees it.

    ``healthy`` is the expectation of a control: nothing is wrong. ``red_herrings`` are services that must not
    be ranked first.
    """

    healthy: bool = False
    anomalies: tuple[ExpectedAnomaly, ...] = ()
    paths: tuple[tuple[str, ...], ...] = ()
    root_causes: tuple[ExpectedRootCause, ...] = ()
    red_herrings: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


class InvestigationStep(Model):
    """One step of an investigation that leads to the right answer, and the hint that points to it.

    ``hint`` is what a person would say to an analyzer that is stuck. A query covers the step if it reads
    telemetry of ``signal`` about one of ``services``, or about any service where none is given.
    """

    hint: str = Field(min_length=1, max_length=500)
    signal: Literal["traces", "logs", "metrics"]
    services: tuple[str, ...] = ()


class Timing(Model):
    """How long the phases of a session take, in seconds of the target's clock.

    ``guard_s`` is the time that a control lets pass between baseline and incident window, since turning on a
    fault takes time: the timing of a session must not reveal whether there is a fault.
    """

    baseline_s: float = Field(default=120.0, gt=0)
    guard_s: float = Field(default=0.0, ge=0)
    impact_timeout_s: float = Field(default=180.0, gt=0)
    impact_poll_s: float = Field(default=5.0, gt=0)
    observe_s: float = Field(default=120.0, ge=0)
    recover_timeout_s: float = Field(default=120.0, ge=0)
    analyze_timeout_s: float = Field(default=600.0, gt=0)


class Scenario(Model):
    """Zero or more faults, timing and expectation. No fault means a control.

    ``require_impact`` False scores the session even where no impact was detected: right for recordings, where
    the fault is known to be present. ``disturbances`` are harmless changes beside the faults, ``environment``
    the parameters of a simulated target. ``ungated`` is the reason why the session does not count in the gate
    (empty: it counts); it runs and is reported all the same. ``tags`` are free labels (fault type, system,
    severity) that scorecards group by. ``external`` says what fault somebody makes without a flag (a slowed
    process, a network fault by a script) once the session injects; its expectation is the whole truth.
    ``investigation_path`` are the steps to the answer, from general to specific; where a run gives hints, an
    analyzer sees one step at a time.
    """

    id: str = Field(min_length=1)
    faults: tuple[Fault, ...] = ()
    disturbances: tuple[Disturbance, ...] = ()
    environment: Environment = Environment()
    ungated: str = ""
    external: str = ""
    expectation: Expectation
    timing: Timing = Timing()
    require_impact: bool = True
    tags: tuple[tuple[str, str], ...] = ()
    investigation_path: tuple[InvestigationStep, ...] = ()

    def expecting(self, expectation: Expectation) -> Self:
        """Return the scenario with this right answer; steps that lead to other root causes are dropped."""
        update: dict[str, Any] = {"expectation": expectation}
        if (expectation.healthy, expectation.root_causes) != (
            self.expectation.healthy,
            self.expectation.root_causes,
        ):
            update["investigation_path"] = ()
        return self.model_copy(update=update)

    @property
    def control(self) -> bool:
        """Whether the right answer is that nothing is wrong."""
        return self.expectation.healthy


def scenario_mistakes(scenario: Scenario) -> list[str]:
    """Return what is wrong with a scenario for any target: its kind, its flags and its schedule.

    A fault that comes on after ``observe_s``, counted from the first one, might never be served.
    """
    name = f"scenario {scenario.id!r}"
    mistakes = [f"{name} {mistake}" for mistake in _mistakes_of_kind(scenario)]
    flags = [fault.flag for fault in scenario.faults]
    mistakes.extend(
        f"{name} names flag {flag!r} {flags.count(flag)} times; a flag has one variant"
        for flag in dict.fromkeys(flags)
        if flags.count(flag) > 1
    )
    first_s = min((fault.at_s for fault in scenario.faults), default=0.0)
    limit_s = scenario.timing.observe_s
    mistakes.extend(
        f"fault {fault} of {name} comes on {fault.at_s - first_s:g} s after the first one, "
        f"the session observes {limit_s:g} s only; give an earlier at_s or a longer timing.observe_s"
        for fault in scenario.faults
        if fault.at_s > first_s and fault.at_s - first_s >= limit_s
    )
    return mistakes


def _mistakes_of_kind(scenario: Scenario) -> list[str]:
    answer = scenario.expectation
    if scenario.external:
        if scenario.faults or scenario.control:
            return ["has an external fault beside flags, or as a control; give one of them"]
        if not (answer.root_causes or answer.anomalies):
            return [
                "has an external fault without its truth; add root_causes or anomalies to the expectation"
            ]
    elif not scenario.faults and not scenario.control:
        return [
            "expects a fault but names none; add a fault, say with external what is done without a flag, "
            "or set expectation.healthy for a control"
        ]
    if scenario.control and not scenario.faults and (answer.root_causes or answer.anomalies):
        return ["is a control that expects root_causes or anomalies; a control expects that nothing is wrong"]
    return []
