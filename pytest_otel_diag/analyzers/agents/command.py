"""Agents that are started as a command: question on standard input, telemetry over the gateway."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_otel_diag.analyzers.agents import templates
from pytest_otel_diag.analyzers.agents.definition import AgentFile
from pytest_otel_diag.analyzers.agents.json_paths import found_at, parsed
from pytest_otel_diag.analyzers.agents.process import AgentProcess, Finished, Limits, Workplace, workplace
from pytest_otel_diag.analyzers.agents.question import QuestionTemplate, question_fields, question_text
from pytest_otel_diag.analyzers.agents.turns import Reply, diagnosed, usage_from
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import AnalyzerError, ConfigurationError
from pytest_otel_diag.gateway import Access, environment, shared_gateway
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.secret import masked_command

_GRACE_S = 0.5
"""Between SIGTERM and SIGKILL; less than a session waits for an analyzer that it has cancelled."""

_MARGIN_S = 3.0
_MOST_SHARE = 0.1
"""An agent is stopped this long before its session's time ends, at most this share of it, so that an answer
which it has submitted by then counts."""

_QUESTION_FILE = "question.txt"
_MOST_FILE_BYTES = 10_000_000
_SHOWN = 300
_NOT_STARTED = 127


class CommandAnalyzer:
    """Starts a command for each investigation, in a workplace of its own, and reads its answer.

    *folder* is what relative paths of the command refer to. Raises ConfigurationError for a command that
    cannot be started.
    """

    def __init__(
        self, agent: AgentFile, *, folder: Path, question: QuestionTemplate, settings: Settings
    ) -> None:
        self._agent = agent
        self._folder = folder
        self._question = question
        self._passed = (*agent.env, *(name for name in settings.agent_env.split(",") if name))
        templates.hide(self._passed)
        memory_mb = settings.agent_memory_mb if agent.memory_mb is None else agent.memory_mb
        self._limits = Limits(memory_bytes=memory_mb << 20, grace_s=_GRACE_S)
        self._command = (_executable(agent.command[0], folder), *agent.command[1:])

    def describe(self) -> Mapping[str, str]:
        """Return command, question and a digest of all that the agent's file says."""
        text = self._agent.model_dump_json(exclude={"description"})
        return {
            "command": masked_command(self._agent.command),
            "question": self._question.version,
            "agent file": hashlib.sha256(text.encode()).hexdigest()[:12],
        }

    async def prepare(self) -> tuple[str, ...]:
        """Check that the command is still there; raises ConfigurationError."""
        _executable(self._command[0], self._folder)
        return ()

    async def diagnose(self, investigation: Investigation) -> Diagnosis:
        """Return the diagnosis of the agent.

        Raises AnalyzerError for an agent without an answer, ConfigurationError for one that does not start.
        """
        with workplace(self._passed) as place, shared_gateway().access(investigation) as access:
            question = question_text(investigation, template=self._question)
            await investigation.transcript.add("message", {"role": "user", "text": question})
            turn = _Turn(
                self._agent, self._command, self._folder, self._question, place, access, investigation
            )
            run = _Run(turn, self._limits, _timeout_s(self._agent, investigation))
            return await diagnosed(investigation, run, question, repair=self._agent.repair)

    async def close(self) -> None:
        """Hold nothing between investigations."""


@dataclass(frozen=True)
class _Turn:
    """What all turns of one investigation share."""

    agent: AgentFile
    command: Sequence[str]
    folder: Path
    template: QuestionTemplate
    place: Workplace
    access: Access
    investigation: Investigation


