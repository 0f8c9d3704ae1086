"""The functions that SQL of an analyzer may call; every other function is refused.

``functions.txt`` and ``aggregates.txt`` list functions whose value depends only on their arguments, the clock
and random numbers. They leave out functions that read files, dictionaries, settings or the server's state,
that sleep or write logs, that decode states of aggregate functions, that show how a column is stored
(a dictionary may hold values of hidden rows), and that compare texts or arrays in
quadratic time, which the engine cannot interrupt.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib import resources

TABLE_FUNCTIONS = frozenset({"numbers", "numbers_mt", "generate_series", "generateSeries", "values", "view"})

_COMBINATORS = ("If", "Array", "Map", "OrNull", "OrDefault", "Distinct", "ForEach", "ArgMin", "ArgMax")
_AGGREGATE = re.compile(r"(\w+)(?:\([\d.,\s]*\))?")


@cache
def functions() -> frozenset[str]:
    """Return the names of the functions that may be called, except aggregate functions."""
    return _listed("functions.txt")


@cache
def aggregates() -> frozenset[str]:
    """Return the names of the aggregate and window functions that may be called, without combinators."""
    return _listed("aggregates.txt")


@lru_cache(maxsize=4096)
def allowed(name: str) -> bool:
    """Whether a statement may call the function, which may be an aggregate function with combinators."""
    return name.lower() in _lower(functions()) or _allowed_aggregate(name)


def allowed_source(name: str) -> bool:
    """Whether a statement may read from the table function."""
    return name.lower() in _lower(TABLE_FUNCTIONS)


def names_aggregate(text: str) -> bool:
    """Whether the text, an argument of ``arrayReduce``, is an allowed aggregate such as ``quantile(0.5)``."""
    match = _AGGREGATE.fullmatch(text)
    return match is not None and _allowed_aggregate(match[1])


def _allowed_aggregate(name: str) -> bool:
    if name.lower() in _lower(aggregates()):
        return True
    endings = (ending for ending in _COMBINATORS if name.endswith(ending) and name != ending)
    return any(_allowed_aggregate(name.removesuffix(ending)) for ending in endings)


def _listed(file: str) -> frozenset[str]:
    return frozenset(resources.files(__package__).joinpath(file).read_text(encoding="utf-8").split())


@cache
def _lower(names: frozenset[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)
