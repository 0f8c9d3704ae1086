"""Writes the table in ``options.md`` from the declared options: ``python docs/options_table.py``."""

from pathlib import Path

from pytest_otel_diag.config.options import OPTIONS

PAGE = Path(__file__).with_name("options.md")
BEGIN, END = "<!-- options: written by docs/options_table.py -->\n", "<!-- end of options -->"


def table() -> str:
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


def written(page: str) -> str:
    """Return the page with its table replaced."""
    head, rest = page.split(BEGIN)
    return head + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
