"""The service graph with expected and named services and degraded calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pytest_otel_diag.model.exhibits import CallLoad, ServiceCall
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.reports.markup import Markup, join
from pytest_otel_diag.reports.pictures.layers import GraphLayout, Slot, layout
from pytest_otel_diag.reports.pictures.roles import Roles, roles_of
from pytest_otel_diag.reports.pictures.svg import Picture, fitting, label, num, shape, titled, wide
from pytest_otel_diag.scoring.text import count

MAX_SERVICES = 50
MARGIN, TOP, BOX, ROW, THIN, GAP_X = 14.0, 10.0, 30.0, 50.0, 16.0, 104.0
NARROWEST, WIDEST = 84.0, 170.0
WORSE_POINTS = 0.05
"""Increase in the share of failed calls from which an edge counts as failing."""

SLOWER = 1.5
"""Factor of the median latency from which an edge counts as slower."""

FEW_CALLS = 5
NAMELESS = "(no service name)"


@dataclass(frozen=True)
class _Place:
    """Midpoints of the left and right side of a slot."""

    left: float
    right: float
    y: float


def graph(session: SessionResult) -> Picture | None:
    """Return the service graph, None if the session has no calls."""
    exhibits = session.exhibits
    if exhibits is None or not exhibits.calls:
        return None
    roles = roles_of(session)
    calls, left_out = _shown(exhibits.calls, roles)
    by_pair = {(call.caller, call.callee): call for call in calls}
    names = {name for pair in by_pair for name in pair} | set(roles.expected) | set(roles.named)
    plan = layout(names, by_pair)
    places, width, height = _places(plan, roles)
    seconds = (exhibits.baseline_s, exhibits.incident_s)
    taken = [_box(place) for slot, place in places.items() if isinstance(slot, str)]
    edges, labels = [], []
    for pair, route in sorted(plan.routes.items(), key=lambda item: _change(by_pair[item[0]]).weight):
        edge, words = _edge(by_pair[pair], [places[slot] for slot in route], seconds, taken)
        edges.append(edge)
        labels.append(words)
    nodes = [_node(slot, place, roles) for slot, place in places.items() if isinstance(slot, str)]
    legend, legend_px = _legend(width, left_out)
    return Picture(
        name="service graph",
        description=_by_pair(roles, len(names), len(calls)),
        width=width,
        height=height + legend_px,
        body=join(edges, nodes, labels, shape("g", legend, transform=f"translate(0 {num(height)})")),
    )


def _by_pair(roles: Roles, services: int, calls: int) -> str:
    expected = " or ".join(roles.expected) or "none"
    named = ", ".join(roles.named) or "none"
    size = f"{count(services, 'service')}, {count(calls, 'call')} between them"
    return f"{size}; expected {expected}, named {named}"


def _shown(calls: Sequence[ServiceCall], roles: Roles) -> tuple[tuple[ServiceCall, ...], int]:
    """Return the calls among the most relevant services, and the number of omitted services."""
    volume: dict[str, int] = {}
    near = set(roles.expected) | set(roles.named) | set(roles.herrings)
    for call in calls:
        load = sum(part.calls for part in (call.baseline, call.incident) if part is not None)
        for name in (call.caller, call.callee):
            volume[name] = volume.get(name, 0) + load
    beside = {n for call in calls for n in (call.caller, call.callee) if {call.caller, call.callee} & near}
    ranked = sorted(volume, key=lambda name: (name not in near, name not in beside, -volume[name], name))
    kept = set(ranked[:MAX_SERVICES])
    return tuple(c for c in calls if {c.caller, c.callee} <= kept), len(volume) - len(kept)


def _places(plan: GraphLayout, roles: Roles) -> tuple[dict[Slot, _Place], float, float]:
    heights = [sum(_height(slot) for slot in layer) for layer in plan.layers]
    tallest = max(heights, default=ROW)
    places: dict[Slot, _Place] = {}
    x = MARGIN
    for layer, height in zip(plan.layers, heights, strict=True):
        wanted = [_words_px(slot, roles) for slot in layer if isinstance(slot, str)]
        width = min(max([NARROWEST, *wanted]), WIDEST)
        y = TOP + (tallest - height) / 2
        for slot in layer:
            places[slot] = _Place(x, x + width, y + _height(slot) / 2)
            y += _height(slot)
        x += width + GAP_X
    return places, max(x - GAP_X + MARGIN, 560.0), TOP + tallest + 6.0


def _height(slot: Slot) -> float:
    return ROW if isinstance(slot, str) else THIN


def _words_px(name: str, roles: Roles) -> float:
    return max(wide(name or NAMELESS), wide(", ".join(roles.words(name)), 6.2)) + 18


def _box(place: _Place) -> tuple[float, float, float, float]:
    return place.left, place.y - BOX / 2 - 3, place.right, place.y + BOX / 2 + 3


def _node(service: str, place: _Place, roles: Roles) -> Markup:
    words, name = roles.words(service), service or NAMELESS
    kind = "od-node"
    if service in roles.expected:
        kind += " od-n-hit" if roles.named.get(service) == 1 else " od-n-expected"
    elif service in roles.named:
        kind += " od-n-named"
    elif service in roles.herrings:
        kind += " od-n-herring"
    width, middle = place.right - place.left, (place.left + place.right) / 2
    half = BOX / 2 + (2 if words else 0)
    box = shape("rect", x=place.left, y=place.y - half, width=width, height=2 * half, rx=5.0, class_=kind)
    head = "od-head" if words else ""
    if not words:
        texts = [label(middle, place.y + 4, fitting(name, width - 10), head, "middle")]
    else:
        texts = [
            label(middle, place.y - 2, fitting(name, width - 10, 7.2), head, "middle"),
            label(middle, place.y + 12, fitting(", ".join(words), width - 8, 6.2), "od-small", "middle"),
        ]
    return titled(f"{name}: {', '.join(words)}" if words else name, box, texts)


@dataclass(frozen=True)
class _Change:
    """Change of an edge: class suffix, description, and priority in the drawing order."""

    kind: str
    words: str
    weight: int


def _change(call: ServiceCall) -> _Change:
    before, now = call.baseline, call.incident
    if now is None or not now.calls:
        return _Change(" od-e-gone", "no calls", 1)
    rise = _ratio(now) - (_ratio(before) if before is not None else 0.0)
    if rise > WORSE_POINTS and now.errors > 1:
        return _Change(" od-e-bad", f"{_ratio(now):.0%} fail", 3)
    if before is None or not before.calls:
        return _Change(" od-e-new", "new", 1)
    enough = min(now.calls, before.calls) >= FEW_CALLS
    if enough and now.p50_ms > SLOWER * before.p50_ms and now.p50_ms - before.p50_ms > 1.0:
        return _Change(" od-e-slow", _factor(before.p50_ms, now.p50_ms), 2)
    return _Change("", "", 0)


def _factor(before_ms: float, now_ms: float) -> str:
    factor = now_ms / before_ms if before_ms > 0 else math.inf
    return f"×{factor:.2g}" if factor < 100 else f"+{_milliseconds(now_ms - before_ms)}"


def _ratio(load: CallLoad) -> float:
    return min(1.0, load.errors / load.calls) if load.calls else 0.0


def _milliseconds(value_ms: float) -> str:
    return f"{value_ms / 1000:.3g} s" if value_ms >= 1000 else f"{value_ms:.3g} ms"


def _edge(
    call: ServiceCall,
    stops: Sequence[_Place],
    seconds: tuple[float, float],
    taken: list[tuple[float, float, float, float]],
) -> tuple[Markup, Markup]:
    change = _change(call)
    points = _points(stops)
    load = call.incident or call.baseline
    thick = 1.0 + min(3.0, 0.55 * math.log10(1 + (load.calls if load is not None else 0)))
    path = shape(
        "path",
        d=_curve(points),
        class_=f"od-e{change.kind}",
        stroke_width=thick,
    )
    (x0, _), (x, y) = points[-2], points[-1]
    back = -7.0 if x >= x0 else 7.0
    head = f"M{num(x)},{num(y)}l{num(back)},-4v8z"
    arrow = shape(
        "path",
        d=head,
        class_="od-h" + change.kind.replace("-e-", "-h-").replace(" od-h-gone", "").replace(" od-h-new", ""),
    )
    words = Markup("")
    if change.words and (at := _free(points, change.words, taken)) is not None:
        kind = {"od-e-bad": "od-bad", "od-e-slow": "od-warn"}.get(change.kind.strip(), "od-soft")
        words = label(*at, change.words, f"od-small od-halo {kind}", "middle")
    return titled(_tip(call, seconds), path, arrow), words


def _tip(call: ServiceCall, seconds: tuple[float, float]) -> str:
    details = []
    for name, load, length_s in zip(
        ("before", "incident"), (call.baseline, call.incident), seconds, strict=True
    ):
        if load is None:
            details.append(f"{name}: no calls")
            continue
        rate = f", {load.calls / length_s:.3g}/s" if length_s > 0 else ""
        health = f"{_ratio(load):.1%} failed, p50 {_milliseconds(load.p50_ms)}"
        details.append(f"{name}: {count(load.calls, 'call')}{rate}, {health}")
    return f"{call.caller} → {call.callee}; {'; '.join(details)}"


def _points(stops: Sequence[_Place]) -> list[tuple[float, float]]:
    """Return the corners of a route, from a side of a slot to the facing side of the next."""
    points: list[tuple[float, float]] = []
    for index, stop in enumerate(stops):
        onward = stops[min(index + 1, len(stops) - 1)].left >= stops[max(index - 1, 0)].left
        entry, leave = (stop.left, stop.right) if onward else (stop.right, stop.left)
        if index > 0:
            points.append((entry, stop.y))
        if index < len(stops) - 1:
            points.append((leave, stop.y))
    return points


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """Return a path, straight across slots and S-shaped between layers."""
    parts = [f"M{num(points[0][0])},{num(points[0][1])}"]
    for index, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        if index % 2:
            parts.append(f"H{num(x1)}")
        else:
            middle = (x0 + x1) / 2
            parts.append(f"C{num(middle)},{num(y0)} {num(middle)},{num(y1)} {num(x1)},{num(y1)}")
    return "".join(parts)


def _free(
    points: Sequence[tuple[float, float]], words: str, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float] | None:
    """Return and reserve a position for the label of an edge that overlaps no node and no label."""
    half = wide(words, 6.0) / 2
    spots = [
        (x0 + (x1 - x0) * t, y0 + (y1 - y0) * (3 * t * t - 2 * t**3) + dy)
        for dy in (-4.0, 9.0)
        for t in (0.5, 0.62, 0.38, 0.74, 0.26)
        for (x0, y0), (x1, y1) in reversed([*zip(points[::2], points[1::2], strict=True)])
    ]
    for x, y in spots:
        box = (x - half, y - 10.0, x + half, y + 2.0)
        if not any(_touch(box, other) for other in taken):
            taken.append(box)
            return x, y
    return None


def _touch(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


_KEYS: Mapping[str, str] = {
    "od-e": "call",
    "od-e od-e-bad": "fails more",
    "od-e od-e-slow": "slower",
    "od-e od-e-gone": "vanished",
    "od-e od-e-new": "new",
}


def _legend(width: float, left_out: int) -> tuple[Markup, float]:
    parts, x, y = [], MARGIN, 16.0
    for kind, words in _KEYS.items():
        room = 44 + wide(words)
        if x + room > width - MARGIN and x > MARGIN:
            x, y = MARGIN, y + 18
        drawn = shape("path", d=f"M{num(x)},{num(y - 4)}h26", class_=kind, stroke_width=2.4)
        parts += [drawn, label(x + 32, y, words, "od-small od-soft")]
        x += room + 6
    if left_out:
        parts.append(
            label(MARGIN, y + 18, f"and {count(left_out, 'service')} more, not shown", "od-small od-soft")
        )
        y += 18
    return join(parts), y + 12
