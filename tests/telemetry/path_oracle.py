"""Plain-Python answers to the questions about traces, written from the definitions and not from the SQL."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """One span of one trace; ``key`` is the hash of its id, ``up`` of its parent's (0: none)."""

    key: int
    up: int
    start: int
    end: int
    service: str
    operation: str
    kind: str
    error: bool


def _canonical(span: Span) -> tuple[object, ...]:
    up = 0 if span.kind == "Consumer" else span.up
    return (span.start, span.end, span.key, up, span.service, span.operation, span.error)


class Trace:
    """Spans of one trace with their places: who is whose child, and what is left of each after clipping."""

    def __init__(self, spans: list[Span]) -> None:
        self.spans = sorted(spans, key=_canonical)
        first: dict[int, int] = {}
        for index, span in enumerate(self.spans):
            first.setdefault(span.key, index)
        self.parent: list[int | None] = []
        for index, span in enumerate(self.spans):
            above = first.get(span.up) if span.up and span.kind != "Consumer" else None
            self.parent.append(None if above == index else above)
        self.callers = self._callers()

    def _callers(self) -> list[int | None]:
        """Each span's parent for calls: also of consumers, and the earliest of those that share an id."""
        order = sorted(
            range(len(self.spans)),
            key=lambda i: (
                *_canonical(self.spans[i])[:3],
                self.spans[i].service,
                self.spans[i].kind,
                self.spans[i].error,
            ),
        )
        first: dict[int, int] = {}
        for index in order:
            first.setdefault(self.spans[index].key, index)
        return [first.get(span.up) if span.up else None for span in self.spans]

    def top(self, index: int) -> int | None:
        """The root above a span, None on a cycle."""
        seen = set()
        while self.parent[index] is not None:
            if index in seen:
                return None
            seen.add(index)
            index = self.parent[index]
        return index

    def clipped(self, index: int) -> tuple[int, int]:
        """The span's interval inside all of its ancestors'."""
        start, end = self.spans[index].start, self.spans[index].end
        above = self.parent[index]
        while above is not None:
            start, end = max(start, self.spans[above].start), min(end, self.spans[above].end)
            above = self.parent[above]
        return start, end

    def roots(self) -> list[int]:
        return [i for i, above in enumerate(self.parent) if above is None]

    def children(self, index: int) -> list[int]:
        return [i for i, above in enumerate(self.parent) if above == index]

    def chosen(self, index: int) -> list[int]:
        """The children on the path below a span, backwards in time."""
        cursor = self.clipped(index)[1]
        candidates = []
        for child in self.children(index):
            start, end = self.clipped(child)
            if end > start:
                candidates.append((-end, start, child))
        taken = []
        for negative_end, start, child in sorted(candidates):
            if -negative_end <= cursor:
                taken.append(child)
                cursor = start
        return taken

    def segments(self, root: int) -> list[tuple[int, int, int, str, str]]:
        """The critical path of a root: (start, end, span key, service, operation), in order of time."""
        tiles = []
        todo = [root]
        while todo:
            index = todo.pop()
            start, cursor = self.clipped(index)
            span = self.spans[index]
            for child in self.chosen(index):
                left, right = self.clipped(child)
                tiles.append((right, cursor, span.key, span.service, span.operation))
                cursor = left
                todo.append(child)
            tiles.append((start, cursor, span.key, span.service, span.operation))
        return sorted(tile for tile in tiles if tile[1] > tile[0])

    def on_path(self, root: int) -> int:
        found, todo = 0, [root]
        while todo:
            found += 1
            todo += self.chosen(todo.pop())
        return found

    def chain(self, root: int) -> list[int]:
        """From the root along the longest critical child."""
        chain = [root]
        while True:
            below = self.chosen(chain[-1])
            if not below or len(chain) == 64:
                return chain
            chain.append(min(below, key=lambda i: (self.clipped(i)[0] - self.clipped(i)[1], i)))

    def self_time(self, index: int) -> int:
        """Duration without the union of the children."""
        span = self.spans[index]
        covered, reach = 0, span.start
        pieces = sorted(
            (max(self.spans[c].start, span.start), min(self.spans[c].end, span.end))
            for c in self.children(index)
        )
        for start, end in pieces:
            if end > max(start, reach):
                covered += end - max(start, reach)
                reach = end
        return span.end - span.start - covered

    def calls(self) -> list[tuple[str, str, bool, int]]:
        """(caller, callee, failed, latency) of calls between services."""
        found = []
        for span, above in zip(self.spans, self.callers, strict=True):
            if above is None or self.spans[above].service == span.service:
                continue
            caller = self.spans[above]
            latency = caller.end - caller.start if caller.kind == "Client" else span.end - span.start
            found.append((caller.service, span.service, caller.error or span.error, latency))
        return found


def own_time(traces: list[Trace]) -> dict[tuple[str, str], tuple[int, int]]:
    """(spans on a path, own nanoseconds) per service and operation over all roots."""
    total: dict[tuple[str, str], int] = defaultdict(int)
    spans: dict[tuple[str, str], int] = defaultdict(int)
    for trace in traces:
        for root in trace.roots():
            todo = [root]
            while todo:
                index = todo.pop()
                span = trace.spans[index]
                spans[span.service, span.operation] += 1
                todo += trace.chosen(index)
            for start, end, _, service, operation in trace.segments(root):
                total[service, operation] += end - start
    return {key: (spans[key], total[key]) for key in spans}
