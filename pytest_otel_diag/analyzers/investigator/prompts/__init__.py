"""The texts that the investigator sends to a model, as files; users replace them by their own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from pytest_otel_diag.errors import ConfigurationError, nearest

PLACEHOLDERS: Mapping[str, frozenset[str]] = {
    "system": frozenset(),
    "task": frozenset({"incident", "baseline", "reference", "now"}),
    "text_protocol": frozenset({"tools"}),
    "last_turn": frozenset({"reason"}),
    "nudge": frozenset({"problem"}),
    "query_problem": frozenset({"problem"}),
}
"""Name of each prompt, and the placeholders that its text may have."""


@dataclass(frozen=True)
class Prompts:
    """The prompts of an investigator; ``replaced`` names those that are the user's."""

    texts: Mapping[str, str]
    replaced: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """A digest of all texts, with the names of those that the user replaced."""
        whole = "\0".join(f"{name}\0{self.texts[name]}" for name in sorted(self.texts))
        digest = hashlib.sha256(whole.encode()).hexdigest()[:12]
        return f"{digest} ({', '.join(self.replaced)} replaced)" if self.replaced else digest

    def render(self, name: str, **values: str) -> str:
        """Return a prompt with its placeholders filled."""
        return Template(self.texts[name]).substitute(values)


def load_prompts(folder: Path | None = None) -> Prompts:
    """Return the prompts; files ``NAME.md`` in *folder* replace the built-in ones of their name.

    Raises ConfigurationError for files of other names, unknown placeholders, and a folder without prompts.
    """
    texts = {
        name: resources.files(__package__).joinpath(f"{name}.md").read_text("utf-8").strip()
        for name in PLACEHOLDERS
    }
    if folder is None:
        return Prompts(texts)
    own = {file.stem: _read(file) for file in sorted(folder.glob("*.md"))}
    if not own:
        raise ConfigurationError(f"there is no prompt in {folder}; write one of {_files()} there")
    for name, text in own.items():
        _check(folder / f"{name}.md", name, text)
    return Prompts(texts | own, tuple(own))


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the prompt {file} cannot be read: {error}") from error


def _check(file: Path, name: str, text: str) -> None:
    if name not in PLACEHOLDERS:
        raise ConfigurationError(f"{file} is no prompt{nearest(name, PLACEHOLDERS)}; known: {_files()}")
    template, allowed = Template(text), PLACEHOLDERS[name]
    if not template.is_valid():
        raise ConfigurationError(f"{file} has a $ that begins no placeholder; write $$ for the character")
    if unknown := sorted(set(template.get_identifiers()) - allowed):
        known = ", ".join(f"${one}" for one in sorted(allowed)) or "none"
        raise ConfigurationError(f"{file} has the unknown placeholder ${unknown[0]}; known here: {known}")


def _files() -> str:
    return ", ".join(f"{name}.md" for name in PLACEHOLDERS)
