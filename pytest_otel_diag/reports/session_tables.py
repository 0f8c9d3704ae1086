"""Tables of a session: injected and witnessed, expected and found, result of the query, phases."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.diagnosis import Usage
from pytest_otel_diag.model.scenario import Disturbance, Fault
from pytest_otel_diag.model.session import SessionResult, Witness
from pytest_otel_diag.model.verdict import Match, Verdict
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, iso
from pytest_otel_diag.reports.blocks import DASH, Block, Style
from pytest_otel_diag.scoring.names import ServiceNames
from pytest_otel_diag.scoring.text import count


def fault_start_ns(session: SessionResult) -> Nanos | None:
    """Return the start of the fault, or of the judged window in a control; None if it did not start."""
    if session.windows.incident is not None:
        return session.windows.incident.start_ns
    return max((witness.at_ns for witness in session.witnesses if witness.confirmed), default=None)


def injected(session: SessionResult) -> Block:
    """Return one row per fault or disturbance with its witness."""
    proofs = {witness.flag: witness for witness in session.witnesses}
    rows: list[tuple[str, ...]] = []
    styles: list[Style] = []
    for fault in session.scenario.faults:
        proof = proofs.get(fault.flag)
        rows.append((*_set(fault, proof), *_witnessed(proof)))
        styles.append("plain" if proof is None else "good" if proof.confirmed else "bad")
    made = {one.disturbance: one.at_ns for one in session.disturbances}
    for one in session.scenario.disturbances:
        seen = iso(made[one]) if one in made else "not made"
        rows.append(("harmless change", disturbed(one), _at(one.at_s), DASH, seen, ""))
        styles.append("plain")
    return Block(
        title="injected and witnessed",
        header=("flag", "variant", "when", "reads", "witnessed", "detail"),
        rows=tuple(rows),
        right=(3,),
        styles=tuple(styles),
    )


def _set(fault: Fault, proof: Witness | None) -> tuple[str, str, str]:
    variant = fault.variant or (proof.variant if proof else "the target's default fault")
    steps = ", ".join(f"{step.variant} from {step.at_s:g} s" for step in fault.steps)
    when = _at(fault.at_s)
    if fault.until_s is not None:
        when += f", until {fault.until_s:g} s"
    if fault.every_s is not None:
        when += f", again every {fault.every_s:g} s"
    return fault.flag, f"{variant}, then {steps}" if steps else variant, when


def _at(at_s: float) -> str:
    return f"after {at_s:g} s" if at_s else "at once"


def disturbed(one: Disturbance) -> str:
    """Return a short description of a harmless change."""
    if one.kind == "text":
        claim = f"accuses {one.accuses}" if one.accuses is not None else "says that nothing is wrong"
        return f"text ({one.text}) in {one.service} {claim}"
    return f"load × {one.factor:g}" if one.kind == "load" else f"{one.kind} of {one.service}"


def _witnessed(proof: Witness | None) -> tuple[str, str, str]:
    if proof is None:
        return DASH, "not reached", ""
    served = "served" if proof.confirmed else "NOT SERVED"
    return str(proof.reads), f"{served}, {iso(proof.at_ns)}", proof.detail


def expected_and_found(session: SessionResult) -> Block:
    """Return the comparison of diagnosis and expectation, without rows if there is no verdict."""
    verdict = session.verdict
    if verdict is None:
        return Block("expected and found", (), ())
    rows = [*_causes(session, verdict), *_findings(session, verdict)]
    return Block(
        title="expected and found",
        header=("what", "right", "expected", "found"),
        rows=tuple((what, _MARKS[style], expected, found) for what, expected, found, style in rows),
        styles=tuple(style for *_, style in rows),
    )


_Row = tuple[str, str, str, Style]
_MARKS: dict[Style, str] = {"good": "✓ yes", "bad": "✗ no", "warn": "! look", "plain": ""}


def attempts(session: SessionResult) -> Block:
    """Return one row per attempt for which the analyzer asked for a hint."""
    rows: list[tuple[str, str, str, str]] = []
    styles: list[Style] = []
    for attempt in session.attempts:
        judged = "not judged" if attempt.right is None else "right" if attempt.right else "wrong"
        said = attempt.cause or ("something is wrong" if attempt.detected else "no cause")
        rows.append((f"{attempt.elapsed_s:.1f} s", said, judged, attempt.hint))
        styles.append("plain" if attempt.right is None else _good(attempt.right))
    header = ("after", "first cause", "verdict", "hint")
    return Block(title="attempts", header=header, rows=tuple(rows), wrap=True, styles=tuple(styles))


def _good(right: bool) -> Style:
    return "good" if right else "bad"


def _causes(session: SessionResult, verdict: Verdict) -> list[_Row]:
    expected = session.scenario.expectation.root_causes
    wanted = " or ".join(dict.fromkeys(cause.service for cause in expected)) or "nothing wrong"
    named = session.diagnosis.root_causes if session.diagnosis else ()
    first = f" ({named[0].service} first)" if named and verdict.service_rank != 1 else ""
    found = "detected" if verdict.detected else "nothing wrong"
    present = "a fault" if verdict.fault_present else "nothing wrong"
    rows: list[_Row] = [("detection", present, found, _good(verdict.fault_present == verdict.detected))]
    if not verdict.fault_present:
        return rows
    rows.append(("root cause", wanted, _rank(verdict.service_rank) + first, _good(verdict.top1)))
    if verdict.expected_operation:
        operations = " or ".join(dict.fromkeys(c.operation for c in expected if c.operation))
        rank = verdict.operation_rank
        rows.append(("operation", operations, _rank(rank), _good(rank == 1)))
    if verdict.expected_mechanism:
        mechanisms = " or ".join(dict.fromkeys(str(m) for c in expected for m in c.mechanisms))
        rank = verdict.mechanism_rank
        rows.append(("mechanism", mechanisms, _rank(rank), _good(rank == 1)))
    if verdict.causes_expected > 1:
        found = f"{verdict.causes_named} of {verdict.causes_expected}"
        whole = verdict.causes_named == verdict.causes_expected
        rows.append(("causes named", str(verdict.causes_expected), found, _good(whole)))
    return rows


def _findings(session: SessionResult, verdict: Verdict) -> list[_Row]:
    rows: list[_Row] = [
        *(_match("anomaly", match) for match in verdict.anomalies),
        *(_match("path", match) for match in verdict.paths),
        ("spurious anomalies", "0", str(verdict.spurious_anomalies), "plain"),
        ("confidence", "", f"{verdict.confidence:.2f}", "plain"),
    ]
    if verdict.query is not None and verdict.fault_present:
        shows = "shows the culprit" if verdict.query.shows_culprit else "does not show the culprit"
        rows.append(("diagnostic query", "shows the culprit", shows, _good(verdict.query.shows_culprit)))
    if verdict.named_flag:
        rows.append(("flag named", "", "the flag itself was named", "warn"))
    rows += _leaks(session)
    if verdict.unknown_services:
        names = ServiceNames(verdict.known_services, verdict.parts)
        unknown = ", ".join(map(names.explain, verdict.unknown_services))
        rows.append(("unknown services", "none", unknown, "bad"))
    if verdict.named_red_herring is not None:
        rows.append(("red herring", "not first", verdict.named_red_herring, "bad"))
    return [*rows, *_grounding(verdict)]


def _leaks(session: SessionResult) -> Iterator[_Row]:
    """Yield what telemetry revealed of the flag, and what the analyzer read of that."""
    leaks = session.leaks
    if leaks is None:
        return
    policy = "" if leaks.policy == "keep" else f", {leaks.policy}"
    yield "flag in telemetry", "", leaks.described + policy, "plain"
    if leaks.read:
        asked = count(leaks.queries_asked, "query", "queries")
        read = f"{asked} asked for flags, {leaks.queries_answered} returned the injected flag"
        yield "flag read", "", read, "warn"


def _grounding(verdict: Verdict) -> Iterator[_Row]:
    """Yield how much of the evidence is real, and how the queries followed the path to the answer."""
    if verdict.grounding is not None:
        style: Style = (
            "bad" if verdict.grounding.refuted else "good" if verdict.grounding.confirmed else "plain"
        )
        yield "evidence", "confirmed by telemetry", verdict.grounding.described, style
    if verdict.path is not None:
        path = verdict.path
        yield (
            "investigation path",
            count(path.steps, "step"),
            f"{path.covered} covered, {path.in_order} in order",
            "plain",
        )


def evidence(session: SessionResult) -> Block:
    """Return the claims that telemetry refutes or leaves open, beside what telemetry says."""
    grounding = session.verdict.grounding if session.verdict is not None else None
    claims = grounding.claims if grounding is not None else ()
    return Block(
        title="evidence that is not confirmed",
        header=("outcome", "cited", "telemetry", "where"),
        rows=tuple((_OUTCOMES[one.outcome], one.cited, one.found, one.place) for one in claims),
        styles=tuple("bad" if one.outcome == "refuted" else "plain" for one in claims),
    )


_OUTCOMES = {"confirmed": "✓ confirmed", "refuted": "✗ refuted", "unchecked": "open"}


def _rank(rank: int | None) -> str:
    return "not named" if rank is None else f"rank {rank}"


def _match(what: str, match: Match) -> _Row:
    return what, match.expected, match.found or "missed", _good(match.found is not None)


def usage_text(usage: Usage) -> str:
    """Return what the analyzer says it used: prompts, tokens, cost, model; empty where it says nothing."""
    parts = [
        count(usage.prompts, "prompt") if usage.prompts else "",
        count(usage.steps, "step") if usage.steps and usage.steps != usage.prompts else "",
        count(usage.repairs, "repair") if usage.repairs else "",
        f"{count(usage.human_prompts, 'prompt')} to a person" if usage.human_prompts else "",
        f"{usage.input_tokens:,} tokens read" if usage.input_tokens else "",
        f"{usage.cached_tokens:,} of them cached" if usage.cached_tokens else "",
        f"{usage.output_tokens:,} tokens written" if usage.output_tokens else "",
        f"{usage.reasoning_tokens:,} of them reasoning" if usage.reasoning_tokens else "",
        f"{usage.cost_usd:.4g} USD" if usage.cost_usd else "",
        usage.model or "",
    ]
    return ", ".join(part for part in parts if part)


def query_answer(session: SessionResult) -> Block:
    """Return the first rows of the diagnostic query, with its outcome as notes."""
    answer = session.verdict.query if session.verdict is not None else None
    if answer is None:
        return Block("diagnostic query", (), ())
    if not answer.executed:
        return Block(
            "diagnostic query", (), (), notes=(f"did not run: {answer.error or 'no reason was given'}",)
        )
    shows = "shows the culprit" if answer.shows_culprit else "does not show the culprit"
    found = f"{count(answer.rows, 'row')} in {answer.elapsed_s:.3f} s, {shows}"
    if 0 < len(answer.sample) < answer.rows:
        found += f"; the first {len(answer.sample)} are shown"
    return Block("diagnostic query", answer.columns, answer.sample, notes=(found,))


def phases(session: SessionResult) -> Block:
    """Return the phases with seconds of the target's clock since it was opened, and wall time."""
    opened = session.phases[0].end_ns if session.phases else 0
    rows = tuple(
        (
            str(phase.phase),
            phase.outcome,
            iso(phase.start_ns),
            f"{(phase.start_ns - opened) / NANOS_PER_SECOND:+.1f}",
            f"{(phase.end_ns - phase.start_ns) / NANOS_PER_SECOND:.1f}",
            f"{phase.wall_s:.3f}",
            phase.detail,
        )
        for phase in session.phases
    )
    styles: dict[str, Style] = {"failed": "bad"}
    return Block(
        title="phases",
        header=("phase", "outcome", "start", "at s", "took s", "wall s", "detail"),
        rows=rows,
        right=(3, 4, 5),
        styles=tuple(styles.get(phase.outcome, "plain") for phase in session.phases),
    )
