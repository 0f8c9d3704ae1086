"""Placeholders ``{name}`` in commands, files and requests of agents; other braces stay as they are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pytest_otel_diag.errors import nearest
from pytest_otel_diag.secret import credential

WORDS = frozenset({"question", "question_file", "workdir", "folder", "url", "mcp_url"})
"""Placeholders of the words of a command."""
FILES = WORDS | {"token"}
REQUEST = frozenset({"question", "question_json", "url", "mcp_url", "token"})
HEADERS = frozenset({"token"})

_PLACEHOLDER = re.compile(r"\{(env\.[A-Za-z_]\w*|[a-z_]+)\}")
_VARIABLE = "env."
_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)
_CLOSE = 0.8


def mistakes(text: str, allowed: Iterable[str], *, variables: bool = False) -> tuple[str, ...]:
    """Return what is wrong with the placeholders of a text: a visible token, misspelt names."""
    known = frozenset(allowed)
    found = []
    for name in dict.fromkeys(_PLACEHOLDER.findall(text)):
        if name.startswith(_VARIABLE):
            if variables and not os.environ.get(name.removeprefix(_VARIABLE)):
                found.append(f"the environment variable {name.removeprefix(_VARIABLE)} is not set")
        elif name == "token" and name not in known:
            found.append(
                "{token} would be visible to other users of this machine; write it into one of files, or let "
                "the agent read the environment variable OTEL_DIAG_TOKEN"
            )
        elif name not in known and (hint := nearest(name, known, cutoff=_CLOSE)):
            found.append(f"{{{name}}} is no placeholder{hint}")
    return tuple(found)


def filled(text: str, values: Mapping[str, str], *, variables: bool = False) -> str:
    """Return a text with the placeholders of *values* filled, once; with *variables* ``{env.NAME}`` too."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if variables and name.startswith(_VARIABLE):
            return os.environ.get(name.removeprefix(_VARIABLE), "")
        return values.get(name, match[0])

    return _PLACEHOLDER.sub(value, text)


def filled_in(value: Any, values: Mapping[str, Any]) -> Any:
    """Return JSON with the placeholders in all of its texts filled.

    A text that is one placeholder whose value is an object becomes that object.
    """
    if isinstance(value, str):
        match = _PLACEHOLDER.fullmatch(value)
        if match and not isinstance(values.get(match[1], ""), str):
            return values[match[1]]
        return filled(value, {name: one for name, one in values.items() if isinstance(one, str)})
    if isinstance(value, Mapping):
        return {name: filled_in(item, values) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [filled_in(item, values) for item in value]
    return value


def hide(names: Iterable[str]) -> None:
    """Mask the values of environment variables that are named like credentials wherever texts are shown."""
    for name in names:
        if _SECRET_NAME.search(name):
            credential(os.environ.get(name, ""))
