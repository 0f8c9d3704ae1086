"""Commands under test: real processes, what they get, where their answer is, and what they leave behind."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pytest_otel_diag.analyzers.agents.opening import open_agent, open_command
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import AnalyzerError, ConfigurationError
from pytest_otel_diag.gateway import shared_gateway
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.ports import Investigation
from tests.support.deadlines import deadline_s

ANSWER = '{"root_causes": ["middle"]}'


def agent(tmp_path: Path, **fields: Any) -> str:
    file = tmp_path / "agent.yaml"
    file.write_text(json.dumps(fields))
    return str(file)


def sh(tmp_path: Path, script: str, **fields: Any) -> str:
    return agent(tmp_path, command=["sh", "-c", script], **fields)


async def diagnose(file: str, investigation: Investigation) -> Diagnosis:
    analyzer = open_agent(file, Settings())
    return await asyncio.wait_for(analyzer.diagnose(investigation), deadline_s(30))


def left_behind() -> list[str]:
    return [str(one) for one in Path(tempfile.gettempdir()).glob("otel-diag-agent-*")]


def running(mark: str) -> list[bytes]:
    lines = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if file.exists()]
    return [line for line in lines if mark.encode() in line]


async def test_a_command_asks_over_json_and_submits(investigation, transcript, tmp_path):
    script = tmp_path / "client.py"
    script.write_text(
        "import json, os, sys, urllib.request\n"
        "def call(path, body):\n"
        "    headers = {'Authorization': 'Bearer ' + os.environ['OTEL_DIAG_TOKEN']}\n"
        "    url = os.environ['OTEL_DIAG_URL'] + path\n"
        "    request = urllib.request.Request(url, json.dumps(body).encode(), headers)\n"
        "    return json.load(urllib.request.urlopen(request))\n"
        "assert 'incident: ' in sys.stdin.read() and os.listdir('.') == ['question.txt']\n"
        "assert os.listdir(os.environ['HOME']) == []\n"
        "sql = \"SELECT ServiceName FROM otel_traces WHERE StatusCode = 'Error' GROUP BY 1 \" \\\n"
        "    'ORDER BY count() DESC LIMIT 1'\n"
        "service = call('/v1/query', {'sql': sql})['rows'][0][0]\n"
        "call('/v1/diagnosis', {'detected': True, 'root_causes': [{'service': service}]})\n"
        "print('done')\n"
    )
    analyzer = open_command(f"{sys.executable} {script}", Settings())

    diagnosis = await analyzer.diagnose(investigation)

    assert diagnosis.detected
    assert diagnosis.root_causes[0].service
    assert transcript.of("output") == "done\n"
    assert len(investigation.telemetry.records) == 1
    assert left_behind() == []


async def test_the_environment_is_clean(investigation, transcript, tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_DIAG_STORE", "clickhouse://u:secret-password@h/d")
    monkeypatch.setenv("A_KEY", "key-of-a-model")
    file = sh(tmp_path, f"env; echo '{ANSWER}'", env=["A_KEY"], environment={"FIXED": "yes"})

    await diagnose(file, investigation)

    names = {line.partition("=")[0] for line in transcript.of("output").splitlines()}
    assert {"A_KEY", "FIXED", "PATH", "HOME", "OTEL_DIAG_TOKEN", "OTEL_DIAG_URL"} <= names
    assert not {name for name in names if name.startswith(("PYTEST_", "OTEL_DIAG_STORE"))}


async def test_files_are_rendered_for_nobody_else(investigation, transcript, tmp_path):
    file = sh(
        tmp_path,
        f"stat -c %a conf/a.json; cat conf/a.json; echo '{ANSWER}'",
        files={"conf/a.json": '{"u": "{mcp_url}", "t": "{token}", "other": {}}'},
        stdin="none",
    )

    await diagnose(file, investigation)

    text = transcript.of("output")
    assert text.startswith('600\n{"u": "http://127.0.0.1:')
    assert '"t": "otd_' in text


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        (f"echo '{ANSWER}' > out.json; echo noise", ["submit", "file:out.json", "stdout"]),
        ("echo 'thinking...'; echo 'Root cause: middle'", ["submit", "stdout"]),
        ("""echo '{"x": 1}'; echo '{"result": "Root cause: middle"}'""", ["stdout#result"]),
        (f"""echo '{{"list": [{{"answer": {ANSWER}}}]}}' > o""", ["file:o#list.0.answer"]),
        (f"ln -s /etc/hostname out.json; echo '{ANSWER}'", ["file:out.json", "stdout"]),
    ],
)
async def test_the_answer_is_found_where_the_file_says(investigation, tmp_path, script, answer):
    diagnosis = await diagnose(sh(tmp_path, script, answer=answer), investigation)

    assert [cause.service for cause in diagnosis.root_causes] == ["middle"]


async def test_usage_is_read_by_paths(investigation, tmp_path):
    script = f"""echo '{{"text": "x", "u": {{"in": 7, "cost": "much"}}, "diagnosis": {ANSWER}}}'"""
    usage = {"input_tokens": "u.in", "cost_usd": "u.cost", "steps": "u.steps"}

    diagnosis = await diagnose(sh(tmp_path, script, usage=usage), investigation)

    assert diagnosis.usage.input_tokens == 7
    assert "usage cost_usd at 'u.cost' is 'much'" in diagnosis.summary
    assert "no steps at 'u.steps'" in diagnosis.summary


async def test_hints_are_answered_by_another_run(investigation, tmp_path):
    class Guide:
        hints = iter(["look deeper", None])

        async def next(self, diagnosis: Diagnosis | None) -> str | None:
            return next(self.hints)

    script = (
        "question=$(cat); case $question in "
        """*'right: none'*'A hint: look deeper"'*) echo '{"root_causes": ["middle"]}';; *) echo hm;; esac"""
    )
    guided = dataclasses.replace(investigation, guidance=Guide())

    diagnosis = await diagnose(sh(tmp_path, script, stdin="json"), guided)

    assert diagnosis.root_causes[0].service == "middle"


async def test_an_exit_code_beside_an_answer_is_a_remark(investigation, tmp_path):
    diagnosis = await diagnose(sh(tmp_path, f"echo '{ANSWER}'; exit 3"), investigation)

    assert diagnosis.summary == "(the agent ended with exit code 3)"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 0", "no answer: the agent ended with exit code 0.*; it wrote nothing"),
        ("echo broken pipe >&2; exit 4", "exit code 4.*its last words: broken pipe"),
        ("echo The payment seems odd", "unparsed: .*The payment seems odd"),
        ("kill -9 $$", "SIGKILL"),
    ],
)
async def test_no_answer_says_why(investigation, tmp_path, script, words):
    with pytest.raises(AnalyzerError, match=words):
        await diagnose(sh(tmp_path, script), investigation)


async def test_one_repair_is_asked_for_and_counted(investigation, tmp_path):
    script = f"if grep -q 'Return only this JSON'; then echo '{ANSWER}'; else echo 'I think it is middle'; fi"

    diagnosis = await diagnose(sh(tmp_path, script, repair=True), investigation)

    assert diagnosis.root_causes[0].service == "middle"
    assert diagnosis.usage.repairs == 1


async def test_a_stalling_command_and_all_it_started_end_with_its_time(investigation, transcript, tmp_path):
    mark = f"4{os.getpid()}"
    script = f"echo thinking; trap '' TERM; setsid sleep {mark} & sleep {mark}"
    begun = len(shared_gateway()._running.leases) if shared_gateway()._running else 0

    with pytest.raises(AnalyzerError, match=r"no answer within .* s; the command was stopped"):
        await diagnose(sh(tmp_path, script, timeout_s=deadline_s(0.5)), investigation)

    assert transcript.of("output") == "thinking\n"

    assert running(mark) == []
    assert left_behind() == []
    assert len(shared_gateway()._running.leases) == begun


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8])
async def test_cancelling_while_it_starts_leaves_nothing(investigation, tmp_path, steps):
    mark = f"5{os.getpid()}"
    analyzer = open_agent(sh(tmp_path, f"sleep {mark}"), Settings())
    task = asyncio.create_task(analyzer.diagnose(investigation))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, deadline_s(30))

    assert running(mark) == []
    assert left_behind() == []


async def test_an_answer_submitted_before_the_time_is_over_counts(investigation, tmp_path):
    script = (
        """curl -s -H "Authorization: Bearer $OTEL_DIAG_TOKEN" """
        f"""-d '{ANSWER}' "$OTEL_DIAG_URL/v1/diagnosis"; sleep 600"""
    )

    diagnosis = await diagnose(sh(tmp_path, script, timeout_s=deadline_s(1)), investigation)

    assert diagnosis.root_causes[0].service == "middle"
    assert "went on after its answer" in diagnosis.summary


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "give either command or http"),
        ({"command": ["no-such-program"]}, "is not found: no-such-program"),
        ({"command": ["./agent.yaml"]}, "is not executable"),
        ({"command": ["sh", "{token}"]}, r"agent.yaml:1: command: \{token\} would be visible"),
        ({"command": ["sh", "{mcp_urll}"]}, r"\{mcp_urll\} is no placeholder \(did you mean 'mcp_url'"),
        ({"command": ["sh"], "files": {"../x": ""}}, "no path inside"),
        ({"command": ["sh"], "answer": ["stderr"]}, "'stderr' is no place of an answer"),
        ({"command": ["sh"], "usage": {"money": "x"}}, "'money' is no usage"),
        ({"command": ["sh"], "env": ["NO_SUCH_KEY"]}, "NO_SUCH_KEY is not set"),
        ({"command": ["sh"], "timeout": 3}, "timeout: Extra inputs"),
    ],
)
def test_mistakes_in_a_file_are_found_before_anything_runs(tmp_path, fields, words):
    with pytest.raises(ConfigurationError, match=words):
        open_agent(agent(tmp_path, **fields), Settings())


@pytest.mark.parametrize(
    ("rest", "words"),
    [("", "names no program"), ("'x", "cannot be split"), ("sh -c {token}", "would be visible")],
)
def test_commands_that_cannot_be_started_are_refused(rest, words):
    with pytest.raises(ConfigurationError, match=words):
        open_command(rest, Settings())


def test_an_agent_describes_itself_without_credentials(tmp_path):
    described = open_command("sh -c true --api-key=abcdefghijk", Settings()).describe()

    assert "abcdefghijk" not in str(described)
    assert set(described) == {"command", "question", "agent file"}
