"""Writes the tables of ``options.md`` and ``commands.md`` from the code: ``python docs/tables.py``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from pytest_otel_diag.cli.app import app
from pytest_otel_diag.config.options import OPTIONS

DOCS = Path(__file__).parent
BEGIN, END = "<!-- table: written by docs/tables.py -->\n", "<!-- end of table -->"


def options() -> str:
    """Return every option as a row of a Markdown table, in the order of ``pytest --help``."""
    rows = ["| option | meaning |", "|---|---|"]
    for option in OPTIONS:
        spelling = option.cli if option.flag else f"{option.cli}={option.metavar}"
        meaning = f"{option.help[:1].upper()}{option.help[1:]}."
        if default := shown(option.default):
            meaning += f" Default: `{default}`."
        if option.legacy_environment:
            meaning += f" Also read from `{option.legacy_environment}`."
        cells = [cell.replace("|", "\\|") for cell in (f"`{spelling}`", meaning)]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def shown(default: object) -> str:
    """Return a default as it would be typed, an empty text for none."""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, float):
        return f"{default:g}"
    return "" if default is None else str(default)


def commands() -> str:
    """Return every command of ``otel-diag`` as a row of a Markdown table."""
    rows = ["| command | what it does |", "|---|---|"]
    rows += [
        f"| `{name}` | {' '.join(text.split())} |" for name, text in _commands(get_command(app), "otel-diag")
    ]
    return "\n".join(rows) + "\n"


def _commands(group: Any, path: str) -> Iterator[tuple[str, str]]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", (command.help or "").partition("\n\n")[0]


PAGES = {"options.md": options, "commands.md": commands}


def written(name: str) -> str:
    """Return the page with its table replaced by a current one."""
    head, rest = (DOCS / name).read_text(encoding="utf-8").split(BEGIN)
    return head + BEGIN + PAGES[name]() + END + rest.split(END)[1]


if __name__ == "__main__":
    for page in PAGES:
        (DOCS / page).write_text(written(page), encoding="utf-8")
