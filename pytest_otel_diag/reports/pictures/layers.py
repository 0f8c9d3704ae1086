"""Deterministic layered layout of a directed graph from left to right.

The steps are those of Sugiyama (IEEE Trans. SMC 11(2), 1981): break cycles, put each node one layer after the
last of its callers, split long edges at every layer so that they pass between nodes, then sort each layer by
the mean position of its neighbours in alternating sweeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

SWEEPS = 12

Edge = tuple[str, str]
Slot = str | tuple[str, str, int]
"""A node, or the position where an edge passes a layer."""


@dataclass(frozen=True)
class GraphLayout:
    """``layers`` hold slots from top to bottom, ``routes`` the slots of each edge including both ends.

    The route of an edge that closes a cycle runs from right to left.
    """

    layers: tuple[tuple[Slot, ...], ...]
    routes: Mapping[Edge, tuple[Slot, ...]]


def layout(nodes: Iterable[str], edges: Iterable[Edge]) -> GraphLayout:
    """Return the layout; self-edges are left out, duplicates count once."""
    names = sorted(set(nodes))
    wanted = sorted({(a, b) for a, b in edges if a != b and a in set(names) and b in set(names)})
    forward = _forward(names, wanted)
    depth = _depths(names, sorted(forward.values()))
    routes = {edge: _route(edge, turned, depth) for edge, turned in forward.items()}
    order = _initial(names, depth, routes.values())
    return GraphLayout(_ordered(order, routes.values()), routes)


def _forward(names: Sequence[str], edges: Sequence[Edge]) -> dict[Edge, Edge]:
    """Return each edge with its direction in the layout: edges that close a cycle are reversed."""
    below: dict[str, list[str]] = {name: [] for name in names}
    called = {callee for _, callee in edges}
    for caller, callee in edges:
        below[caller].append(callee)
    # Nodes without callers come first, so that calls back to them close the cycles.
    starts = [name for name in names if name not in called] + [name for name in names if name in called]
    state: dict[str, int] = {}
    turned: dict[Edge, Edge] = {}
    for start in starts:
        if start in state:
            continue
        state[start] = 1
        stack = [(start, iter(below[start]))]
        while stack:
            node, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                state[node] = 2
                stack.pop()
                continue
            turned[node, following] = (following, node) if state.get(following) == 1 else (node, following)
            if following not in state:
                state[following] = 1
                stack.append((following, iter(below[following])))
    return turned


def _depths(names: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    """Return the length of the longest path to each node of an acyclic graph."""
    callers: dict[str, int] = dict.fromkeys(names, 0)
    below: dict[str, list[str]] = {name: [] for name in names}
    for caller, callee in set(edges):
        below[caller].append(callee)
        callers[callee] += 1
    depth = dict.fromkeys(names, 0)
    ready = [name for name in names if not callers[name]]
    while ready:
        node = ready.pop()
        for callee in below[node]:
            depth[callee] = max(depth[callee], depth[node] + 1)
            callers[callee] -= 1
            if not callers[callee]:
                ready.append(callee)
    return depth


def _route(edge: Edge, turned: Edge, depth: Mapping[str, int]) -> tuple[Slot, ...]:
    first, last = turned
    between: list[Slot] = [(first, last, at) for at in range(depth[first] + 1, depth[last])]
    route: tuple[Slot, ...] = (first, *between, last)
    return route if edge == turned else route[::-1]


def _initial(
    names: Sequence[str], depth: Mapping[str, int], routes: Iterable[tuple[Slot, ...]]
) -> list[list[Slot]]:
    layers: list[list[Slot]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name in names:
        layers[depth[name]].append(name)
    passing = {slot for route in routes for slot in route if isinstance(slot, tuple)}
    for slot in sorted(passing):
        layers[slot[2]].append(slot)
    return layers


def _ordered(layers: list[list[Slot]], routes: Iterable[tuple[Slot, ...]]) -> tuple[tuple[Slot, ...], ...]:
    beside: dict[Slot, set[Slot]] = {slot: set() for layer in layers for slot in layer}
    for route in routes:
        for one, other in pairwise(route):
            beside[one].add(other)
            beside[other].add(one)
    level = {slot: index for index, layer in enumerate(layers) for slot in layer}
    best, fewest = [list(layer) for layer in layers], _crossings(layers, beside, level)
    for sweep in range(SWEEPS):
        onward = sweep % 2 == 0
        for index in range(1, len(layers)) if onward else range(len(layers) - 2, -1, -1):
            near = layers[index - 1 if onward else index + 1]
            place = {slot: position for position, slot in enumerate(near)}
            means = {
                slot: _mean([place[other] for other in beside[slot] if other in place], position)
                for position, slot in enumerate(layers[index])
            }
            layers[index] = sorted(layers[index], key=lambda slot: means[slot])
        crossings = _crossings(layers, beside, level)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    return tuple(map(tuple, best))


def _mean(places: Sequence[int], otherwise: int) -> float:
    return sum(places) / len(places) if places else float(otherwise)


def _crossings(
    layers: Sequence[Sequence[Slot]], beside: Mapping[Slot, set[Slot]], level: Mapping[Slot, int]
) -> int:
    """Count the crossings of edges between neighbouring layers."""
    total = 0
    for index, layer in enumerate(layers[1:], start=1):
        place = {slot: position for position, slot in enumerate(layers[index - 1])}
        ends = [sorted(place[other] for other in beside[slot] if level[other] == index - 1) for slot in layer]
        flat = [end for group in ends for end in group]
        total += sum(1 for i, one in enumerate(flat) for other in flat[i + 1 :] if one > other)
    return total
