"""The critical path of one trace: which span's own time decides how long the request took.

The definition is that of CRISP (Zhang et al., USENIX ATC 2022): a span counts only inside the intervals
of its ancestors; the walk goes backwards from the end of a span, the child that ends last at or before
the cursor is on the path and the cursor moves to its start; what no chosen child covers is the span's
own. Consumers are roots, since no span waits for them. Ties go to the longer child, then to the
earlier one in the canonical order of spans, so that the order of rows changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_otel_diag.model.base import Nanos

Interval = tuple[Nanos, Nanos]


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """One span; ``parent`` is the id of its parent, 0 for none."""

    span: int
    parent: int
    start_ns: Nanos
    end_ns: Nanos
    service: str
    operation: str
    kind: str = ""
    error: bool = False

    @property
    def above(self) -> int:
        """Id of the span that waits for this one, 0 for none."""
        return 0 if self.kind == "Consumer" else self.parent


class TraceTree:
    """Spans of one trace in canonical order, with their places in the tree.

    ``parents`` holds indices (None: root, its parent is missing, or it names itself); of spans that
    share an id the first one is the parent.
    """

    def __init__(self, spans: Sequence[TraceSpan]) -> None:
        self.spans = tuple(sorted(spans, key=_canonical))
        first: dict[int, int] = {}
        for index, span in enumerate(self.spans):
            first.setdefault(span.span, index)
        self.parents: list[int | None] = []
        self._below: list[list[int]] = [[] for _ in self.spans]
        for index, span in enumerate(self.spans):
            above = first.get(span.above) if span.above else None
            self.parents.append(None if above == index else above)
            if above is not None and above != index:
                self._below[above].append(index)

    def root_of(self, index: int) -> int | None:
        """Return the root above a span, None on a cycle of parents."""
        seen: set[int] = set()
        above: int | None = index
        while above is not None:
            if above in seen:
                return None
            seen.add(above)
            index, above = above, self.parents[above]
        return index

    def critical_path(self, root: int) -> dict[int, list[Interval]]:
        """Return the spans on the path below *root*, each with the intervals that are its own there.

        The intervals of all spans together tile the root without gap or overlap; a span whose chosen
        children cover all of it has none.
        """
        found: dict[int, list[Interval]] = {}
        todo = [(root, self.spans[root].start_ns, self.spans[root].end_ns)]
        while todo:
            index, start, end = todo.pop()
            own: list[Interval] = []
            cursor = end
            for left, right, child in self._chosen(index, start, end):
                own.append((right, cursor))
                cursor = left
                todo.append((child, left, right))
            own.append((start, cursor))
            found[index] = [piece for piece in reversed(own) if piece[1] > piece[0]]
        return found

    def _chosen(self, index: int, start: Nanos, end: Nanos) -> list[tuple[Nanos, Nanos, int]]:
        """Return the children on the path as (from, to, index), backwards in time."""
        inside = []
        for child in self._below[index]:
            span = self.spans[child]
            left, right = max(span.start_ns, start), min(span.end_ns, end)
            if right > left:
                inside.append((-right, left, child))
        taken, cursor = [], end
        for negative, left, child in sorted(inside):
            if -negative <= cursor:
                taken.append((left, -negative, child))
                cursor = left
        return taken

    def self_ns(self, index: int) -> Nanos:
        """Return the duration of a span without what its children cover."""
        span = self.spans[index]
        pieces = sorted(
            (max(self.spans[child].start_ns, span.start_ns), min(self.spans[child].end_ns, span.end_ns))
            for child in self._below[index]
        )
        left, reach = span.end_ns - span.start_ns, span.start_ns
        for start, end in pieces:
            if end > max(start, reach):
                left -= end - max(start, reach)
                reach = end
        return left


def _canonical(span: TraceSpan) -> tuple[int, int, int, int, str, str, bool]:
    return span.start_ns, span.end_ns, span.span, span.above, span.service, span.operation, span.error
