"""``otel-diag investigate``: one recorded incident, with hints or a person who guides."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
import typer

from pytest_otel_diag.cli.commands import investigate
from pytest_otel_diag.cli.commands.investigate import Show, entry_lines, lines_of
from pytest_otel_diag.cli.options import RUN_SETTINGS
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.diagnosis import Diagnosis, RootCause
from tests.support import tiny_shop
from tests.support.model_policies import submitting
from tests.support.scripted_model import served, text_of


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_shop.write(tmp_path_factory.mktemp("investigate") / "tiny")


async def guided(investigation):
    """Blame what the messages say, and ask again until there is no message."""
    await investigation.transcript.add("message", {"text": "looking\x1b[2J around"})
    await investigation.telemetry.call_edges(investigation.incident)
    answer = None
    while message := await investigation.guidance.next(answer):
        answer = Diagnosis(
            detected=True, root_causes=(RootCause(service=message),), summary="as \x1b[31msaid"
        )
    return answer or Diagnosis(detected=False)


class Keyboard:
    """A pipe in the place of standard input."""

    def __init__(self, text: str) -> None:
        self.read_end, self.write_end = os.pipe()
        os.write(self.write_end, text.encode())

    def fileno(self) -> int:
        return self.read_end

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        os.close(self.write_end)


def run(recording: Path, tmp_path: Path, *arguments: str) -> int:
    app = typer.Typer()
    app.command()(investigate.command)
    own = ("--cache", str(tmp_path), "--analyzer", f"{__name__}:guided")
    return app([str(recording), *own, *arguments], standalone_mode=False)


def incident(recording: Path) -> str:
    return json.loads((recording / "cases.json").read_text())[0]["id"]


def test_a_person_guides_with_messages_that_count_as_prompts(recording, tmp_path, capsys, monkeypatch):
    keyboard = Keyboard("front\nmiddle\n\n")
    monkeypatch.setattr("sys.stdin", keyboard)

    code = run(recording, tmp_path, "--incident", incident(recording), "--interactive", "--judge")

    out = capsys.readouterr().out
    keyboard.close()
    assert code == 0
    assert "the analyzer has no answer yet\nyour message (empty: accept the answer)> front\n" in out
    assert "message: text = looking\\x1b[2J around\n" in out and "\x1b" not in out
    assert out.index("1  front") < out.index("1  middle")
    assert "1 query, 2 human prompts" in out
    assert ": nothing; hint: front\n" in out and ": front; hint: middle\n" in out
    assert "verdict: the root cause was not named first" in out or "verdict: right" in out


def test_without_a_person_there_are_hints_or_none(recording, tmp_path, capsys):
    assert run(recording, tmp_path, "--incident", incident(recording), "--format", "json") == 0

    shown = capsys.readouterr()
    data = json.loads(shown.out)
    assert data["status"] == "scored" and data["attempts"] == [] and "verdict" not in data
    assert data["diagnosis"]["usage"]["human_prompts"] == 0
    assert "message: text = looking" in shown.err


def test_the_end_of_the_input_accepts_the_answer(recording, tmp_path, capsys, monkeypatch):
    keyboard = Keyboard("front")
    keyboard.close()
    monkeypatch.setattr("sys.stdin", keyboard)

    assert run(recording, tmp_path, "--incident", incident(recording), "--interactive") == 0

    assert "1 query, 1 human prompt\n" in capsys.readouterr().out


def test_ctrl_c_ends_it_while_a_person_is_asked(recording, tmp_path, monkeypatch, capsys):
    asked = threading.Event()
    keyboard = Keyboard("")
    monkeypatch.setattr("sys.stdin", keyboard)
    show = Show.reply

    async def reply(self, diagnosis):
        asked.set()
        return await show(self, diagnosis)

    monkeypatch.setattr(Show, "reply", reply)

    def interrupt():
        asked.wait()
        os.kill(os.getpid(), 2)

    threading.Thread(target=interrupt, daemon=True).start()
    code = run(recording, tmp_path, "--incident", incident(recording), "--interactive")
    keyboard.close()

    assert code == 2 and "verdict" not in capsys.readouterr().out


def test_a_recording_with_several_incidents_needs_a_choice(recording, tmp_path):
    with pytest.raises(ConfigurationError, match=r"has \d+ incidents; choose one with --incident:\n  "):
        run(recording, tmp_path)
    with pytest.raises(ConfigurationError, match="has no incident 'nope'"):
        run(recording, tmp_path, "--incident", "nope")


def test_an_analyzer_that_waits_for_a_person_has_time():
    free = investigate.unhurried(Settings())
    assert free.budget_time_s > 86_400 and (free.analyze_timeout_s or 0) > 86_400
    assert investigate.unhurried(Settings(analyze_timeout_s=5.0)).analyze_timeout_s == 5.0


def test_long_values_of_a_transcript_are_cut():
    (line,) = entry_lines({"rows": list(range(5000))})
    assert len(line) < 2100 and line.endswith("characters)")


def test_lines_are_read_as_they_come():
    keyboard = Keyboard("one\ntwo\nthr")
    read = lines_of(keyboard.fileno())
    assert [read(), read()] == ["one", "two"]
    keyboard.close()
    assert [read(), read()] == ["thr", ""]


def test_settings_that_are_left_out_exist():
    assert set(RUN_SETTINGS) > investigate.ELSEWHERE
    assert {"analyzer", "hints", "budget_cost_usd", "leaks", "cache"} <= set(
        RUN_SETTINGS
    ) - investigate.ELSEWHERE


def test_a_person_guides_a_model_over_http(recording, tmp_path, capsys, monkeypatch):
    def obeys(conversation):
        said = [text_of(one) for one in conversation.messages if one["role"] == "user"]
        service = next(
            (name for name in ("middle", "back") if said[-1].endswith(f"Look at {name}.")), "front"
        )
        return submitting(service)(conversation)

    keyboard = Keyboard("Look at middle.\nLook at back.\n\n")
    monkeypatch.setattr("sys.stdin", keyboard)
    with served(obeys) as model:
        spec = f"chat:scripted@{model.url}"
        code = run(
            recording, tmp_path, "--incident", incident(recording), "--interactive", "--analyzer", spec
        )

    out = capsys.readouterr().out
    keyboard.close()
    assert code == 0 and "2 human prompts" in out
    assert ": front; hint: Look at middle." in out and ": middle; hint: Look at back." in out
    assert "tool_call: " in out and out.index("1  middle") < out.rindex("1  back")
