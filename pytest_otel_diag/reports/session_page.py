"""HTML of one session: the fault, its telemetry, the diagnosis, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.outcome import Outcome, outcome_of
from pytest_otel_diag.model.session import Cleanup, QueryRecord, SessionResult, Status
from pytest_otel_diag.model.transcript import TranscriptEntry
from pytest_otel_diag.reports.blocks import DASH, Block, Style
from pytest_otel_diag.reports.markup import Markup, el, join
from pytest_otel_diag.reports.parts import block, bullets, rows, session_anchor, table
from pytest_otel_diag.reports.pictures import pictures
from pytest_otel_diag.reports.session_tables import (
    attempts,
    evidence,
    expected_and_found,
    injected,
    phases,
    query_answer,
    usage_text,
)
from pytest_otel_diag.reports.transcript_page import transcript_markup
from pytest_otel_diag.scoring.findings import change_text, score_text
from pytest_otel_diag.scoring.judge import describe_anomaly
from pytest_otel_diag.scoring.reasons import reason_of
from pytest_otel_diag.scoring.text import clip, count

FINDINGS_SHOWN = 10


def folded(session: SessionResult, transcript: Sequence[TranscriptEntry] = ()) -> Markup:
    """Return the session as a collapsible entry of a page, with its anchor."""
    style, outcome = badge_of(session)
    summary = el(
        "summary",
        el("span", outcome, class_=f"badge {style}"),
        f" {session.scenario.id} ",
        el("span", f"{session.session_id}, {session.wall_s:.2f} s", class_="dim"),
        _why(session),
    )
    steps = transcript_markup(session.session_id, transcript)
    # Browsers open a folded part for an anchor within it, not for its own.
    inside = el("div", body(session), steps, id=session_anchor(session.session_id), class_="od-anchor")
    return el("details", summary, inside)


def fragment(session: SessionResult) -> Markup:
    """Return the session for embedding in other pages, which include the style once.

    It always uses the light theme, like these pages.
    """
    style, outcome = badge_of(session)
    head = el(
        "p",
        el("span", outcome, class_=f"badge {style}"),
        el("strong", session.scenario.id),
        _why(session),
    )
    return el("div", head, body(session), class_="otel-diag od-light")


def body(session: SessionResult) -> Markup:
    """Return all sections of the session: the diagnosis first, details last."""
    parts = [_facts(session)]
    if session.failures:
        parts.append(join(el("h3", "failures"), [el("pre", failure) for failure in session.failures]))
    parts += [_shown(found) for found in (expected_and_found(session), evidence(session), injected(session))]
    parts += [_pictures(session), _shown(attempts(session))]
    if session.diagnosis is not None:
        parts += [*_diagnosis(session.diagnosis), _query(session, session.diagnosis)]
    if session.trace:
        parts.append(join(el("h3", "traceback of the analyzer"), el("pre", session.trace)))
    parts.append(_queries(session.queries))
    if session.phases:
        # The phases show where a session without a verdict ended.
        shown = session.verdict is None
        parts.append(_folded("phases", phases(session), open_=shown))
    return join(parts)


def _why(session: SessionResult) -> Markup:
    """Return why the outcome is no right answer, to stand beside its badge."""
    reason = reason_of(session)
    return el("span", f" {reason}", class_="why") if reason else Markup("")


def badge_of(session: SessionResult) -> tuple[Style, str]:
    """Return the style and the text of the session's badge: its outcome, with the rank of a wrong cause."""
    outcome, verdict = outcome_of(session), session.verdict
    if session.status is not Status.SCORED or verdict is None:
        return "warn", str(outcome)
    if outcome is Outcome.WRONG_CAUSE and verdict.service_rank is not None:
        return "bad", f"{outcome}, rank {verdict.service_rank}"
    return ("good" if outcome.right else "bad"), str(outcome)


def _shown(found: Block) -> Markup:
    return block(found, level="h3") if found.rows else Markup("")


def _folded(title: str, found: Block, *, open_: bool = False) -> Markup:
    drawn = block(found, level="h4").removeprefix(el("h4", found.title))
    return el("details", el("summary", title), Markup(drawn), open=open_)


