"""JSON schemas in the plain form that every model provider accepts: no references, no titles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_REFERENCE = "#/$defs/"


def inlined(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with its definitions in the places that refer to them; none may contain itself.

    Defaults of null say nothing to a model, and the schema's own description is for readers of the code.
    """
    definitions = schema.get("$defs", {})
    own = {key: value for key, value in schema.items() if key not in {"$defs", "description"}}
    found: dict[str, Any] = _inlined(own, definitions)
    return found


def _inlined(part: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(part, list):
        return [_inlined(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    reference = part.get("$ref", "")
    if reference.startswith(_REFERENCE):
        beside = {key: value for key, value in part.items() if key != "$ref"}
        return _inlined({**definitions[reference.removeprefix(_REFERENCE)], **beside}, definitions)
    return {
        key: {name: _inlined(one, definitions) for name, one in value.items()}
        if key == "properties"
        else _inlined(value, definitions)
        for key, value in part.items()
        if not (key == "title" and isinstance(value, str)) and not (key == "default" and value is None)
    }
