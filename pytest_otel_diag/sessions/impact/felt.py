"""Whether services got a fault that flagd serves: a flag client with a stale cache or a lost stream does not.

Asked once, at the end of a wait without an impact. Two findings say that the fault was served and not felt:

* services evaluated the flag since the fault began, and never to the variant of the fault;
* enough calls look like the baseline, and no service is seen to have got the variant. Without any evaluation
  in telemetry this is a guess from behaviour, made only where services can be restarted: a simulation and a
  recording have no clients that could be stale.

A service that did evaluate the flag to the variant felt it: then the fault has no effect, and a restart would
change nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pytest_otel_diag.errors import FlagError, TelemetryError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import FlagValue, ServedFlag
from pytest_otel_diag.model.scenario import Fault
from pytest_otel_diag.model.session import Impact, ImpactReason
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.sessions.context import SessionContext
from pytest_otel_diag.statements import load

_TABLE, _COLUMNS = "otel_traces", ("ServiceName", "Timestamp", "SpanAttributes", "Events.Attributes")
_CLIENT = "its flag client probably serves a cached value or has lost its stream from flagd"


@dataclass(frozen=True)
class Evaluations:
    """What services got for one flag, by service: variants and values since the fault began.

    ``before`` are the services that evaluated the flag earlier.
    """

    since: Mapping[str, frozenset[str]] = field(default_factory=dict)
    before: frozenset[str] = frozenset()


async def whether_felt(
    context: SessionContext, impact: Impact, causes: Collection[str], since_ns: Nanos
) -> Impact:
    """Return the *impact*, with the reason NOT_FELT where a fault that is served did not reach its service.

    *causes* are the expected root causes, *since_ns* is the start of the first fault.
    """
    if impact.reason not in (ImpactReason.NO_EFFECT, ImpactReason.TOO_RARE):
        return impact
    system, baseline = context.system, context.log.windows.baseline
    around = Window(start_ns=baseline.start_ns if baseline else since_ns, end_ns=max(context.now(), since_ns))
    for fault in context.scenario.faults:
        try:
            served = await system.flags.served(fault.flag, dict(fault.context))
        except FlagError:
            continue
        found = await evaluations_of(system.telemetry, fault.flag, around, since_ns)
        verdict = judged(impact, fault, served, found, causes=causes, restartable=system.restart is not None)
        if verdict.reason is ImpactReason.NOT_FELT:
            return verdict
    return impact


async def evaluations_of(telemetry: Telemetry, flag: str, around: Window, since_ns: Nanos) -> Evaluations:
    """Return the evaluations of the flag in the window; none where telemetry cannot answer."""
    wanted = {"flag": flag, "start_ns": around.start_ns, "since_ns": since_ns, "end_ns": around.end_ns}
    try:
        schema = await telemetry.schema()
        if not schema.has(_TABLE, *_COLUMNS):
            return Evaluations()
        answer = await telemetry.query(load(__package__, "flag_evaluations").sql, wanted)
    except TelemetryError:
        return Evaluations()
    since: dict[str, frozenset[str]] = {}
    before = set()
    for row in answer.dicts():
        if row["late"]:
            got = frozenset({row["variant"], row["value"]} - {""})
            since[row["service"]] = since.get(row["service"], frozenset()) | got
        else:
            before.add(row["service"])
    return Evaluations(since, frozenset(before))


def judged(
    impact: Impact,
    fault: Fault,
    served: ServedFlag,
    found: Evaluations,
    *,
    causes: Collection[str],
    restartable: bool,
) -> Impact:
    """Return the *impact*, with the reason NOT_FELT where the fault was served and no service got it.

    *served* is what flagd serves now; some clients record its value in place of the variant. *causes* are the
    expected root causes, *restartable* says that services run which can be restarted.
    """
    variants = (served.variant, fault.variant or "", *(step.variant for step in fault.steps))
    wanted = {_text(served.value), *(variant.casefold() for variant in variants)}
    felt = {service for service, got in found.since.items() if wanted & {one.casefold() for one in got}}
    stale = {service: got for service, got in found.since.items() if service not in felt and got}
    named = sorted(stale.keys() & set(causes)) or ([] if felt else sorted(stale))
    if named:
        service = named[0]
        got = ", ".join(sorted(stale[service]))
        why = f"{service} still evaluates {fault.flag} to {got}"
    elif found.since or impact.reason is not ImpactReason.NO_EFFECT or not (restartable or found.before):
        return impact
    else:
        service = next(iter(sorted(found.before & set(causes)) or sorted(found.before)), impact.service or "")
        seen = "since then" if found.before else "in telemetry"
        why = f"no evaluation of it is seen {seen}, and {impact.detail}"
    if not service:
        return impact
    remedy = f"{_CLIENT}; restart {service} and run the session again"
    detail = f"{fault.flag}={served.variant} is served, but {why}; {remedy}"
    return impact.model_copy(update={"reason": ImpactReason.NOT_FELT, "service": service, "detail": detail})


def _text(value: FlagValue) -> str:
    """Return a value as clients write it into an attribute."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).casefold()
