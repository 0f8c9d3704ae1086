"""``otel-diag investigate``: one investigation of a recorded incident, followed or guided by a person."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from pytest_otel_diag.cli.interruption import Stop
from pytest_otel_diag.cli.options import RUN_SETTINGS, Format, Incident, Recorded, takes_settings, wants_json
from pytest_otel_diag.cli.output import print_json, width
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.daemon import in_daemon
from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import SessionResult, Status
from pytest_otel_diag.model.transcript import TranscriptEntry
from pytest_otel_diag.operations.telemetry_shell import recording_folder
from pytest_otel_diag.runs.runner import Runner
from pytest_otel_diag.scoring.findings import anomaly_rows, cause_rows
from pytest_otel_diag.scoring.reasons import reason_of
from pytest_otel_diag.scoring.text import count, table, visible, wrapped

ReadLine = Callable[[], str]
"""Returns a line as it was typed, '' at the end of the input."""

_NO_LIMIT_S = 7 * 24 * 3600.0
"""Time limit of an analyzer that waits for a person, unless the user sets one."""

_VALUE_CHARACTERS = 2000
"""Longest value of a transcript that is printed."""

_ANOMALIES = 10
"""Anomalies of an answer that are printed, the strongest first."""

_PROMPT = "your message (empty: accept the answer)> "


ELSEWHERE = frozenset(
    {
        *("target", "frontend", "flags", "flagd", "otlp_receiver", "drive", "restart", "state"),
        *("lease_wait_s", "setup_only", "skip_cleanup", "record", "keep", "reports", "repeat"),
        *("impact_timeout_s", "impact_poll_s", "impact_threshold", "observe_s", "session_timeout_s"),
        *("inconclusive", "min_sensitivity", "max_false_positives", "min_top1"),
    }
)
"""Settings of a run that mean nothing to one investigation of a recording."""


@takes_settings(*(name for name in RUN_SETTINGS if name not in ELSEWHERE))
def command(
    settings: Settings,
    where: Recorded,
    incident: Incident = "",
    interactive: Annotated[
        bool,
        typer.Option(
            "--interactive", help="Guide the analyzer with messages; each counts as a human prompt."
        ),
    ] = False,
    judge: Annotated[bool, typer.Option("--judge", help="Print whether the diagnosis is right.")] = False,
    output: Format = "text",
) -> None:
    """Investigate one recorded incident and print the diagnosis.

    Exit codes: 0 the analyzer answered, 1 it failed or could not be run, 2 Ctrl-C.
    """
    as_json = wants_json(output)
    folder = recording_folder(Path(where))
    settings = replace(settings, target=f"replay:{folder}")
    if interactive:
        settings = unhurried(settings)
    read = lines_of(sys.stdin.fileno()) if interactive else str
    show = Show(lambda text, nl=True: typer.echo(text, err=as_json, nl=nl), read)
    with Runner(settings) as runner:
        runner.attended(show.entry, show.reply if interactive else None)
        chosen = chosen_scenario(runner.target.scenarios(), incident, folder)
        raise typer.Exit(investigate(runner, chosen, judge=judge, as_json=as_json))


def unhurried(settings: Settings) -> Settings:
    """Return the settings without time limits that the user did not set: a person may think."""
    given = settings.not_default()
    return replace(
        settings,
        budget_time_s=settings.budget_time_s if "budget_time_s" in given else _NO_LIMIT_S,
        analyze_timeout_s=settings.analyze_timeout_s or _NO_LIMIT_S,
    )


def chosen_scenario(known: Sequence[Scenario], wanted: str, folder: Path) -> Scenario:
    """Return the scenario with the id *wanted*, or the only one; raises ConfigurationError."""
    ids = [scenario.id for scenario in known]
    found = [scenario for scenario in known if wanted in ("", scenario.id)]
    if len(found) == 1:
        return found[0]
    choices = "".join(f"\n  {name}" for name in ids)
    if wanted:
        raise ConfigurationError(
            f"{folder} has no incident {wanted!r}{nearest(wanted, ids)}; choose from:{choices}"
        )
    raise ConfigurationError(
        f"{folder} has {count(len(ids), 'incident')}; choose one with --incident:{choices}"
    )


class Echo(Protocol):
    """Prints a text, and a line break unless *nl* is False."""

    def __call__(self, text: str, nl: bool = True) -> None:
        """Print the text."""
        ...


class Show:
    """Prints an investigation as it happens, and asks the person for messages."""

    def __init__(self, echo: Echo, read: ReadLine) -> None:
        self._echo = echo
        self._read = read

    def entry(self, _session_id: str, entry: TranscriptEntry) -> None:
        """Print an entry of the transcript."""
        for number, line in enumerate(entry_lines(entry.content)):
            self._echo(f"{f'[{entry.at_s:.1f} s] {entry.kind}: ' if number == 0 else '    '}{line}")

    async def reply(self, diagnosis: Diagnosis | None) -> str | None:
        """Print the attempt and return the person's message, None at its end."""
        for line in ["the analyzer has no answer yet"] if diagnosis is None else answer_lines(diagnosis):
            self._echo(line)
        self._echo(_PROMPT, nl=False)
        # A thread that nobody waits for: a blocked read must not keep Ctrl-C from ending the command.
        typed = await in_daemon(self._read, "otel-diag keyboard")
        if not sys.stdin.isatty():  # a terminal shows what is typed
            self._echo(visible(typed))
        return typed.strip() or None


