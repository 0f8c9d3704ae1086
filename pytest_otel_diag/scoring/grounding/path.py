"""How the queries of an analyzer followed the investigation path of the scenario."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_otel_diag.model.grounding import PathCoverage
from pytest_otel_diag.model.scenario import InvestigationStep
from pytest_otel_diag.model.session import QueryRecord
from pytest_otel_diag.ports import Sightings


def path_coverage(
    path: Sequence[InvestigationStep], queries: Sequence[QueryRecord], sightings: Sightings | None
) -> PathCoverage | None:
    """Return how many steps the queries cover, None for scenarios without a path or unknown sightings.

    A query covers a step if it read rows of its signal and its answer named one of the services. The order is
    the longest common subsequence of steps and queries; a query may cover several steps in succession.
    """
    if not path or sightings is None:
        return None
    covering = [_covering(step, queries, sightings) for step in path]
    return PathCoverage(
        steps=len(path), covered=sum(map(bool, covering)), in_order=_in_order(covering, len(queries))
    )


def _covering(step: InvestigationStep, queries: Sequence[QueryRecord], sightings: Sightings) -> set[int]:
    read = {
        index
        for index, query in enumerate(queries)
        if query.error is None and query.rows > 0 and step.signal in query.data_sources
    }
    if not step.services:
        return read
    return read & frozenset().union(*map(sightings.queries_that_saw, step.services))


def _in_order(covering: Sequence[set[int]], queries: int) -> int:
    """Return the length of the longest subsequence of steps that queries cover in order."""
    best = [0] * (queries + 1)
    for steps in covering:
        before, best = best, [0] * (queries + 1)
        for index in range(queries):
            # the same query may go on to the next step: its answer held both
            matched = before[index + 1] + 1 if index in steps else 0
            best[index + 1] = max(before[index + 1], best[index], matched)
    return best[queries]
