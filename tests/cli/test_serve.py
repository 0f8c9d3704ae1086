"""``otel-diag serve``: an agent over real HTTP against one recorded incident."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from pytest_otel_diag.analyzers.agents.question import standard_question
from pytest_otel_diag.cli.commands.investigate import chosen_scenario
from pytest_otel_diag.cli.commands.serve import JsonLines, Show, Text, serve
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from tests.support import tiny_shop
from tests.support.deadlines import deadline_s

SQL = "SELECT ServiceName, count() FROM otel_traces GROUP BY ServiceName"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_shop.write(tmp_path_factory.mktemp("serve") / "tiny")


class Terminal:
    """Collects what is printed, and lets an agent work in a thread each time the gateway is open."""

    def __init__(self, opened: str, work: Callable[[Terminal], None]) -> None:
        self.lines: list[str] = []
        self.failures: list[BaseException] = []
        self._opened = opened
        self._work = work
        self._agents: list[threading.Thread] = []

    def __call__(self, text: str) -> None:
        self.lines.append(text)
        if self._opened in text:
            self._agents.append(threading.Thread(target=self._agent, daemon=True))
            self._agents[-1].start()

    def _agent(self) -> None:
        try:
            self._work(self)
        except BaseException as error:
            self.failures.append(error)

    def join(self) -> None:
        for agent in self._agents:
            agent.join(deadline_s(20))
        assert not self.failures, self.failures

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def run(recording: Path, tmp_path: Path, show: Show, terminal: Terminal, diagnoses: int) -> int:
    settings = Settings(target=f"replay:{recording}", cache=str(tmp_path), budget_queries=3)
    incident = json.loads((recording / "cases.json").read_text())[0]["id"]
    code = serve(
        settings,
        show,
        0,
        lambda known: chosen_scenario(known, incident, recording),
        judge=True,
        diagnoses=diagnoses,
    )
    terminal.join()
    return code


def test_an_agent_is_served_one_diagnosis_after_another(recording, tmp_path):
    def agent(terminal: Terminal) -> None:
        reach = dict(re.findall(r"export OTEL_DIAG_(\w+)=(\S+)", terminal.text))
        headers = {"authorization": f"Bearer {reach['TOKEN']}"}
        with httpx.Client(base_url=reach["URL"], headers=headers, timeout=deadline_s(20)) as client:
            assert client.post("/v1/query", json={"sql": SQL}).json()["rows"]
            assert "nope" in client.post("/v1/query", json={"sql": "SELECT nope FROM otel_traces"}).text
            first = "second answer" in terminal.text
            answer = {"detected": True, "root_causes": [{"service": "front" if first else "back"}]}
            reply = client.post("/v1/diagnosis", json={**answer, "summary": "second answer"}).json()
            assert reply == {"status": "accepted"}

    terminal = Terminal("Ctrl-C ends", agent)
    assert run(recording, tmp_path, Text(terminal, standard_question()), terminal, 2) == 0
    printed = terminal.text
    assert printed.count("export OTEL_DIAG_TOKEN=") == 1, "the second diagnosis uses the same token"
    assert re.search(r"incident: .*Z \(start_ns \d+, end_ns \d+\)", printed)
    assert "submit_diagnosis" in printed and "incident-back" not in printed
    assert re.search(r"query +\d+ ms +3 rows  \{\"sql\": \"SELECT ServiceName", printed)
    assert "Unknown expression identifier `nope`" in printed
    assert re.search(r"1  back\b", printed) and re.search(r"1  front\b", printed)
    assert "verdict: the root cause was not named first" in printed
    assert printed.count("2 queries") == 2, "each diagnosis has a budget of its own"


def test_programs_get_json_lines(recording, tmp_path):
    def agent(terminal: Terminal) -> None:
        reach = json.loads(terminal.lines[0])
        headers = {"authorization": f"Bearer {reach['token']}"}
        with httpx.Client(base_url=reach["url"], headers=headers, timeout=deadline_s(20)) as client:
            client.post("/v1/tools/list_services", json={})
            client.post("/v1/diagnosis", json={"detected": False})

    terminal = Terminal('"event": "serving"', agent)
    assert run(recording, tmp_path, JsonLines(terminal, standard_question()), terminal, 1) == 0
    serving, *calls, diagnosis = (json.loads(line) for line in terminal.lines)
    assert serving["incident"]["end_ns"] == serving["now_ns"]
    assert serving["mcp_url"] == f"{serving['url']}/mcp"
    assert [(call["event"], call["name"], call["error"]) for call in calls] == [
        ("call", "list_services", ""),
        ("call", "submit_diagnosis", ""),
    ]
    assert calls[0]["rows"] == 3
    assert diagnosis["event"] == "diagnosis"
    assert diagnosis["diagnosis"]["detected"] is False
    assert "verdict" in diagnosis


def test_an_unknown_incident_is_refused_before_anything_is_served(recording, tmp_path):
    terminal = Terminal("never", lambda _: None)
    settings = Settings(target=f"replay:{recording}", cache=str(tmp_path))
    with pytest.raises(ConfigurationError, match="choose from"):
        serve(
            settings,
            Text(terminal, standard_question()),
            0,
            lambda known: chosen_scenario(known, "nothing", recording),
        )
    assert not terminal.lines
