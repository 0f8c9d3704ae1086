"""``otel-diag sql``: opens telemetry for queries by hand."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated

import typer

from pytest_otel_diag.cli.options import takes_settings
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError, TelemetryError, nearest
from pytest_otel_diag.operations.telemetry_shell import OpenTelemetry, opened
from pytest_otel_diag.secret import SecretText

FORMATS = {
    "pretty": "PrettyCompactMonoBlock",
    "vertical": "Vertical",
    "csv": "CSVWithNames",
    "tsv": "TabSeparatedWithNames",
    "json": "JSONEachRow",
    "markdown": "Markdown",
}
"""Names of ``--format``, and those of ClickHouse."""

_OWN_FORMAT = re.compile(r"\bFORMAT\s+\w+\s*$", re.IGNORECASE)
_PART = re.compile(
    r"""
      (?P<command> ^[ \t]*\\[^\n]* )
    | (?P<quoted> '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.)*" | `(?:[^`\\]|\\.)*` )
    | (?P<comment> --[^\n]* | /\*.*?\*/ )
    | (?P<end> ; )
    | (?P<rest> . )
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_END = ("\\q", "exit", "quit")
"""What ends the shell, or a script."""

_HELP = """statements end with ;   \\d lists tables   \\d TABLE lists its columns   \\q ends
Tab completes tables, columns, functions and keywords"""


@takes_settings("store", "cache")
def command(
    settings: Settings,
    where: Annotated[
        str,
        typer.Argument(
            metavar="[RECORDING|RUN[/SESSION]|DSN]",
            help="A recording, the folder of a run that kept telemetry, a session of it, or a store's DSN.",
        ),
    ] = "",
    statement: Annotated[
        str, typer.Option("--command", "-c", metavar="SQL", help="Run these statements and exit.")
    ] = "",
    output: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="|".join(FORMATS),
            help="How answers are printed (default: pretty, tsv in pipes).",
        ),
    ] = "",
) -> None:
    """Query telemetry by hand: in a shell with completion, with -c, or with statements from standard input.

    A recording is loaded into memory; a server is only read.
    """
    place = SecretText(where) if where else settings.store
    if not place:
        raise ConfigurationError(
            "name a recording, a run, a session of a run or a store: otel-diag sql RUN/SESSION"
        )
    shell = not statement and sys.stdin.isatty()
    chosen = _format(output or ("pretty" if sys.stdout.isatty() else "tsv"))
    with opened(place.reveal(), settings.cache_dir()) as telemetry:
        if shell:
            _converse(telemetry, chosen)
            return
        _run(telemetry, statement or sys.stdin.read(), chosen)


def _format(name: str) -> str:
    if name not in FORMATS:
        raise ConfigurationError(
            f"--format={name!r}: choose from {', '.join(FORMATS)}{nearest(name, FORMATS)}; "
            "for others end the statement with FORMAT and a name of ClickHouse"
        )
    return FORMATS[name]


def statements(text: str) -> Iterator[str]:
    r"""Yield the statements of a text, which semicolons outside of quotes and comments separate.

    A command such as ``\d`` ends with its line.
    """
    current = ""
    for part in _PART.finditer(text):
        if part.lastgroup == "command" and not current.strip():
            yield part.group().strip()
        elif part.lastgroup == "end":
            if current.strip():
                yield current.strip()
            current = ""
        elif part.lastgroup == "comment":
            current += " "
        else:
            current += part.group()
    if current.strip():
        yield current.strip()


def _run(telemetry: OpenTelemetry, text: str, output: str) -> None:
    r"""Print the answers to the statements and commands of a text, up to ``\q``."""
    for one in statements(text):
        if one in _END:
            return
        _print(telemetry, _meant(one), output)


def _print(telemetry: OpenTelemetry, sql: str, output: str) -> None:
    """Print the answer; telemetry may hold control characters, which a terminal must not obey."""
    answer = telemetry.answer(sql, None if _OWN_FORMAT.search(sql) else output)
    if not sys.stdout.isatty():
        sys.stdout.flush()
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()
        return
    text = answer.decode(errors="replace")
    typer.echo(
        "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text), nl=False
    )


def _converse(telemetry: OpenTelemetry, output: str) -> None:
    """Read statements from the terminal until the user ends."""
    _complete_with(telemetry.words())
    for line in (*telemetry.about, *_HELP.splitlines()):
        typer.echo(line)
    if telemetry.parameters:
        typer.echo(f"parameters: {', '.join(f'{{{name}:Int64}}' for name in telemetry.parameters)}")
    while (sql := _read()) is not None:
        try:
            _run(telemetry, sql, output)
        except (ConfigurationError, TelemetryError) as error:
            typer.echo(f"{error}", err=True)


def _read() -> str | None:
    """Return what the user wrote, up to a semicolon or a command; None at the end."""
    lines: list[str] = []
    while True:
        try:
            lines.append(input("otel-diag> " if not lines else "      ...> "))
        except EOFError:
            typer.echo()
            return None
        except KeyboardInterrupt:
            typer.echo()
            lines.clear()
            continue
        text = "\n".join(lines).strip()
        if text in _END:
            return None
        if text.endswith(";") or text.startswith("\\") or not text:
            return text


def _meant(text: str) -> str:
    r"""Return the statement that a command such as ``\d`` stands for, other text unchanged."""
    if not text.startswith("\\"):
        return text
    word, _, name = text.rstrip(";").partition(" ")
    if word == "\\d" and name:
        return f"DESCRIBE TABLE {name}"
    if word == "\\d":
        return "SELECT name, total_rows FROM system.tables WHERE database = currentDatabase() ORDER BY name"
    raise ConfigurationError(f"there is no command {word}\n{_HELP}")


def _complete_with(words: Sequence[str]) -> None:
    """Complete words at the prompt with Tab, where Python has readline."""
    with suppress(ImportError):
        import readline  # noqa: PLC0415 - missing on Windows

        readline.set_completer(completer(words))
        readline.set_completer_delims(" \t\n,()=<>+-*/;.")
        bind = "bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete"
        readline.parse_and_bind(bind)


def completer(words: Sequence[str]) -> Callable[[str, int], str | None]:
    """Return what readline asks for the n-th word that begins with a text, in any case of letters."""

    def complete(text: str, n: int) -> str | None:
        found = [word for word in words if word.lower().startswith(text.lower())]
        return found[n] if n < len(found) else None

    return complete