class _Run:
    """The channel to a command: each turn starts it once, in the same folders; all share the time."""

    def __init__(self, turn: _Turn, limits: Limits, timeout_s: float) -> None:
        self._turn = turn
        self._limits = limits
        self._timeout_s = timeout_s
        self._ends_s = time.monotonic() + timeout_s

    async def ask(self, question: str) -> Reply:
        """Run the command with this question; raises AnalyzerError when it takes too long."""
        turn = self._turn
        toolbox = turn.access.toolbox
        before = toolbox.submissions
        words = self._prepared(question)
        process = AgentProcess(
            words,
            turn.place,
            environment={**turn.agent.environment, **environment(turn.access)},
            limits=self._limits,
        )
        try:
            finished = await process.run(
                self._stdin(question), timeout_s=max(self._ends_s - time.monotonic(), 0.0)
            )
        except OSError as error:
            raise ConfigurationError(f"the command of the agent cannot be started: {error}") from error
        for stream, text in (("stdout", finished.stdout), ("stderr", finished.stderr)):
            if text:
                await turn.investigation.transcript.add("output", {"stream": stream, "text": text})
        submitted = toolbox.submitted if toolbox.submissions > before else None
        if finished.out_of_time and submitted is None:
            raise AnalyzerError(f"no answer within {self._timeout_s:.4g} s; the command was stopped")
        return self._read(finished, submitted)

    def _stdin(self, question: str) -> bytes:
        turn = self._turn
        if turn.agent.stdin == "none":
            return b""
        if turn.agent.stdin == "json":
            fields = question_fields(turn.investigation, template=turn.template)
            question = json.dumps({**fields, "question": question}, ensure_ascii=False)
        return question.encode("utf-8", "replace")

    def _prepared(self, question: str) -> list[str]:
        """Write the files of this turn; return the command."""
        turn = self._turn
        work = turn.place.work
        values = {
            "question": question,
            "question_file": str(work / _QUESTION_FILE),
            "workdir": str(work),
            "folder": str(turn.folder),
            "url": turn.access.url,
            "mcp_url": turn.access.mcp_url,
        }
        _write(work / _QUESTION_FILE, question)
        for name, text in turn.agent.files.items():
            _write(work / name, templates.filled(text, {**values, "token": turn.access.token.reveal()}))
        return [templates.filled(word, values) for word in turn.command]

    def _read(self, finished: Finished, submitted: Mapping[str, Any] | None) -> Reply:
        turn = self._turn
        code = finished.exit_code
        if code == _NOT_STARTED and finished.stderr.startswith("cannot start "):
            raise ConfigurationError(f"the agent {finished.stderr.strip()[:_SHOWN]}")
        usage, remarks = usage_from(turn.agent.usage, self._report(finished))
        if finished.out_of_time:
            remarks = (*remarks, "the agent was stopped: it went on after its answer until its time was over")
        elif code:
            remarks = (*remarks, f"the agent ended with {_ending(code)}")
        missing = (
            f"the agent ended with {_ending(code)}, and its answer is in none of "
            f"{', '.join(turn.agent.answer)}{_words(finished)}"
        )
        places = list(_places(turn.agent.answer, turn.place, finished, submitted))
        return Reply(places, usage, remarks, missing)

    def _report(self, finished: Finished) -> Any:
        """Return the JSON in which usage is looked up: all files that may hold the answer, and stdout."""
        agent = self._turn.agent
        names = [
            one.partition("#")[0].removeprefix("file:") for one in agent.answer if one.startswith("file:")
        ]
        texts = [_text(self._turn.place, name) for name in names]
        return [one for one in (parsed(finished.stdout), *map(parsed, texts)) if one is not None]


def _places(
    sources: Sequence[str], place: Workplace, finished: Finished, submitted: Mapping[str, Any] | None
) -> Iterator[Mapping[str, Any] | str]:
    """Yield what stands where the answer may be, in the order of the agent's file."""
    for source in sources:
        kind, _, path = source.partition("#")
        if kind == "submit":
            if submitted is not None:
                yield submitted
            continue
        text = finished.stdout if kind == "stdout" else _text(place, kind.removeprefix("file:"))
        found = found_at(parsed(text), path) if path else text
        if isinstance(found, Mapping | str):
            yield found


def _text(place: Workplace, name: str) -> str:
    data = place.read(name, _MOST_FILE_BYTES)
    return "" if data is None else data.decode("utf-8", "replace")


def _write(file: Path, text: str) -> None:
    """Write a file that nobody else can read, in place of what an earlier turn left there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as opened:
        opened.write(text)


def _timeout_s(agent: AgentFile, investigation: Investigation) -> float:
    whole_s = investigation.budget.time_s
    own_s = whole_s - min(_MARGIN_S + _GRACE_S, whole_s * _MOST_SHARE)
    return own_s if agent.timeout_s is None else min(agent.timeout_s, own_s)


def _executable(name: str, folder: Path) -> str:
    """Return the path of a program; raises ConfigurationError where there is none."""
    path = str(folder / name) if "/" in name else name
    found = shutil.which(path)
    if found is None:
        what = "is not executable" if "/" in name and Path(path).is_file() else "is not found"
        raise ConfigurationError(
            f"the command of the agent {what}: {path}; give a program of PATH or its path"
        )
    return str(Path(found).absolute())


def _ending(code: int) -> str:
    if code <= 128:
        return f"exit code {code}"
    try:
        return f"exit code {code} ({signal.Signals(code - 128).name})"
    except ValueError:
        return f"exit code {code}"


def _words(finished: Finished) -> str:
    last = (finished.stderr.strip() or finished.stdout.strip())[-_SHOWN:]
    return f"; its last words: {' '.join(last.split())}" if last else "; it wrote nothing"


def words_of(rest: str) -> tuple[str, ...]:
    """Return the words of ``command:rest``; existing files are named by their whole path.

    The command runs in an empty folder, where relative names would lead nowhere. Raises ConfigurationError.
    """
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise ConfigurationError(f"command: cannot be split into words: {error}") from error
    if not words:
        raise ConfigurationError("command: names no program; write command:PROGRAM ARGUMENTS")
    return tuple(str(Path(word).absolute()) if Path(word).is_file() else word for word in words)
