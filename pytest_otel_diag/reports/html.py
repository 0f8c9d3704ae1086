"""A self-contained page of a run without scripts and network access, in a light and a dark theme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import resources
from pathlib import Path

from pytest_otel_diag.model.outcome import outcome_of
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.model.transcript import TranscriptEntry
from pytest_otel_diag.model.windows import iso
from pytest_otel_diag.reports.blocks import STYLES, blocks, facts, gate_lines, headline
from pytest_otel_diag.reports.markup import Markup, el, join
from pytest_otel_diag.reports.parts import block, bullets, table
from pytest_otel_diag.reports.parts import rows as lines
from pytest_otel_diag.reports.pictures import style as style_of_pictures
from pytest_otel_diag.reports.session_page import folded
from pytest_otel_diag.runs.document import RunDocument
from pytest_otel_diag.runs.manifest import AnalyzerIdentity, Manifest
from pytest_otel_diag.runs.transcripts import read_transcript
from pytest_otel_diag.scoring.scorecard import Scorecard

REPORT_FILE = "report.html"
"""Name of the page in the folder of a run."""

_TRANSCRIPTS_CHARS = 20_000_000
"""Size of the transcripts on one page, beyond which browsers grow slow."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


Transcripts = Callable[[str], Sequence[TranscriptEntry]]
"""Returns the transcript of the session with this id."""


def render_html(run: RunDocument, transcripts: Transcripts = lambda _: ()) -> str:
    """Return the page; all texts of telemetry, analyzers and tests are escaped."""
    title = f"{headline(run.scorecard)}, run {run.manifest.run_id}"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("title", title),
        el("style", Markup(page_style())),
    )
    body = el(
        "body",
        el("h1", headline(run.scorecard)),
        el("p", f"run {run.manifest.run_id}, {_times(run.manifest)}", class_="dim"),
        [el("p", el("strong", alarm), class_="gate bad") for alarm in run.manifest.alarms],
        [el("p", remark, class_="warn") for remark in run.remarks],
        [el("p", f"warning: {warning}", class_="warn") for warning in run.warnings],
        _scorecard(run.scorecard, gated=run.gated),
        el("h2", "sessions"),
        _sessions(run.sessions, transcripts),
        _manifest(run.manifest),
        class_="otel-diag od-page",
    )
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


def _sessions(sessions: Sequence[SessionResult], transcripts: Transcripts) -> list[Markup]:
    """Return the entries of sessions, with transcripts as far as a page can hold them.

    Those of wrong answers come first: they are why a page is read.
    """
    drawn: dict[str, Markup] = {}
    left = _TRANSCRIPTS_CHARS
    for session in sorted(sessions, key=lambda one: outcome_of(one).right):
        shown = transcripts(session.session_id) if session.transcript is not None and left > 0 else ()
        drawn[session.session_id] = entry = folded(session, shown)
        left -= len(entry) if shown else 0
    return [drawn[session.session_id] for session in sessions]


@cache
def page_style() -> str:
    """Return the style sheet of pages and pictures; all rules are scoped to our elements."""
    own = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    return own + style_of_pictures()


def _times(manifest: Manifest) -> str:
    ended = "did not end" if manifest.ended_at_ns is None else f"ended {iso(manifest.ended_at_ns)}"
    return f"started {iso(manifest.started_at_ns)}, {ended}"


def _scorecard(card: Scorecard, *, gated: bool) -> Markup:
    gate: list[Markup] = []
    if card.gate is not None and (lines := gate_lines(card, gated=gated)):
        outcome, *reasons = lines
        style = STYLES[card.gate.outcome]
        gate = [el("p", el("strong", outcome), class_=f"gate {style}"), bullets(reasons)]
    return join(gate, bullets(facts(card)), [block(shown) for shown in blocks(card, gated=gated)])


def _manifest(manifest: Manifest) -> Markup:
    rows = [
        *(("target", f"{key}: {value}") for key, value in manifest.target.items()),
        *(("recording", f"{key}: {value}") for key, value in manifest.recordings.items()),
        *(("analyzer", _identity(a)) for a in manifest.analyzers),
        ("python", f"{manifest.python}, {manifest.platform}"),
        *(("setting", f"{s.name} = {s.value} ({s.source})") for s in manifest.settings),
        *(("package", f"{name} {version}") for name, version in manifest.packages.items()),
    ]
    if manifest.code is not None:
        changed = " with changes" if manifest.code.dirty else ""
        rows.insert(0, ("code", f"{manifest.code.commit}{changed}"))
    return el("details", el("summary", "where this run comes from"), table((), lines(rows)))


def _identity(analyzer: AnalyzerIdentity) -> str:
    details = ", ".join(f"{name}: {value}" for name, value in analyzer.details.items())
    known = f"{analyzer.id} {analyzer.source} {analyzer.version} {analyzer.sha256[:12]}"
    return f"{known}; {details}" if details else known


class HtmlWriter:
    """Writes the page of a run."""

    name = "html"

    def write(self, run: RunDocument, directory: Path) -> Path:
        """Write the page and return the file."""
        file = directory / REPORT_FILE
        file.write_text(render_html(run, partial(read_transcript, directory)), encoding="utf-8")
        return file
