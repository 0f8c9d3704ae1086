"""``otel-diag sql`` on recordings, kept sessions and stores."""

import io
import json
from pathlib import Path

import pytest
import typer

from pytest_otel_diag.cli.commands import sql
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.operations.telemetry_shell import opened, recording_folder
from pytest_otel_diag.runs.directory import RunWriter
from pytest_otel_diag.runs.kept_telemetry import kept_folder
from pytest_otel_diag.runs.manifest import Manifest
from pytest_otel_diag.telemetry.store import Store
from tests.scoring.samples import ranked, solved
from tests.support import tiny_shop


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_shop.write(tmp_path_factory.mktemp("sql") / "tiny")


def run_with(folder: Path, *sessions: SessionResult) -> Path:
    with RunWriter.start(folder, Manifest(run_id="r", started_at_ns=1)) as writer:
        for one in sessions:
            writer.append(one)
        writer.finish(2)
    return folder / "r"


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Let a terminal type the lines, then end the input."""
    waiting = iter(lines)

    def answer(_prompt: str) -> str:
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)


def ask(recording: Path, tmp_path: Path, *arguments: str) -> None:
    app = typer.Typer()
    app.command()(sql.command)
    app([str(recording), "--cache", str(tmp_path), *arguments], standalone_mode=False)


def test_statements_are_separated_outside_of_quotes_and_comments() -> None:
    text = "SELECT ';' -- a ; b\n; SELECT `x;y`, \"a\\\";\" /* ; */;;\n SELECT 'it''s;'"
    assert list(sql.statements(text)) == ["SELECT ';'", 'SELECT `x;y`, "a\\";"', "SELECT 'it''s;'"]
    assert list(sql.statements(" ; -- nothing")) == []


def test_a_script_gets_answers_in_the_format_it_asks_for(recording, tmp_path, capfdbinary) -> None:
    ask(
        recording,
        tmp_path,
        "--format",
        "json",
        "-c",
        "SELECT uniqExact(ServiceName) AS n FROM otel_traces; SELECT 2 FORMAT CSV",
    )
    assert capfdbinary.readouterr().out == b'{"n":3}\n2\n'


def test_statements_come_from_standard_input(recording, tmp_path, capfdbinary, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 1 AS one"))
    ask(recording, tmp_path)
    assert capfdbinary.readouterr().out == b"one\n1\n"


def test_a_script_may_contain_the_commands_of_the_shell(
    recording, tmp_path, capfdbinary, monkeypatch
) -> None:
    script = (
        "SELECT 1 AS one;\n\\d\n\\d otel_logs;\nSELECT '\n\\\\d' AS text;\n\\q\nSELECT 'after' AS the_end"
    )
    monkeypatch.setattr("sys.stdin", io.StringIO(script))
    ask(recording, tmp_path)
    printed = capfdbinary.readouterr().out
    assert printed.startswith(b"one\n1\n")
    assert b"otel_traces" in printed
    assert b"SeverityText" in printed
    assert b"\\\\d" in printed
    assert b"the_end" not in printed
    with pytest.raises(ConfigurationError, match=r"there is no command \\x"):
        ask(recording, tmp_path, "-c", "\\x\nSELECT 1")


def test_an_unknown_format_and_no_place_are_refused(recording, tmp_path) -> None:
    with pytest.raises(ConfigurationError, match=r"--format=.jsn.: choose from pretty.*did you mean 'json'"):
        ask(recording, tmp_path, "--format", "jsn", "-c", "SELECT 1")
    with pytest.raises(ConfigurationError, match="name a recording"):
        sql.command(store=None, cache=None, where="", statement="", output="")


def test_the_shell_goes_on_after_a_mistake_and_shows_no_control_characters(
    recording, tmp_path, capsys, monkeypatch
) -> None:
    typed(
        monkeypatch,
        "SELECT",
        "nothing;",
        "\\d",
        "\\d otel_logs",
        "\\?",
        "",
        "SELECT '\x1b]0;x\x07' AS c;",
        "exit",
    )
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    ask(recording, tmp_path)
    out, err = capsys.readouterr()
    assert "nothing" in err
    assert "otel_traces" in out
    assert "SeverityText" in out
    assert "there is no command \\?" in err
    assert "Tab completes" in out
    assert "\\x1b]0;x\\x07" in out
    assert "\x1b" not in out


def test_words_are_completed_in_any_case(recording, tmp_path) -> None:
    with opened(str(recording), tmp_path) as telemetry:
        complete = sql.completer(telemetry.words())
        assert complete("servicen", 0) == "ServiceName"
        assert complete("otel_tr", 0) == "otel_traces"
        assert complete("grou", 0) is not None
        assert complete("no such word", 0) is None


def test_a_run_opens_by_its_kept_session_or_lists_them(tmp_path) -> None:
    right, wrong, other = solved("a"), ranked("b", 2), ranked("c", 3)
    run = run_with(tmp_path, right, wrong, other)
    with pytest.raises(ConfigurationError, match="run pytest with --otel-diag-keep"):
        recording_folder(run)
    for one in (wrong, other):
        folder = kept_folder(run, one.session_id)
        folder.mkdir(parents=True)
        (folder / "recording.json").write_text(json.dumps({}))
    assert recording_folder(run / wrong.session_id) == kept_folder(run, wrong.session_id)
    with pytest.raises(
        ConfigurationError, match=r"2 sessions; choose one:\n.*b: the root cause was not named"
    ):
        recording_folder(run)
    with pytest.raises(ConfigurationError, match="was not kept"):
        recording_folder(run / right.session_id)
    with pytest.raises(ConfigurationError, match="has 0 sessions whose id begins with 'zz'; choose from:"):
        recording_folder(run / "zz")


def test_a_store_without_telemetry_names_no_database(tmp_path, monkeypatch) -> None:
    # the process has one store in memory, in which other tests may have databases
    monkeypatch.setattr(Store, "exporter_tables", lambda _: ())
    with (
        pytest.raises(ConfigurationError, match="has 0 databases with telemetry"),
        opened("chdb://memory", tmp_path),
    ):
        pass
