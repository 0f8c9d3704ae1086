"""The files of a run: after its end, after a crash, and after they were changed."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.runs.directory import RunWriter, read_run
from pytest_otel_diag.runs.files import RunUnreadable
from pytest_otel_diag.runs.manifest import Manifest
from pytest_otel_diag.runs.place import new_run_id
from pytest_otel_diag.scoring.gate import GateSettings
from tests.scoring.samples import SECOND, control, faulty, ranked, session, solved

START = 1_764_000_000 * SECOND


def manifest(**fields):
    return Manifest(**({"run_id": "20251124T160000Z-0000aa", "started_at_ns": START} | fields))


def run(tmp_path, *sessions, end=True):
    with RunWriter.start(tmp_path, manifest()) as writer:
        for one in sessions:
            writer.append(one)
        if end:
            writer.finish(START + 5 * SECOND)
        return writer.directory


def test_a_finished_run_reads_back_equal(tmp_path):
    sessions = (solved("a"), ranked("b", 2), control("q"), session(faulty("c"), status="invalid"))
    writer = RunWriter.start(tmp_path / "new" / "folder", manifest())
    for one in sessions:
        writer.append(one)
    assert writer.sessions == sessions
    document = writer.finish(START + SECOND)
    assert read_run(writer.directory) == document
    assert document.sessions == sessions
    assert document.warnings == ()
    assert document.manifest.ended_at_ns == START + SECOND
    names = sorted(path.name for path in writer.directory.iterdir())
    assert names == ["run.json", "scorecard.json", "sessions.jsonl"]


def test_every_session_is_on_the_disk_before_the_run_ends(tmp_path):
    writer = RunWriter.start(tmp_path, manifest())
    for count in range(1, 4):
        writer.append(solved(f"f{count}"))
        found = read_run(writer.directory)
        assert len(found.sessions) == count
        assert found.scorecard.scored == count
        assert found.warnings == ("run 20251124T160000Z-0000aa did not end; these are the sessions that did",)
    writer.close()


@settings(max_examples=25)
@given(st.integers(1, 400))
def test_a_torn_last_line_is_left_out_with_a_warning(tmp_path_factory, cut):
    directory = run(tmp_path_factory.mktemp("torn"), solved("a"), solved("b"), end=False)
    file = directory / "sessions.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    found = read_run(directory)
    assert [one.scenario.id for one in found.sessions] == ["a"]
    assert "line 2 is torn" in found.warnings[0]


def test_a_run_that_died_before_its_first_session(tmp_path):
    directory = run(tmp_path, end=False)
    (directory / "sessions.jsonl").unlink()
    found = read_run(directory)
    assert found.sessions == ()
    assert found.scorecard.gate.outcome == "INFRASTRUCTURE"
    assert "no session of this run can be read" in found.warnings[0]


def test_blank_lines_are_ignored(tmp_path):
    directory = run(tmp_path, solved("a"))
    with (directory / "sessions.jsonl").open("ab") as stream:
        stream.write(b"\n  \n")
    assert len(read_run(directory).sessions) == 1


@settings(max_examples=25)
@given(st.text(max_size=40))
def test_any_text_survives(tmp_path_factory, text):
    odd = session(faulty("x"), status="invalid", reason=text + "\u2028\x85\ud800\n")
    directory = run(tmp_path_factory.mktemp("text"), odd, solved("after"))
    assert read_run(directory).sessions == (odd, solved("after"))


def test_other_criteria_rebuild_the_scorecard(tmp_path):
    directory = run(tmp_path, *(solved(f"f{i}") for i in range(20)))
    lenient = GateSettings().with_thresholds({"top1": 0.1})
    gate = read_run(directory, lenient).scorecard.gate
    assert {r.criterion.name: r.criterion.threshold for r in gate.criteria}["top1"] == 0.1
    assert read_run(directory).scorecard.gate != gate


def test_a_run_is_never_written_over(tmp_path):
    run(tmp_path, solved("a"))
    with pytest.raises(RunUnreadable, match="exists already"):
        RunWriter.start(tmp_path, manifest())


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunUnreadable, match="choose another folder"):
        RunWriter.start(tmp_path / "file", manifest())


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("run.json", None, "run.json is missing; give the folder of a run"),
        ("run.json", "{", "run.json is no JSON"),
        ("run.json", "[1]", "schema version None"),
        ("run.json", '{"schema_version": 2}', "schema version 2, this release reads 1"),
        ("run.json", '{"schema_version": 1, "run_id": "x"}', "field started_at_ns: Field required"),
        ("scorecard.json", '{"schema_version": 1, "top9": 1}', "field top9: Extra inputs"),
        ("sessions.jsonl", '{"schema_version": 7}\n', "sessions.jsonl, line 1 has schema version 7"),
        ("sessions.jsonl", '\n{"a"\n', "sessions.jsonl, line 2 is no JSON"),
        ("sessions.jsonl", "\xff\n", "line 1 is no JSON"),
    ],
)
def test_files_that_cannot_be_read_name_the_place(tmp_path, file, content, message):
    directory = run(tmp_path, solved("a"))
    (directory / file).unlink()
    if content is not None:
        (directory / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(RunUnreadable) as caught:
        read_run(directory)
    assert message in str(caught.value)


@pytest.mark.parametrize("file", ["run.json", "sessions.jsonl"])
def test_a_folder_in_the_place_of_a_file(tmp_path, file):
    directory = run(tmp_path, solved("a"))
    (directory / file).unlink()
    (directory / file).mkdir()
    with pytest.raises(RunUnreadable, match="cannot be read"):
        read_run(directory)


def test_a_manifest_is_replaced_whole_or_not_at_all(tmp_path):
    writer = RunWriter.start(tmp_path, manifest())
    before = (writer.directory / "run.json").read_bytes()
    (writer.directory / "scorecard.json").mkdir()  # the first file that finish() replaces
    (writer.directory / "scorecard.json" / "in the way").touch()
    with pytest.raises(OSError, match="scorecard"):
        writer.finish(START + 1)
    assert (writer.directory / "run.json").read_bytes() == before
    assert sorted(path.name for path in writer.directory.iterdir()) == [
        "run.json",
        "scorecard.json",
        "sessions.jsonl",
    ]


def test_an_updated_manifest_survives_a_run_that_dies(tmp_path):
    writer = RunWriter.start(tmp_path, manifest())
    writer.update(writer.manifest.model_copy(update={"target": {"name": "shop"}}))
    assert read_run(writer.directory).manifest.target == {"name": "shop"}
    writer.close()


def test_run_ids_sort_by_time_and_come_from_their_arguments():
    assert new_run_id(START, random.Random(1)) == new_run_id(START + 5, random.Random(1))
    assert new_run_id(START, random.Random(1)) == "20251124T160000Z-2265b1"
    assert new_run_id(START, random.Random(2)) != new_run_id(START, random.Random(1))
    assert new_run_id(START, random.Random(9)) < new_run_id(START + SECOND, random.Random(1))


def test_run_json_is_readable_by_anyone(tmp_path):
    directory = run(tmp_path, solved("a"))
    modes = {file.stat().st_mode for file in directory.iterdir()}
    assert len(modes) == 1  # that of any file, whatever the umask
    assert json.loads((directory / "run.json").read_text())["run_id"] == "20251124T160000Z-0000aa"
    line = (directory / "sessions.jsonl").read_text().splitlines()[0]
    assert json.loads(line)["verdict"]["service_rank"] == 1


@pytest.mark.parametrize("left", [0, 1])
def test_a_scorecard_that_counts_other_sessions_than_the_file_is_rebuilt(tmp_path, left):
    directory = run(tmp_path, solved("a"), ranked("b", 2), control("q"))
    file = directory / "sessions.jsonl"
    if left:
        file.write_bytes(file.read_bytes().splitlines(keepends=True)[0])
    else:
        file.unlink()
    found = read_run(directory)
    assert (len(found.sessions), found.scorecard.sessions, found.scorecard.scored) == (left, left, left)
    assert found.warnings[-1].endswith(
        f"scorecard.json counts 3 sessions, sessions.jsonl holds {left}; this report covers the latter alone"
    )
    assert len(found.warnings) == (1 if left else 2)
    # The rebuilt scorecard is consistent: reading with other criteria gives the same counts.
    assert read_run(directory, GateSettings()).scorecard == found.scorecard


def test_whether_a_gate_was_asked_for_is_kept(tmp_path):
    with RunWriter.start(tmp_path, manifest(gated=False)) as writer:
        writer.append(solved("a"))
        assert writer.finish(START + SECOND).gated is False
    assert read_run(writer.directory).gated is False
    (writer.directory / "run.json").write_text(
        '{"schema_version": 1, "run_id": "x", "started_at_ns": 1}'  # of a release that did not know
    )
    assert read_run(writer.directory).gated is True
