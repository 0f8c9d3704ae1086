"""The table of proofs: content, file, and that the documented table is current."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pytest_otel_diag import catalog
from pytest_otel_diag.cli.app import app
from pytest_otel_diag.errors import ConfigurationError, ScenarioError
from pytest_otel_diag.model.diagnosis import Signal
from pytest_otel_diag.model.scenario import ExpectedAnomaly
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.selftest import table
from pytest_otel_diag.selftest.measure import Measured
from pytest_otel_diag.selftest.proof import Mutation, Proof, ProofPhase
from pytest_otel_diag.selftest.subjects import chosen, of_catalog, of_files

ROOT = Path(__file__).parents[2]
CLAIM = ExpectedAnomaly(service="back", signal=Signal.LATENCY)
WINDOW = Window(start_ns=0, end_ns=10)


def phase(*visible: bool) -> ProofPhase:
    return ProofPhase(WINDOW, tuple(Measured(CLAIM, one, "1 → 2") for one in visible))


RIGHT = Proof(
    "right=on",
    phase(False, False),
    phase(True, True),
    phase(True, False),
    {("front", "back"): ("front", "middle", "back"), ("a",): None},
    (Mutation("nothing", ("not detected",)),),
    residue="stays",
)
WRONG = Proof(
    "wrong=on", mutations=(Mutation("nothing", ()),), problems=("a wrong answer is accepted: nothing",)
)


def test_a_row_counts_claims_paths_and_rejections() -> None:
    assert table.row(RIGHT) == (
        "right=on",
        "0 of 2",
        "2 of 2",
        "1 of 2 (declared)",
        "1 of 2",
        "1 of 1",
        "holds",
    )
    assert table.row(WRONG) == ("wrong=on", "–", "–", "–", "–", "0 of 1", "BROKEN")


def test_the_terminal_shows_problems_below() -> None:
    lines = table.as_text([RIGHT, WRONG])
    assert lines[-2:] == [
        "wrong=on: a wrong answer is accepted: nothing",
        "2 oracles, 1 hold, 1 broken",
    ]
    assert len({line.find("0 of") for line in lines[1:2]}) == 1
    assert table.as_text([RIGHT])[-1].startswith("1 oracle, ")


def test_json_has_all_measurements() -> None:
    right, wrong = json.loads(table.as_json([RIGHT, WRONG]))
    assert right["phases"]["faulted"][0] == {"claim": "back latency", "visible": True, "measured": "1 → 2"}
    assert right["paths"][0] == {"expected": ["front", "back"], "real": ["front", "middle", "back"]}
    assert wrong["wrong_answers"] == [{"answer": "nothing", "refused": []}]


def test_the_table_is_written_between_its_markers(tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nstale\n{table.END}\nafter\n")
    page.write_text(table.written_into(page, [RIGHT]))
    again = table.written_into(page, [RIGHT])
    assert again == page.read_text()
    assert again.startswith("before\n")
    assert again.endswith("after\n")
    assert "| right=on | 0 of 2 |" in again
    assert "stale" not in again
    page.write_text("nothing")
    with pytest.raises(ConfigurationError, match="has no markers for the table"):
        table.written_into(page, [RIGHT])


def test_the_documented_table_has_the_current_scenarios_and_all_oracles_hold() -> None:
    text = (ROOT / "docs" / "scenarios.md").read_text()
    written = text.partition(table.BEGIN)[2].partition(table.END)[0]
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in written.splitlines() if line.startswith("|")]
    assert tuple(rows[0]) == table.HEADER
    assert [row[0] for row in rows[2:]] == [one.scenario.id for one in of_catalog("3.0")]
    assert {row[-1] for row in rows[2:]} == {"holds"}
    for row in rows[2:]:
        known = next(one for one in of_catalog("3.0") if one.scenario.id == row[0])
        claims = len(known.scenario.expectation.anomalies)
        assert row[2] == (f"{claims} of {claims}" if claims else "–")


def test_subjects_are_chosen_by_their_id() -> None:
    assert [one.scenario.id for one in chosen(of_catalog("2.2"), ["llm"])] == [
        "llmRateLimitError=on",
        "llmInaccurateResponse=on",
    ]
    with pytest.raises(ScenarioError, match="no scenario has 'nothing' in its id; choose from adFailure=on"):
        chosen(of_catalog("3.0"), ["nothing"])
    by_flag = {one.scenario.id: one.residue for one in of_catalog("3.0")}
    assert by_flag["adFailure=on"] == ""
    assert "checkout" in by_flag["paymentUnreachable=on"]


def test_scenario_files_are_subjects(tmp_path) -> None:
    file = tmp_path / "some.scenario.yaml"
    file.write_text(
        "schema: 1\n"
        "scenarios:\n"
        "  - {id: a, faults: [{flag: cartFailure, variant: on}], environment: {demo: '2.2'}}\n"
        "  - {id: b, control: true}\n"
        "  - {id: c, scenario: recorded}\n"
        "  - {id: d, faults: [{flag: own}], expect: {root_causes: [{service: cart}]}}\n"
    )
    a, b, d = of_files([file], "3.0")
    assert a.scenario.expectation == catalog.expectation("cartFailure", "on", "2.2")
    assert b.scenario.control
    assert (d.scenario.id, d.residue) == ("d", "")
    file.write_text("schema: 1\nfaults: [{flag: own}]\n")
    with pytest.raises(ScenarioError, match="the catalog does not know these faults"):
        of_files([file], "3.0")


def test_the_command_proves_in_parallel_and_writes_the_page(tmp_path) -> None:
    file, page = tmp_path / "some.scenario.yaml", tmp_path / "page.md"
    file.write_text(
        "schema: 1\n"
        "defaults: {timing: {baseline_s: 20, observe_s: 20}}\n"
        "scenarios: [{id: a, control: true}, {id: b, control: true}]\n"
    )
    page.write_text(f"{table.BEGIN}{table.END}")
    done = CliRunner().invoke(app, ["self-test", str(file), "--workers", "2", "--write", str(page)])
    assert done.exit_code == 0, done.output
    assert "2 oracles, 2 hold, 0 broken" in done.output
    assert page.read_text().count("holds") == 2
    file.write_text("schema: 1\nfaults: [{flag: noFlag}]\nexpect: {root_causes: [{service: cart}]}\n")
    done = CliRunner().invoke(app, ["self-test", str(file), "--json"])
    assert done.exit_code == 1
    assert "no flag 'noFlag'" in json.loads(done.output)[0]["problems"][0]
