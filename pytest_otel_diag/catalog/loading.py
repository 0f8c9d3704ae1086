"""Reads catalog files into checked entries; errors name file, entry, value and remedy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pytest_otel_diag.catalog import entries
from pytest_otel_diag.catalog.entries import CatalogFile
from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.yaml_words import OnOffLoader

SHIPPED = ("system.yaml", "service_failure.yaml", "performance.yaml", "system_level.yaml")
_SECTIONS = {"releases": "demo", "services": "name", "flags": "key"}


class _Loader(OnOffLoader):
    """Refuses keys that are repeated."""


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise ConfigurationError(
                f"line {key_node.start_mark.line + 1} repeats the key {key!r}; keep one of the two"
            )
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def shipped() -> tuple[tuple[str, CatalogFile], ...]:
    """Return the files of the OpenTelemetry Demo that come with this package, by name."""
    folder = resources.files("pytest_otel_diag.catalog").joinpath("data")
    return tuple((name, parse(folder.joinpath(name).read_text(encoding="utf-8"), name)) for name in SHIPPED)


def read(path: Path) -> tuple[str, CatalogFile]:
    """Return the name and content of a user's file; raises ConfigurationError that lists its mistakes."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"the catalog file {path} cannot be read: {error}; it must be a YAML file in UTF-8"
        ) from error
    return str(path), parse(text, str(path))


def parse(text: str, source: str) -> CatalogFile:
    """Return the entries in *text*; raises ConfigurationError that names file, entry, value and remedy."""
    try:
        content = yaml.load(text, _Loader) or {}  # noqa: S506 - a subclass of SafeLoader
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{source} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{source} must contain the sections {', '.join(CatalogFile.model_fields)}, "
            f"not {type(content).__name__}"
        )
    try:
        return CatalogFile.model_validate(content)
    except ValidationError as error:
        mistakes = "; ".join(_sentence(item, content) for item in error.errors())
        raise ConfigurationError(f"{source}: {mistakes}") from error


def _sentence(error: Any, content: Mapping[str, Any]) -> str:
    place, rest = _place(error["loc"], content)
    what = ".".join(str(part) for part in rest)
    prefix = f"{place}: {what}" if what else place
    if error["type"] == "extra_forbidden":
        name = str(rest[-1]) if rest else str(error["loc"][-1])
        return f"{prefix}: unknown field{nearest(name, _fields())}; remove it"
    if error["type"] == "missing":
        return f"{prefix}: missing; add it"
    return f"{prefix}: {error['input']!r} is not valid. {error['msg']}"


def _place(loc: tuple[int | str, ...], content: Mapping[str, Any]) -> tuple[str, tuple[int | str, ...]]:
    section = str(loc[0])
    if section in _SECTIONS and len(loc) > 1 and isinstance(loc[1], int):
        entry = content[section][loc[1]]
        name = entry.get(_SECTIONS[section]) if isinstance(entry, dict) else None
        return f"{section[:-1]} {name if name is not None else loc[1]!r}", loc[2:]
    return section, loc[1:]


def _fields() -> Iterable[str]:
    for value in vars(entries).values():
        yield from getattr(value, "model_fields", ())