def _facts(session: SessionResult) -> Markup:
    blame = f", by {session.blame}" if session.blame is not None else ""
    shown = [
        ("status", f"{session.status}{blame}"),
        ("reason", session.reason),
        ("test", session.test_id),
        ("not in the gate", session.scenario.ungated),
        ("tags", ", ".join(f"{key}={value}" for key, value in session.scenario.tags)),
        ("analyzer", f"{session.analyzer} on {session.target}, seed {session.seed}"),
        ("usage", usage_text(session.usage)),
    ]
    if session.impact is not None:
        seen = session.impact.time_to_impact_s
        after = "" if seen is None else f" after {seen:.1f} s"
        words = (f"{session.impact.reason}{after}", session.impact.detail)
        shown.append(("impact", ": ".join(filter(None, words))))
    if session.cleanup is not None:
        shown += _left(session.cleanup)
    shown += [("note", note) for note in session.notes]
    return table((), rows([row for row in shown if row[1]]))


def _left(cleanup: Cleanup) -> list[tuple[str, str]]:
    """Return the residue of the session and how to remove it."""
    shown = [("residue", sentence) for sentence in cleanup.residue]
    if cleanup.failed:
        way = f"; undo it with: {cleanup.recovery_command}" if cleanup.recovery_command else ""
        shown.append(("cleanup", f"NOT PROVEN, a fault may still be on: {cleanup.detail}{way}"))
    elif cleanup.left_on:
        shown.append(
            ("cleanup", f"LEFT ON, as requested: {', '.join(cleanup.left_on)}; {cleanup.recovery_command}")
        )
    return shown


def _pictures(session: SessionResult) -> Markup:
    drawn = [el("figure", el("figcaption", one.name), one.inline()) for one in pictures(session)]
    return join(drawn, bullets(session.exhibits.notes if session.exhibits is not None else ()))


def _diagnosis(diagnosis: Diagnosis) -> list[Markup]:
    causes = [
        (c.service, c.operation or DASH, str(c.mechanism or DASH), score_text(c.score), c.explanation)
        for c in diagnosis.root_causes[:FINDINGS_SHOWN]
    ]
    anomalies = [
        (
            describe_anomaly(a),
            score_text(a.score),
            "; ".join(evidence.summary for evidence in a.evidence) or change_text(a),
        )
        for a in sorted(diagnosis.anomalies, key=lambda a: -abs(a.score))[:FINDINGS_SHOWN]
    ]
    paths = [
        (path.priority, " → ".join(path.services), f"{path.metrics.p99Latency:.1f} ms")
        for path in diagnosis.critical_paths[:FINDINGS_SHOWN]
    ]
    hypotheses = [(h.status, h.statement, h.reason) for h in diagnosis.hypotheses]
    sections = (
        ("root causes", ("service", "operation", "mechanism", "score", "why"), causes),
        ("anomalies", ("anomaly", "score", "evidence"), anomalies),
        ("critical paths", ("priority", "path", "p99"), paths),
        ("hypotheses", ("fate", "hypothesis", "reason"), hypotheses),
    )
    parts = [el("h3", "diagnosis"), el("p", diagnosis.summary)] if diagnosis.summary else []
    for title, header, found in sections:
        if found:
            parts.append(join(el("h3", title), table(header, rows(found))))
    return parts


def _query(session: SessionResult, diagnosis: Diagnosis) -> Markup:
    if diagnosis.query is None:
        return Markup("")
    answer = query_answer(session)
    bad = (
        session.verdict is not None
        and session.verdict.query is not None
        and not session.verdict.query.executed
    )
    notes = [el("p", note, class_="bad") if bad else el("p", note) for note in answer.notes]
    drawn = table(answer.header, rows(answer.rows)) if answer.rows else Markup("")
    said = el("p", diagnosis.query.description) if diagnosis.query.description else ""
    return join(el("h3", "diagnostic query"), said, el("pre", diagnosis.query.sql), notes, drawn)


def _queries(queries: Sequence[QueryRecord]) -> Markup:
    if not queries:
        return Markup("")
    found = rows(
        [
            (
                "" if query.at_s is None else f"{query.at_s:.1f}",
                query.tool,
                clip(query.sql, 160),
                f"{query.elapsed_s:.3f}",
                str(query.rows),
                ", ".join(query.data_sources),
                query.error or "",
            )
            for query in queries
        ]
    )
    header = ("at s", "tool", "statement", "s", "rows", "read", "error")
    asked = f"{count(len(queries), 'query', 'queries')} of the analyzer"
    return el("details", el("summary", asked), table(header, found))
