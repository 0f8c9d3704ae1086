"""Writes the tables of options, commands and events from the code: ``python docs/tables.py``."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from typer.main import get_command

from pytest_otel_diag.cli.app import app
from pytest_otel_diag.config.options import OPTIONS
from pytest_otel_diag.model.events import SessionEvent
from pytest_otel_diag.tools import ALIASES, TOOLS, Tool

DOCS = Path(__file__).parent
BEGIN, END = "<!-- table: written by docs/tables.py -->\n", "<!-- end of table -->"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    cells = [header, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    head, *body = [f"| {' | '.join(row)} |\n" for row in cells]
    return "".join([head, "|---" * len(header), "|\n", *body])


def options() -> str:
    """Return a table of every option, in the order of ``pytest --help``."""
    return table(("option", "meaning"), _options())


def _options() -> Iterator[tuple[str, str]]:
    for option in OPTIONS:
        spelling = option.cli if option.flag else f"{option.cli}={option.metavar}"
        meaning = f"{option.help[:1].upper()}{option.help[1:]}."
        if default := shown(option.default):
            meaning += f" Default: `{default}`."
        if option.legacy_environment:
            meaning += f" Also read from `{option.legacy_environment}`."
        if option.pytest_only:
            meaning += " For pytest only."
        yield f"`{spelling}`", meaning


def shown(default: object) -> str:
    """Return a default as it would be typed, an empty text for none."""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, float):
        return f"{default:g}"
    return "" if default is None else str(default)


def commands() -> str:
    """Return a table of every command of ``otel-diag``."""
    known = _commands(get_command(app), "otel-diag")
    return table(("command", "what it does"), ((f"`{name}`", " ".join(text.split())) for name, text in known))


def _commands(group: Any, path: str) -> Iterator[tuple[str, str]]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", (command.help or "").partition("\n\n")[0]


def events() -> str:
    """Return a table of every kind of event, in the order in which a session emits them."""
    return table(("`kind`", "fields", "meaning"), _events())


def _events() -> Iterator[tuple[str, str, str]]:
    union, _ = get_args(SessionEvent)
    for event in get_args(union):
        own = [f"`{name}`" for name in inspect.get_annotations(event) if name != "kind"]
        meaning = " ".join((event.__doc__ or "").replace("``", "`").split())
        yield f"`{event.model_fields['kind'].default}`", ", ".join(own), meaning


def tools() -> str:
    """Return what a model reads of every tool, in the order of the list."""
    return "\n".join(_tool(tool) for tool in (*TOOLS, *ALIASES))


def _tool(tool: Tool) -> str:
    text, _, example = tool.description.partition(" Example: ")
    parts = [f"### `{tool.name}`\n", f"{text}\n", f"```json\n{example}\n```\n"]
    arguments = tool.arguments.model_fields.items()
    if arguments:
        rows = [
            (f"`{name}`" + (" (required)" if field.is_required() else ""), field.description or "")
            for name, field in arguments
        ]
        parts.append(table(("argument", "meaning"), rows))
    return "\n".join(parts)


PAGES = {"options.md": options, "commands.md": commands, "events.md": events, "agents/tools.md": tools}


def written(name: str) -> str:
    """Return the page with its table replaced by a current one."""
    head, rest = (DOCS / name).read_text(encoding="utf-8").split(BEGIN)
    return head + BEGIN + PAGES[name]() + END + rest.split(END)[1]


if __name__ == "__main__":
    for page in PAGES:
        (DOCS / page).write_text(written(page), encoding="utf-8")
