"""What an analyzer has read: the ids and names in the answers to its queries, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_otel_diag.model.telemetry import Table

MOST = 200_000
"""Texts that are kept of one investigation, some 20 MB; what is read beyond them counts as unknown."""

MOST_OF_A_QUERY = 2_000
"""Names that are kept for each query, for the question which query was about a service."""

_NAME_CHARS = 200
_SEARCHED_CHARS = 20_000
_ID = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{16}(?:[0-9A-Fa-f]{16})?(?![0-9A-Za-z])")
# What is never closed ends with the text; otherwise the search for its end takes quadratic time.
_LITERAL = re.compile(r"'((?:[^'\\]|\\.?|'')*)(?:'|\Z)", re.DOTALL)
_TEXT_FIELDS = ("service", "operation", "caller", "callee", "metric")
_DEEPEST = 6
_ID_CHARS = 16


class Sightings:
    """Remembers the texts of answers as hashes; implements :class:`pytest_otel_diag.ports.Sightings`.

    A text that a statement or its parameters name is read too if a row came back: whoever filters by a name
    does not select it as well.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._by_query: list[frozenset[int]] = []
        self.complete = True

    def saw(self, text: str) -> bool:
        """Whether an answer held this id or name."""
        return hash(text.lower()) in self._seen

    def queries_that_saw(self, name: str) -> frozenset[int]:
        """Return the indexes of the queries, in the order of the session's records, that read this name."""
        wanted = hash(name.lower())
        return frozenset(index for index, seen in enumerate(self._by_query) if wanted in seen)

    def add(self, statement: str, parameters: object, result: object) -> None:
        """Remember what one query read; *result* is None where it failed."""
        texts: set[str] = set()
        if isinstance(result, Table):
            for column in result.columns:
                texts |= _texts(column)
            texts |= _literals(statement, parameters) if len(result) else set()
        elif isinstance(result, Sequence) and result:
            texts = {
                str(getattr(row, name))
                for name in _TEXT_FIELDS
                if name in type(result[0]).model_fields
                for row in result
            }
        self._keep(texts)

    def _keep(self, texts: Iterable[str]) -> None:
        hashes: set[int] = set()
        names: set[int] = set()
        for text in texts:
            if len(text) <= _NAME_CHARS:
                hashes.add(hash(text.lower()))
                if len(names) < MOST_OF_A_QUERY:
                    names.add(hash(text.lower()))
            if len(text) > _ID_CHARS and not text.isalnum():
                hashes.update(hash(found.lower()) for found in _ID.findall(text, 0, _SEARCHED_CHARS))
        self._by_query.append(frozenset(names))
        room = MOST - len(self._seen)
        new = hashes - self._seen
        if len(new) > room:
            self.complete = False
            new = set(list(new)[:room])
        self._seen |= new


def _texts(column: Iterable[Any]) -> set[str]:
    """Return the distinct texts of a column, also inside of arrays, tuples and maps."""
    values = list(column)
    first = next((value for value in values if value is not None), None)
    if isinstance(first, int | float):
        return set()
    if isinstance(first, str):  # a column has one type; names repeat
        values = list(set(values))
    found: set[str] = set()
    for _ in range(_DEEPEST):
        inner: list[Any] = []
        for value in values:
            if isinstance(value, str | bytes):
                found.add(_text(value))
            elif isinstance(value, Mapping):
                inner += [*value.keys(), *value.values()]
            elif isinstance(value, list | tuple | set | frozenset):
                inner += value
        values = inner
    return found


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _literals(statement: str, parameters: object) -> set[str]:
    found = set(_LITERAL.findall(statement[:_SEARCHED_CHARS]))
    if isinstance(parameters, Mapping):
        found |= _texts([list(parameters.values())])
    return found
