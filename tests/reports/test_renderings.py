"""Content of the renderings, and escaping of hostile texts."""

import json
import re
from importlib import metadata

import pytest

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.session import Cleanup
from pytest_otel_diag.reports import writers
from pytest_otel_diag.reports.html import render_html
from pytest_otel_diag.reports.markdown import escape, render_markdown
from pytest_otel_diag.reports.terminal import ROWS_SHOWN, render_scorecard
from pytest_otel_diag.reports.writers import report_writers
from pytest_otel_diag.runs.document import RunDocument
from pytest_otel_diag.scoring.scorecard import build_scorecard
from tests.reports.documents import NASTY, attacked, document, parsed, sample
from tests.scoring.samples import faulty, ranked, session, solved


def test_the_scorecard_as_text():
    lines = render_scorecard(build_scorecard(sample())).splitlines()
    assert all(len(line) <= 100 for line in lines[: lines.index("gate: INCONCLUSIVE")])
    assert lines[:3] == [
        "builtin on shop",
        "  64 sessions, 63 scored: 32 scenarios with a fault, 31 controls",
        "  95% Wilson intervals; repeats of a scenario count once",
    ]

    def section(title):
        start = lines.index(title)
        return lines[start + 1 : lines.index("", start)]

    scores = section("scores")
    assert scores[1].split() == [
        "faults",
        "detected",
        "0.97",
        "32",
        "[0.84,",
        "0.99]",
        "≥",
        "0.90",
        "INCONCLUSIVE",
        "+44",
    ]
    assert any(
        re.match(r"  session within 300 s +1\.00  63  \[0\.94, 1\.00\]  ≥ 0\.90  pass$", s) for s in scores
    )
    assert section("by fault_type") == [
        "  fault_type     n  detected  alarms  top-1  interval      top-3  Avg@5  mechanism  s",
        "  cpu         30+0      1.00       –   1.00  [0.89, 1.00]   1.00   1.00          –  2",
        "  network      2+0      0.50       –   0.00  [0.00, 0.66]   0.50   0.40          –  2",
        "  (n: faults + controls; interval: of top-1; s: median seconds per session)",
    ]
    assert section("missed or failed") == [
        "  test   outcome       why",
        "  net-1  wrong cause   the root cause was not named first: expected payment, found cart, payment,",
        "                       checkout (ranked 2)",
        "  net-2  not detected  no fault was detected; root cause payment: not named",
        "  noisy  false alarm   a fault was reported where there is none: cart, confidence 0.00",
    ]
    assert section("not scored") == [
        "  n  status  blame     scenarios  reason",
        "  1  error   analyzer  gone       TimeoutError: 600 s",
    ]
    assert section("calibration")[-1] == "  (Brier 0.077, expected error 0.137)"
    gate = lines[lines.index("gate: INCONCLUSIVE") :]
    assert gate[1].startswith("  faults detected: 0.97 [0.84, 0.99] n=32, target ≥ 0.90; 44 more scenarios")


def test_repeats_and_impact_are_shown():
    verdict = {"time_to_impact_s": 12.0}
    flaky = [ranked("a", 1 + r % 2, repeat=r, verdict=verdict) for r in range(4)]
    shown = render_scorecard(build_scorecard(flaky))
    assert (
        "repeats: 1 of 1 repeated scenario changed the verdict, two repeats differ with chance 0.67: a"
        in shown
    )
    assert "seconds to impact: median 12, p90 12, max 12 (n=4)" in shown
    assert "every run counts" in render_scorecard(
        build_scorecard(flaky).model_copy(update={"repeats_independent": True})
    )


def test_a_rate_on_the_threshold_is_shown_as_undecidable():
    even = [solved(f"a{i}") for i in range(75)] + [ranked(f"b{i}", 2) for i in range(25)]
    assert "INCONCLUSIVE +∞" in render_scorecard(build_scorecard(even))


def test_styles_are_injected_and_never_move_a_column():
    card = build_scorecard(sample())
    painted = render_scorecard(card, paint=lambda line, style: f"<{style}>{line}")
    assert re.sub(r"<(?:good|bad|warn|plain)>", "", painted) == render_scorecard(card)
    assert "<warn>  faults detected" in painted
    assert "<warn>gate: INCONCLUSIVE" in painted
    assert "<plain>  session within" in painted


