"""Runs to render, one with hostile texts, and a parser of pages."""

from html.parser import HTMLParser

from pytest_otel_diag.model.diagnosis import Diagnosis, DiagnosticQuery, Evidence, Hypothesis
from pytest_otel_diag.model.scenario import ExpectedAnomaly
from pytest_otel_diag.model.session import Cleanup, Impact, ImpactReason, PhaseRecord, QueryRecord
from pytest_otel_diag.model.verdict import Match, QueryVerdict, Verdict
from pytest_otel_diag.reports.html import render_html
from pytest_otel_diag.runs.document import RunDocument
from pytest_otel_diag.runs.manifest import AnalyzerIdentity, CodeRevision, Manifest, Setting
from pytest_otel_diag.scoring.scorecard import build_scorecard
from tests.scoring.samples import anomaly, cause, control, faulty, path, ranked, session, solved

SCRIPT = "<script>alert('x')</script>"
NASTY = f'{SCRIPT}"&\x1b[31m\x00界|`*_\n</td>'
BROKEN = f"{NASTY}\ud800"  # a lone surrogate, as broken telemetry decodes to


def sample():
    tags = (("system", "boutique"), ("fault_type", "cpu"))
    other = (("system", "boutique"), ("fault_type", "network"))
    return [
        *(solved(f"cpu-{i}", tags=tags) for i in range(30)),
        ranked("net-1", 2, tags=other),
        ranked("net-2", None, detected=False, tags=other),
        *(control(f"quiet-{i}", tags=(("system", "boutique"),)) for i in range(30)),
        control("noisy", alarm=True),
        session(faulty("gone"), status="error", blame="analyzer", reason="TimeoutError: 600 s"),
    ]


def document(*sessions, warnings=(), **fields):
    defaults = {"run_id": "20251124T160000Z-0000aa", "started_at_ns": 1_764_000_000_000_000_000}
    return RunDocument(
        manifest=Manifest(**(defaults | fields)),
        sessions=tuple(sessions),
        scorecard=build_scorecard(sessions),
        warnings=warnings,
    )


def hostile():
    """A session in which all texts are hostile."""
    diagnosis = Diagnosis(
        detected=True,
        summary=BROKEN,
        anomalies=(
            anomaly(NASTY, "cpu", operation=NASTY, evidence=(Evidence(source="logs", summary=NASTY),)),
        ),
        root_causes=(cause(NASTY, operation=NASTY, explanation=NASTY),),
        critical_paths=(path("a", NASTY),),
        query=DiagnosticQuery(sql=f"SELECT '{NASTY}'", description=NASTY),
        hypotheses=(Hypothesis(statement=NASTY, status="kept", reason=NASTY),),
    )
    verdict = Verdict(
        fault_present=True,
        detected=True,
        service_rank=2,
        expected_operation=True,
        expected_mechanism=True,
        mechanism_rank=1,
        anomalies=(Match(expected=NASTY), Match(expected=NASTY, found=NASTY)),
        paths=(Match(expected=NASTY, found=NASTY),),
        unknown_services=(NASTY,),
        named_red_herring=NASTY,
        query=QueryVerdict(executed=True, rows=1, columns=(NASTY,), sample=((NASTY,),)),
    )
    return session(
        faulty(NASTY, NASTY, anomalies=(ExpectedAnomaly(service=NASTY),), tags=((NASTY, NASTY),)),
        verdict,
        session_id=NASTY,
        test_id=NASTY,
        target=NASTY,
        analyzer=NASTY,
        reason=BROKEN,
        diagnosis=diagnosis,
        failures=(NASTY,),
        impact=Impact(reason=ImpactReason.VISIBLE, time_to_impact_s=4.0, detail=NASTY),
        cleanup=Cleanup(restored=False, verified=False, detail=NASTY),
        queries=(QueryRecord(sql=NASTY, elapsed_s=0.1, rows=0, data_sources=("logs",), error=NASTY),),
        phases=(PhaseRecord(phase="impact", start_ns=1, end_ns=2, wall_s=0.1, outcome="ok", detail=NASTY),),
    )


def attacked():
    origin = {
        "code": CodeRevision(commit="c0ffee", dirty=True),
        "packages": {NASTY: NASTY},
        "settings": (Setting(name="x", value=NASTY, source=NASTY),),
        "target": {"name": NASTY},
        "recordings": {NASTY: NASTY},
        "analyzers": (AnalyzerIdentity(id=NASTY, source=NASTY),),
    }
    broken = session(faulty("b"), status="error", blame="analyzer", reason=BROKEN)
    return document(hostile(), broken, warnings=(NASTY,), **origin)


class Page(HTMLParser):
    """Collects tags and text; checks that tags nest."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def parsed(run):
    page = Page()
    page.feed(render_html(run))
    page.close()
    assert page.open == []
    return page
