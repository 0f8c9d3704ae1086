"""The HTML page: content, escaping, layout."""

import re

import pytest

from pytest_otel_diag.model.diagnosis import Diagnosis, DiagnosticQuery
from pytest_otel_diag.model.exhibits import CallLoad, ExemplarTrace, Exhibits, ExhibitSpan, ServiceCall
from pytest_otel_diag.model.session import Cleanup, Impact, ImpactReason, PhaseRecord
from pytest_otel_diag.model.verdict import QueryVerdict, Verdict
from pytest_otel_diag.reports.html import page_style, render_html
from pytest_otel_diag.reports.markup import Markup, el, join, text
from pytest_otel_diag.reports.session_page import fragment
from tests.reports.documents import BROKEN, NASTY, SCRIPT, attacked, document, parsed, sample
from tests.scoring.samples import control, faulty, ranked, session, solved


def test_html_is_safe_from_injection():
    page = parsed(attacked())
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "form", "object"}
    assert {name for _, attributes in page.tags for name in attributes} <= {
        "lang",
        "charset",
        "name",
        "content",
        "http-equiv",
        "class",
        "id",
        "href",
    }
    links = [attributes["href"] for _, attributes in page.tags if "href" in attributes]
    assert links and all(link.startswith("#session-") for link in links)
    shown = "".join(page.words)
    assert shown.count(SCRIPT) >= 30  # shown, not run
    assert "\x1b" not in shown
    assert "\x00" not in shown
    assert "界" in shown
    assert (
        "meta",
        {"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'"},
    ) in page.tags


def test_html_is_self_contained():
    source = render_html(document(*sample()))
    assert not re.search(r"https?:|src=|url\(|@import", source.replace("default-src", ""))
    assert "prefers-color-scheme: dark" in source


def test_html_shows_the_whole_session():
    shown = " ".join(parsed(attacked()).words)
    for expected in (
        "rank 2",
        "NOT PROVEN, a fault may still be on",
        "VISIBLE after 4.0 s",
        "diagnostic query",
        "1 row in 0.000 s, does not show the culprit",
        "1 query of the analyzer",
        "missed",
        "red herring",
        "unknown services",
        "hypotheses",
        "c0ffee with changes",
        "did not end",
        "phases",
    ):
        assert expected in shown, expected


@pytest.mark.parametrize(
    ("one", "outcome"),
    [
        (solved("a"), "solved"),
        (ranked("a", 3), "wrong cause, rank 3"),
        (ranked("a", None), "wrong cause"),
        (ranked("a", 1, detected=False), "not detected"),
        (control("a"), "no alarm"),
        (control("a", alarm=True), "false alarm"),
        (session(faulty("a"), status="invalid", reason="NO_TRAFFIC"), "invalid"),
        (session(faulty("a"), status="scored"), "not judged"),
    ],
)
def test_html_badges(one, outcome):
    page = parsed(document(one))
    assert outcome in page.words


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (None, "SELECT 1"),
        (QueryVerdict(executed=False, error="QueryRejected: no"), "did not run: QueryRejected: no"),
        (QueryVerdict(executed=False), "did not run: no reason was given"),
        (QueryVerdict(executed=True, rows=0, shows_culprit=True), "0 rows in 0.000 s, shows the culprit"),
    ],
)
def test_html_diagnostic_query(answer, shown):
    verdict = Verdict(fault_present=True, detected=True, query=answer)
    diagnosis = Diagnosis(detected=True, query=DiagnosticQuery(sql="SELECT 1"))
    page = parsed(document(session(faulty("a"), verdict, diagnosis=diagnosis)))
    assert shown in page.words


def test_html_of_a_diagnosis_without_verdict():
    diagnosis = Diagnosis(detected=True, query=DiagnosticQuery(sql="SELECT 1"))
    impact = Impact(reason=ImpactReason.NO_EFFECT)
    clean = Cleanup(restored=True, verified=True)
    page = parsed(
        document(
            session(faulty("a"), status="error", diagnosis=diagnosis, impact=impact, cleanup=clean),
            ended_at_ns=1_764_000_000_000_000_001,
        )
    )
    assert "SELECT 1" in page.words
    assert "NO_EFFECT" in page.words
    assert not any("NOT PROVEN" in word for word in page.words)
    assert any("ended 2025-11-24" in word for word in page.words)


