"""One self-contained page of a run: no script, no network, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.session import QueryRecord, SessionResult, Status
from pytest_otel_diag.model.verdict import Match, Verdict
from pytest_otel_diag.model.windows import iso
from pytest_otel_diag.reports.blocks import DASH, STYLES, Block, blocks, facts, gate_lines, headline
from pytest_otel_diag.reports.document import RunDocument
from pytest_otel_diag.reports.manifest import Manifest
from pytest_otel_diag.reports.markup import Markup, el, join
from pytest_otel_diag.scoring.judge import describe_anomaly
from pytest_otel_diag.scoring.scorecard import Scorecard
from pytest_otel_diag.scoring.text import clip, count

FINDINGS_SHOWN = 10
PROSE_CHARS = 48
"""Longer texts may be broken into lines; shorter ones are names and numbers, which must not."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render_html(run: RunDocument) -> str:
    """Return the page. Everything that comes from telemetry, analyzers or tests is escaped."""
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    title = f"{headline(run.scorecard)}, run {run.manifest.run_id}"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("title", title),
        el("style", Markup(style)),
    )
    body = el(
        "body",
        el("h1", headline(run.scorecard)),
        el("p", f"run {run.manifest.run_id}, {_times(run.manifest)}", class_="dim"),
        [el("p", f"warning: {warning}", class_="warn") for warning in run.warnings],
        _scorecard(run.scorecard, gated=run.gated),
        el("h2", "sessions"),
        [_session(session) for session in run.sessions],
        _manifest(run.manifest),
    )
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


def _times(manifest: Manifest) -> str:
    ended = "did not end" if manifest.ended_at_ns is None else f"ended {iso(manifest.ended_at_ns)}"
    return f"started {iso(manifest.started_at_ns)}, {ended}"


def _scorecard(card: Scorecard, *, gated: bool) -> Markup:
    gate: list[Markup] = []
    if card.gate is not None and (told := gate_lines(card, gated=gated)):
        outcome, *reasons = told
        style = STYLES[card.gate.outcome]
        gate = [el("p", el("strong", outcome), class_=f"gate {style}"), _bullets(reasons)]
    return join(gate, _bullets(facts(card)), [_block(block) for block in blocks(card, gated=gated)])


def _bullets(lines: Sequence[str]) -> Markup:
    return el("ul", [el("li", line) for line in lines]) if lines else Markup("")


def _block(block: Block) -> Markup:
    rows = [
        el(
            "tr",
            [_cell(cell, "right" if column in block.right else "") for column, cell in enumerate(row)],
            class_=block.style(index),
        )
        for index, row in enumerate(block.rows)
    ]
    notes = [el("p", note, class_="dim") for note in block.notes]
    return join(el("h2", block.title), _table(block.header, rows, block.right), notes)


def _table(header: Sequence[str], rows: Sequence[Markup], right: Sequence[int] = ()) -> Markup:
    names = [el("th", name, class_="right" if i in right else "left") for i, name in enumerate(header)]
    head = el("thead", el("tr", names)) if header else ""
    return el("div", el("table", head, el("tbody", rows)), class_="scroll")


def _rows(cells: Sequence[Sequence[str]]) -> list[Markup]:
    return [el("tr", [_cell(cell) for cell in row]) for row in cells]


def _cell(cell: str, kind: str = "") -> Markup:
    """Return a cell: text of several lines as it was laid out, prose with room, the rest unbroken."""
    if "\n" in cell.strip():
        return el("td", el("pre", cell.strip("\n")))
    return el("td", cell, class_=kind or ("prose" if len(cell) > PROSE_CHARS else "short"))


def _session(session: SessionResult) -> Markup:
    style, outcome = _outcome(session)
    summary = el(
        "summary",
        el("span", outcome, class_=f"badge {style}"),
        f" {session.scenario.id} ",
        el("span", f"{session.session_id}, {session.wall_s:.2f} s", class_="dim"),
    )
    parts = [_facts(session)]
    if session.failures:
        parts.append(join(el("h3", "failures"), [el("pre", failure) for failure in session.failures]))
    if session.verdict is not None:
        parts.append(_verdict(session, session.verdict))
    if session.diagnosis is not None:
        parts += _diagnosis(session.diagnosis, session.verdict)
    parts += [_queries(session.queries), _phases(session)]
    return el("details", summary, parts)


def _outcome(session: SessionResult) -> tuple[str, str]:
    verdict = session.verdict
    if session.status is not Status.SCORED or verdict is None:
        return "warn", str(session.status)
    if not verdict.fault_present:
        return ("bad", "false positive") if verdict.detected else ("good", "healthy")
    if not verdict.detected:
        return "bad", "not detected"
    if verdict.top1:
        return "good", "solved"
    return "bad", "not named" if verdict.service_rank is None else f"rank {verdict.service_rank}"


def _facts(session: SessionResult) -> Markup:
    rows = [
        ("test", session.test_id),
        ("reason", session.reason),
        ("faults", ", ".join(map(str, session.scenario.faults))),
        ("tags", ", ".join(f"{key}={value}" for key, value in session.scenario.tags)),
        ("analyzer", f"{session.analyzer} on {session.target}, seed {session.seed}"),
    ]
    if session.impact is not None:
        seen = session.impact.time_to_impact_s
        after = "" if seen is None else f" after {seen:.1f} s"
        rows.append(("impact", f"{session.impact.reason}{after} {session.impact.detail}"))
    if session.cleanup is not None and not (session.cleanup.restored and session.cleanup.verified):
        rows.append(("cleanup", f"NOT PROVEN, a fault may still be on: {session.cleanup.detail}"))
    return _table((), _rows([row for row in rows if row[1]]))