def entry_lines(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield the values of an entry of a transcript, one a line; a terminal obeys nothing in them."""
    for key, value in content.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        cut = f" … ({len(text):,} characters)" if len(text) > _VALUE_CHARACTERS else ""
        yield f"{visible(key)} = {visible(text[:_VALUE_CHARACTERS])}{cut}"


def lines_of(descriptor: int) -> ReadLine:
    """Return what reads lines from a file descriptor.

    Without the buffer of ``sys.stdin``, whose lock a thread that waits for a line would hold at the exit.
    """
    pending = bytearray()

    def read() -> str:
        while b"\n" not in pending:
            more = os.read(descriptor, 65_536)
            if not more:
                break
            pending.extend(more)
        line, _, rest = bytes(pending).partition(b"\n")
        pending[:] = rest
        return line.decode(errors="replace")

    return read


def investigate(runner: Runner, scenario: Scenario, *, judge: bool, as_json: bool) -> int:
    """Run one session and print how it ended; return the exit code."""
    prepared = runner.prepare(scenario)
    stop = Stop()

    async def work() -> int:
        result = await runner.run(prepared)
        if as_json:
            print_json(as_data(result, judge=judge))
        else:
            for line in result_lines(result, judge=judge):
                typer.echo(line)
        return 0 if result.diagnosis is not None and result.status is Status.SCORED else 1

    return stop.run(work)


def as_data(result: SessionResult, *, judge: bool) -> dict[str, Any]:
    """Return the outcome as JSON data: status, diagnosis, attempts; with *judge* the verdict."""
    shown = {"status", "reason", "diagnosis", "attempts", *({"verdict"} if judge else ())}
    data = result.model_dump(mode="json", include=shown)
    if not judge:
        for attempt in data["attempts"]:
            del attempt["right"]
    return data


def result_lines(result: SessionResult, *, judge: bool) -> Iterator[str]:
    """Yield the diagnosis for a person; with *judge* whether it is right."""
    if result.diagnosis is None:
        yield f"no diagnosis: {visible(result.reason)}"
        return
    for attempt in result.attempts:
        said = attempt.cause or ("something is wrong" if attempt.detected else "nothing")
        verdict = "" if attempt.right is None or not judge else " (right)" if attempt.right else " (wrong)"
        hint = f"; hint: {visible(attempt.hint)}" if attempt.hint else ""
        yield f"attempt after {attempt.elapsed_s:.1f} s: {visible(said)}{verdict}{hint}"
    yield from answer_lines(result.diagnosis)
    usage = result.diagnosis.usage
    yield f"{count(len(result.queries), 'query', 'queries')}, {count(usage.human_prompts, 'human prompt')}"
    if judge:
        yield f"verdict: {reason_of(result) or 'right'}"


def answer_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield an answer of the analyzer for a person."""
    found = "something is wrong" if diagnosis.detected else "nothing is wrong"
    yield f"answer: {found} (confidence {diagnosis.confidence:.2f})"
    columns = width()
    if diagnosis.summary:
        yield from wrapped(visible(diagnosis.summary), columns)
    for title, rows in (
        ("root causes", cause_rows(diagnosis.root_causes)),
        ("anomalies", anomaly_rows(diagnosis.anomalies)[: _ANOMALIES + 1]),
    ):
        if rows:
            yield f"{title}:"
            yield from table([[visible(cell) for cell in row] for row in rows], width=columns)
    if diagnosis.query is not None:
        yield "query:"
        yield from (f"  {visible(line)}" for line in diagnosis.query.sql.splitlines())