def test_markup_escapes_all_plain_text():
    assert el("b", "<i>", Markup("<i>"), ["&", Markup("&amp;")]) == "<b>&lt;i&gt;<i>&amp;&amp;</b>"
    assert el("td", "x", class_='a"b', hidden=True, open=False) == '<td class="a&quot;b" hidden>x</td>'
    assert el("br") == "<br>"
    assert text("a\x00\x9f\ud800\t") == "a\ufffd\ufffd\ufffd\t"
    assert join() == ""


def test_html_keeps_the_layout_of_a_failure():
    failure = "the root cause was not named\n  expected  payment\n  found     <cart>"
    page = parsed(document(solved("a", failures=(failure, "second"), test_id="t\nu")))
    assert failure in page.words
    laid_out = [tag for tag, _ in page.tags].count("pre")
    assert laid_out == 3
    style = " ".join(page.words)
    assert "white-space: pre;" in style
    assert "anywhere" not in style  # it breaks words to make columns narrow


def test_html_wraps_only_prose():
    page = parsed(document(solved("a", test_id="x" * 200)))
    kinds = [attributes.get("class") for tag, attributes in page.tags if tag == "td"]
    assert kinds.count("prose") == 1
    assert {"short", "right"} <= set(kinds)
    heads = [attributes.get("class") for tag, attributes in page.tags if tag == "th"]
    assert {"left", "right"} == set(heads)


def test_html_groups_by_category_severity_and_flag_first():
    tags = (("area", "x"), ("category", "performance"), ("flag", "adHighCpu"), ("severity", "high"))
    page = parsed(document(solved("a", tags=tags), ranked("b", 2, tags=tags)))
    titles = [word for word in page.words if word.startswith("by ")]
    assert titles == ["by category", "by severity", "by flag", "by area"]


def test_html_of_a_failed_session_shows_reason_phases_and_traceback():
    phase = PhaseRecord(
        phase="investigate", start_ns=1, end_ns=2, wall_s=0.1, outcome="failed", detail="boom"
    )
    broken = session(
        faulty("a"),
        status="error",
        blame="analyzer",
        reason="LookupError: no idea",
        trace="Traceback (most recent call last)\n  in agent.py\n",
        phases=(phase,),
        exhibits=Exhibits(notes=("timeline: no spans",)),
    )
    page = parsed(document(broken))
    for expected in (
        "error, by analyzer",
        "LookupError: no idea",
        "traceback of the analyzer",
        "timeline: no spans",
    ):
        assert expected in page.words, expected
    opened = [attributes for tag, attributes in page.tags if tag == "details" and "open" in attributes]
    assert len(opened) == 1
    assert page.words.count("boom") == 1


def test_html_has_pictures_that_are_safe_from_injection():
    call = ServiceCall(caller=NASTY, callee=BROKEN, incident=CallLoad(calls=9, errors=9))
    spans = (ExhibitSpan(service=NASTY, operation=BROKEN, start_ms=0, duration_ms=1),)
    trace = ExemplarTrace(trace_id=NASTY, start_ns=1, choice=BROKEN, spans_total=1, spans=spans)
    one = solved("a", exhibits=Exhibits(calls=(call,), trace=trace, notes=(NASTY,)))
    page = parsed(document(one))
    names = [tag for tag, _ in page.tags]
    assert names.count("svg") == names.count("figcaption") == 2
    assert "script" not in names
    assert names.count("style") == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_embedded_sessions_use_the_light_theme():
    shown = fragment(solved("a", exhibits=None))
    assert shown.startswith('<div class="otel-diag od-light"><p><span class="badge good">solved</span>')
    rules = re.findall(r"^[^@{}/]+(?=\{)", page_style(), re.M)
    assert rules
    assert all(".otel-diag" in rule or ".od-" in rule for rule in rules)