def _verdict(session: SessionResult, verdict: Verdict) -> Markup:
    expected = session.scenario.expectation.root_causes
    wanted = " or ".join(dict.fromkeys(cause.service for cause in expected)) or "nothing wrong"
    rows = [
        ("root cause", wanted, _rank(verdict.service_rank)),
        *([("operation", "", _rank(verdict.operation_rank))] if verdict.expected_operation else []),
        *([("mechanism", "", _rank(verdict.mechanism_rank))] if verdict.expected_mechanism else []),
        *(_match("anomaly", match) for match in verdict.anomalies),
        *(_match("path", match) for match in verdict.paths),
        ("spurious anomalies", "0", str(verdict.spurious_anomalies)),
        ("confidence", "", f"{verdict.confidence:.2f}"),
    ]
    if verdict.unknown_services:
        rows.append(("services not there", "none", ", ".join(verdict.unknown_services)))
    if verdict.named_red_herring is not None:
        rows.append(("red herring", "not first", verdict.named_red_herring))
    return join(el("h3", "verdict"), _table(("what", "expected", "found"), _rows(rows)))


def _rank(rank: int | None) -> str:
    return "not named" if rank is None else f"rank {rank}"


def _match(what: str, match: Match) -> tuple[str, str, str]:
    return what, match.expected, match.found or "missed"


def _diagnosis(diagnosis: Diagnosis, verdict: Verdict | None) -> list[Markup]:
    causes = [
        (c.service, c.operation or DASH, str(c.mechanism or DASH), f"{c.score:.3g}", c.explanation)
        for c in diagnosis.root_causes[:FINDINGS_SHOWN]
    ]
    anomalies = [
        (describe_anomaly(a), f"{a.score:.3g}", "; ".join(evidence.summary for evidence in a.evidence))
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
    parts = [el("p", diagnosis.summary)] if diagnosis.summary else []
    for title, header, rows in sections:
        if rows:
            parts.append(join(el("h3", title), _table(header, _rows(rows))))
    return [*parts, _query(diagnosis, verdict)]


def _query(diagnosis: Diagnosis, verdict: Verdict | None) -> Markup:
    if diagnosis.query is None:
        return Markup("")
    parts = [el("h3", "diagnostic query"), el("pre", diagnosis.query.sql)]
    answer = verdict.query if verdict is not None else None
    if answer is None:
        return join(parts)
    if not answer.executed:
        return join(parts, el("p", f"did not run: {answer.error or 'no reason was given'}", class_="bad"))
    shows = "shows the culprit" if answer.shows_culprit else "does not show the culprit"
    parts.append(el("p", f"{count(answer.rows, 'row')} in {answer.elapsed_s:.3f} s, {shows}"))
    return join(parts, _table(answer.columns, _rows(answer.sample)) if answer.sample else "")


def _queries(queries: Sequence[QueryRecord]) -> Markup:
    if not queries:
        return Markup("")
    rows = _rows(
        [
            (
                clip(query.sql, 160),
                f"{query.elapsed_s:.3f}",
                str(query.rows),
                ", ".join(query.data_sources),
                query.error or "",
            )
            for query in queries
        ]
    )
    header = ("statement", "s", "rows", "read", "error")
    asked = f"{count(len(queries), 'query', 'queries')} of the analyzer"
    return el("details", el("summary", asked), _table(header, rows))


def _phases(session: SessionResult) -> Markup:
    if not session.phases:
        return Markup("")
    rows = _rows(
        [(str(p.phase), p.outcome, iso(p.start_ns), f"{p.wall_s:.3f}", p.detail) for p in session.phases]
    )
    return el("details", el("summary", "phases"), _table(("phase", "outcome", "start", "s", "detail"), rows))


def _manifest(manifest: Manifest) -> Markup:
    rows = [
        *(("target", f"{key}: {value}") for key, value in manifest.target.items()),
        *(("recording", f"{key}: {value}") for key, value in manifest.recordings.items()),
        *(("analyzer", f"{a.id} {a.source} {a.version} {a.sha256[:12]}") for a in manifest.analyzers),
        ("python", f"{manifest.python}, {manifest.platform}"),
        *(("setting", f"{s.name} = {s.value} ({s.source})") for s in manifest.settings),
        *(("package", f"{name} {version}") for name, version in manifest.packages.items()),
    ]
    if manifest.code is not None:
        changed = " with changes" if manifest.code.dirty else ""
        rows.insert(0, ("code", f"{manifest.code.commit}{changed}"))
    return el("details", el("summary", "where this run comes from"), _table((), _rows(rows)))


class HtmlWriter:
    """Writes ``report.html``."""

    name = "html"

    def write(self, run: RunDocument, directory: Path) -> Path:
        """Write the page and return the file."""
        file = directory / "report.html"
        file.write_text(render_html(run), encoding="utf-8")
        return file