def test_an_empty_run_and_one_without_gate():
    empty = render_scorecard(build_scorecard([]))
    assert empty == (
        "no sessions\n\ngate: INFRASTRUCTURE\n  no session to judge; select tests that use a diagnosis"
    )
    bare = build_scorecard(sample()).model_copy(update={"gate": None})
    shown = render_scorecard(bare)
    assert "gate" not in shown
    assert "outcome in capitals" not in shown
    assert "**gate" not in render_markdown(bare)
    without = document(solved("a"))
    page = render_html(RunDocument(without.manifest, without.sessions, bare))
    assert "gate:" not in page


def test_long_tables_are_shortened_only_in_text():
    misses = [ranked(f"wrong-{i:03}", 2) for i in range(ROWS_SHOWN + 7)]
    card = build_scorecard(misses)
    shown = render_scorecard(card)
    assert "  and 7 more" in shown
    assert "wrong-046" not in shown
    assert "wrong-046" in render_markdown(card).replace("\\", "")


def test_text_of_an_attack_stays_on_its_lines():
    shown = render_scorecard(attacked().scorecard)
    assert "\x1b" not in shown
    assert "\x00" not in shown
    assert shown.encode()
    assert all(
        sum(2 if char == "界" else 1 for char in line) <= 100 or line.startswith("  a fault may")
        for line in shown[: shown.index("\ngate: ")].splitlines()
    )
    assert len(shown[shown.index("\ngate: ") + 1 :].splitlines()) == 3  # the outcome, a reason an analyzer


def test_markdown_shows_what_the_text_shows():
    shown = render_markdown(build_scorecard(sample()))
    assert "| root cause top-1 | 0.94 | 32 | \\[0.80, 0.98\\] | ≥ 0.75 | PASS |" in shown
    assert "## builtin on shop" in shown
    assert "**gate: INCONCLUSIVE**" in shown


def test_markdown_is_safe_from_injection():
    shown = render_markdown(attacked().scorecard)
    assert not re.search(r"(?<!\\)<", shown)
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    tables = [re.split(r"(?<!\\)\|", row) for row in rows]
    assert {len(cells) - 2 for cells in tables} <= {3, 4, 5, 6, 10}
    assert escape("a|b*c <d>\n@e") == r"a\|b\*c \<d\> \@e"


def test_every_writer_writes_its_file(tmp_path):
    run = attacked()
    found = report_writers(["text", "markdown", "html", "json"])
    files = [writer.write(run, tmp_path) for writer in found]
    assert [file.name for file in files] == ["scorecard.txt", "scorecard.md", "report.html", "report.json"]
    assert files[0].read_text(encoding="utf-8").startswith("run 20251124T160000Z-0000aa\nwarning: ")
    assert files[1].read_text(encoding="utf-8").startswith("> \\<script\\>")
    content = json.loads(files[3].read_text(encoding="ascii"))
    assert content["sessions"][0]["session_id"] == NASTY
    assert content["warnings"] == [NASTY]
    assert set(content) == {"schema_version", "manifest", "scorecard", "sessions", "warnings"}


def register(tmp_path, monkeypatch, value):
    info = tmp_path / "h5_report_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: h5-report-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{writers.GROUP}]\nforeign = {value}\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_writers_registered_by_other_packages(tmp_path, monkeypatch):
    (tmp_path / "otel_diag_foreign_writer.py").write_text(
        "class Foreign:\n"
        "    name = 'foreign'\n"
        "    def write(self, run, directory):\n"
        "        file = directory / 'foreign.txt'\n"
        "        file.write_text(run.manifest.run_id)\n"
        "        return file\n"
    )
    register(tmp_path, monkeypatch, "otel_diag_foreign_writer:Foreign")
    assert metadata.entry_points(group=writers.GROUP, name="foreign")
    (writer,) = report_writers(["foreign"])
    assert writer.write(document(), tmp_path).read_text() == "20251124T160000Z-0000aa"


def test_unknown_and_broken_writers_are_rejected(tmp_path, monkeypatch):
    with pytest.raises(ConfigurationError, match="no report writer 'htm' \\(did you mean 'html'"):
        report_writers(["htm"])
    register(tmp_path, monkeypatch, "otel_diag_no_such_module:Writer")
    with pytest.raises(ConfigurationError, match="cannot be loaded: ModuleNotFoundError"):
        report_writers(["foreign"])


