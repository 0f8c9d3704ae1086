"""Reads YAML into plain data that knows the line of every value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pytest_otel_diag.errors import ScenarioError
from pytest_otel_diag.scenario_files.schema import TEXT_KEYS
from pytest_otel_diag.yaml_words import OnOffLoader

Place = tuple[str | int, ...]
"""Keys and list positions from the top of a document, as pydantic locates errors."""

_NULL = "tag:yaml.org,2002:null"
_MOST_VALUES = 50_000
"""Most values of one file, with aliases expanded; a few aliases of aliases would make billions."""

_DEEPEST = 20
"""Deepest nesting: no scenario is nested deeper, but an alias to its own parent is."""


class ScenarioFileError(ScenarioError):
    """A scenario file has mistakes; the message lists all of them with their lines."""


@dataclass
class Document:
    """Plain data with the line of every place; ``mistakes`` are those of the YAML itself."""

    path: Path
    data: Any
    lines: dict[Place, int] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)

    def line(self, place: Place) -> int:
        """Return the line (from 1) of the closest place that exists."""
        for length in range(len(place), -1, -1):
            if place[:length] in self.lines:
                return self.lines[place[:length]]
        return 1

    def at(self, place: Place, message: str) -> str:
        """Return a mistake with its place in the file and in the document."""
        where = ".".join(str(part) for part in place)
        return f"{self.path}:{self.line(place)}: {f'{where}: ' if where else ''}{message}"


def read_document(path: Path) -> Document:
    """Read a YAML document; raises ScenarioFileError when it cannot be read at all."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioFileError(f"{path}: cannot be read: {error}") from None
    try:
        loader = OnOffLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise ScenarioFileError(f"{path}:1: the file is empty; a scenario starts with schema: 1")
        document = Document(path, None)
        document.data = _convert(node, loader, document, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise ScenarioFileError(f"{path}:{line}: not YAML: {error.problem or error}") from None
    except yaml.YAMLError as error:
        raise ScenarioFileError(f"{path}: not YAML: {error}") from None
    return document


def _convert(node: yaml.Node, loader: OnOffLoader, document: Document, place: Place) -> Any:
    document.lines.setdefault(place, node.start_mark.line + 1)
    if len(document.lines) > _MOST_VALUES:
        raise ScenarioFileError(
            f"{document.path}:{node.start_mark.line + 1}: more than {_MOST_VALUES:,} values, with aliases "
            "expanded; split the file, or use fewer aliases of aliases"
        )
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, loader, place)
    if len(place) > _DEEPEST:
        raise ScenarioFileError(f"{document.path}:{node.start_mark.line + 1}: nested too deeply")
    if isinstance(node, yaml.MappingNode):
        return dict(_items(node, loader, document, place))
    return [_convert(child, loader, document, (*place, number)) for number, child in enumerate(node.value)]


def _items(
    node: yaml.MappingNode, loader: OnOffLoader, document: Document, place: Place
) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for key_node, _ in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in seen:
            document.mistakes.append(
                f"{document.path}:{line}: key {key!r} is repeated, first in line {seen[key]}"
            )
        seen[key] = line
    loader.flatten_mapping(node)  # merge keys (<<) come first, so that the mapping's own keys win
    for key_node, value_node in node.value:
        key = str(key_node.value)
        document.lines[*place, key] = key_node.start_mark.line + 1
        yield key, _convert(value_node, loader, document, (*place, key))


def _scalar(node: yaml.ScalarNode, loader: OnOffLoader, place: Place) -> Any:
    keys = [part for part in place if isinstance(part, str)]
    text = bool(keys) and "context" not in keys and (keys[-1] in TEXT_KEYS or "tags" in keys)
    if text and node.tag != _NULL:
        return str(node.value)
    return loader.construct_object(node)
