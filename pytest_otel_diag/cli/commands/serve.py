"""``otel-diag serve``: the gateway on one recorded incident, to develop an agent against it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from pytest_otel_diag.analyzers.agents.question import (
    QuestionTemplate,
    load_question,
    question_fields,
    question_text,
)
from pytest_otel_diag.cli.commands.investigate import as_data, chosen_scenario, result_lines, unhurried
from pytest_otel_diag.cli.interruption import EXIT_CTRL_C, Stop
from pytest_otel_diag.cli.options import Format, Incident, Recorded, takes_settings, wants_json
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.gateway import Access, Gateway, environment
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.operations.serving import NAME, Calls, ServedAnalyzer, ServedCall
from pytest_otel_diag.operations.telemetry_shell import recording_folder
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.runs.runner import Runner
from pytest_otel_diag.scoring.text import one_line, visible
from pytest_otel_diag.secret import new_token

Echo = Callable[[str], object]

_TRY = """curl -s "$OTEL_DIAG_URL/v1/query" -H @- -d '{"sql": "SELECT count() FROM otel_traces"}' \\
  <<< "Authorization: Bearer $OTEL_DIAG_TOKEN\""""
"""An example that keeps the token out of command lines, which other users can read."""


@takes_settings("question", "seed", "budget_time_s", "budget_queries", "leaks", "cache")
def command(
    settings: Settings,
    where: Recorded,
    incident: Incident = "",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of 127.0.0.1; 0: a free one.")] = 0,
    judge: Annotated[bool, typer.Option("--judge", help="Print whether a diagnosis is right.")] = False,
    output: Format = "text",
) -> None:
    """Serve one recorded incident to an agent over MCP and JSON until Ctrl-C.

    Prints how to reach it, the question, each call, and each diagnosis that is submitted; the next one begins
    with a fresh budget under the same address and token. Exit codes: 0 Ctrl-C, 1 it cannot be served.
    """
    folder = recording_folder(Path(where))
    settings = unhurried(replace(settings, target=f"replay:{folder}"))
    kind = JsonLines if wants_json(output) else Text
    show = kind(typer.echo, load_question(settings.question))
    code = serve(settings, show, port, lambda known: chosen_scenario(known, incident, folder), judge=judge)
    raise typer.Exit(0 if code == EXIT_CTRL_C else code)


def serve(
    settings: Settings,
    show: Show,
    port: int,
    choose: Callable[[Sequence[Scenario]], Scenario],
    *,
    judge: bool = False,
    diagnoses: int = 0,
) -> int:
    """Serve until Ctrl-C or a number of *diagnoses* (0: any); return the exit code."""
    gateway = Gateway(port)
    served = ServedAnalyzer(gateway, new_token(), show.opened)
    try:
        with Runner(settings, analyzers={NAME: served}) as runner:
            runner.attended(Calls(show.call).entry)
            prepared = runner.prepare(choose(runner.target.scenarios()))

            async def work() -> int:
                while True:
                    before = show.openings
                    show.ended(await runner.run(prepared, analyzer=NAME), judge=judge)
                    if show.openings == before:
                        return 1  # the next session would not get further
                    if show.openings == diagnoses:
                        return 0

            return Stop().run(work)
    finally:
        gateway.close()


class Show(ABC):
    """Prints what happens; ``openings`` counts how often the gateway was opened."""

    def __init__(self, echo: Echo, question: QuestionTemplate) -> None:
        self._echo = echo
        self._question = question
        self.openings = 0

    def opened(self, access: Access, investigation: Investigation) -> None:
        """Print how to reach the incident."""
        self.openings += 1
        self._reach(access, investigation)

    @abstractmethod
    def _reach(self, access: Access, investigation: Investigation) -> None: ...

    @abstractmethod
    def call(self, call: ServedCall) -> None:
        """Print a call of a tool that has ended."""

    @abstractmethod
    def ended(self, result: SessionResult, *, judge: bool) -> None:
        """Print the diagnosis, and with *judge* the verdict."""


class Text(Show):
    """Lines for a person."""

    def _reach(self, access: Access, investigation: Investigation) -> None:
        """Print address, token, question and an example once, later only that it goes on."""
        if self.openings > 1:
            self._echo("ready for the next diagnosis, with a fresh budget; Ctrl-C ends")
            return
        for name, value in environment(access).items():
            self._echo(f"export {name}={value}")
        question = question_text(investigation, template=self._question)
        self._echo(f"\n{visible(question)}\n\nTry it:\n{_TRY}\n\nready; Ctrl-C ends")

    def call(self, call: ServedCall) -> None:
        """Print time, name, duration, rows and arguments of the call; its error on a line of its own."""
        rows = "" if call.rows is None else f"{call.rows}{'+' if call.truncated else ''} rows"
        line = f"{call.at_s:8.1f} s  {call.name:<16}  {call.duration_ms:6.0f} ms  {rows:>10}"
        self._echo(f"{line}  {one_line(call.arguments)}")
        if call.error:
            self._echo(f"            {one_line(call.error)}")

    def ended(self, result: SessionResult, *, judge: bool) -> None:
        """Print the diagnosis, and with *judge* the verdict."""
        for line in result_lines(result, judge=judge):
            self._echo(line)


class JsonLines(Show):
    """One JSON object a line, whose ``event`` is ``serving``, ``call`` or ``diagnosis``."""

    def _print(self, event: str, data: dict[str, Any]) -> None:
        self._echo(json.dumps({"event": event, **data}, ensure_ascii=False))

    def _reach(self, access: Access, investigation: Investigation) -> None:
        """Print addresses, token and question."""
        reach = {"url": access.url, "mcp_url": access.mcp_url, "token": access.token.reveal()}
        self._print("serving", {**reach, **question_fields(investigation, template=self._question)})

    def call(self, call: ServedCall) -> None:
        """Print the call."""
        self._print("call", asdict(call))

    def ended(self, result: SessionResult, *, judge: bool) -> None:
        """Print the diagnosis, and with *judge* the verdict."""
        self._print("diagnosis", as_data(result, judge=judge))