def test_a_disabled_gate_is_not_shown_but_its_criteria_are():
    card = build_scorecard(sample())
    shown = render_scorecard(card, gated=False)
    assert "gate" not in shown
    assert "INCONCLUSIVE" not in shown
    assert "inconclusive +44" in shown
    assert "+k: so many more" in shown
    painted = render_scorecard(card, gated=False, paint=lambda line, style: f"<{style}>{line}")
    assert not re.search(r"<(?:good|bad|warn)>", painted)
    assert "gate" not in render_markdown(card, gated=False)
    page = parsed(document(*sample(), gated=False))
    assert not any("gate" in word for word in page.words if "{" not in word)
    assert document(gated=False).gated is False
    assert "gate: " in render_scorecard(card)


def test_writers_read_from_the_manifest_whether_the_gate_is_enabled(tmp_path):
    for gated in (True, False):
        run = document(*sample(), gated=gated)
        for writer in report_writers(["text", "markdown", "html"]):
            assert ("gate: " in writer.write(run, tmp_path).read_text(encoding="utf-8")) is gated


def test_a_fault_left_on_is_shown_without_a_gate():
    left = solved("a", cleanup=Cleanup(restored=False, verified=False, detail="flagd is gone"))
    shown = render_scorecard(build_scorecard([left]), gated=False)
    assert "warning: this run says little about the analyzer" in shown
    assert "a fault may still be on: 1 session could not prove the undo, first s-a-0 of a" in shown


def test_a_reason_gets_the_width_it_needs():
    reason = "TelemetryUnavailable: the store at clickhouse:8123 did not answer within 30 s " * 3
    tags = (("fault_type", "cpu"),)
    lost = [
        session(faulty(f"incident-{i}-of-the-shop", tags=tags), status="error", blame="infrastructure")
        for i in range(9)
    ]
    lost = [one.model_copy(update={"reason": reason}) for one in lost]
    shown = render_scorecard(build_scorecard(lost), width=120)
    assert "  n  status  blame           scenarios" in shown
    assert " ".join(reason.split()) in " ".join(shown[shown.index("not scored") :].split())
    assert all(len(line) <= 120 for line in shown[: shown.index("\ngate: ")].splitlines())
    # Without scored sessions there are no groups and metrics.
    assert "\nby " not in shown
    assert "\nscores" not in shown
    assert shown.startswith("builtin on shop\n  9 sessions, 0 scored\n\nnot scored\n")


def test_a_group_without_scored_sessions_has_no_row():
    tags = [(("fault_type", kind),) for kind in ("cpu", "disk", "net")]
    lost = session(faulty("c", tags=tags[2]), status="invalid", reason="NO_TRAFFIC")
    shown = render_scorecard(build_scorecard([solved("a", tags=tags[0]), solved("b", tags=tags[1]), lost]))
    assert shown.index("not scored") < shown.index("scores\n")
    groups = shown[shown.index("by fault_type") : shown.index("gate: ")]
    assert [line.split()[0] for line in groups.splitlines()[2:4]] == ["cpu", "disk"]
    assert "net" not in groups


def test_redundant_groups_are_shown_only_in_html_and_json():
    one = [solved(f"a{i}", tags=(("system", "boutique"), ("kind", "ab"[i]))) for i in range(2)]
    card = build_scorecard(one)
    for shown in (render_scorecard(card), render_markdown(card).replace("\\", "")):
        assert "by kind" in shown
        assert "by system" not in shown
    assert "by system" in parsed(document(*one)).words


def test_analyzers_are_shown_separately():
    run = document(*(solved(f"f{i}") for i in range(40)), *(ranked("x", 2, analyzer="other") for _ in "12"))
    shown = render_scorecard(run.scorecard)
    assert shown.startswith(
        "builtin, other on shop\n  42 sessions, 42 scored\n"
        "  95% Wilson intervals; repeats of a scenario count once\n"
        "  2 analyzers, each measured and gated on its own\n"
        "  builtin: 40 sessions, 40 scored: 40 scenarios with a fault, 0 controls\n"
    )
    assert "  other: 2 sessions, 2 scored: 1 scenario with a fault, 0 controls" in shown
    assert "\nby analyzer\n" in shown
    ours, theirs = shown.split("\nother: scores\n")
    assert re.search(r"root cause top-1 +1\.00  40 ", ours[ours.index("\nbuiltin: scores\n") :])
    assert re.search(r"root cause top-1 +0\.00  1 ", theirs)
    assert "\n  other INCONCLUSIVE: root cause top-1: 0.00" in theirs
    assert "other: scores" in parsed(run).words
    assert "### other: scores" in render_markdown(run.scorecard)
