"""Gantt chart of the exemplar trace: spans by service, errors, and the critical path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_otel_diag.model.exhibits import MAX_SPANS, ExemplarTrace, ExhibitSpan
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.model.windows import iso
from pytest_otel_diag.reports.markup import Markup, join
from pytest_otel_diag.reports.pictures.roles import Roles, roles_of
from pytest_otel_diag.reports.pictures.svg import Picture, fitting, label, line, num, shape, titled, wide

WIDTH, NAMES, RIGHT, ROW, BAR, THIN, TOP = 960.0, 320.0, 146.0, 19.0, 12.0, 5.0, 46.0
INDENT, DEEPEST = 7.0, 12
COLOURS = 6
LONGEST_MS = 1e9
_PROCEDURE = re.compile(r"/?[\w.]+/([\w.]+)")
TICKS = 5


@dataclass(frozen=True)
class _Scale:
    start_ms: float
    length_ms: float

    def x(self, at_ms: float) -> float:
        ratio = (_bounded(at_ms) - self.start_ms) / self.length_ms
        return NAMES + min(max(ratio, 0.0), 1.0) * (WIDTH - RIGHT - NAMES)


def gantt(session: SessionResult) -> Picture | None:
    """Return the chart of the exemplar trace, None if the session has none."""
    trace = session.exhibits.trace if session.exhibits is not None else None
    if trace is None or not trace.spans:
        return None
    roles = roles_of(session)
    scale = _scale(trace.spans)
    order = rows(trace.spans)[:MAX_SPANS]
    colours = _colours([trace.spans[index] for index, _ in order])
    bottom = TOP + ROW * len(order)
    body = [
        label(10, 18, _headline(trace), "od-head"),
        *_axis(scale, bottom),
        *(
            _row(trace.spans[index], depth, TOP + ROW * number, (scale, colours, roles))
            for number, (index, depth) in enumerate(order)
        ),
    ]
    legend, legend_px = _legend(trace, colours, bottom, len(order))
    return Picture(
        name="critical path",
        description=_description(trace),
        width=WIDTH,
        height=bottom + legend_px,
        body=join(body, legend),
    )


def _headline(trace: ExemplarTrace) -> str:
    name = f"trace {fitting(trace.trace_id, 240)}, {iso(trace.start_ns)}"
    return fitting(f"{name}: {trace.choice}" if trace.choice else name, WIDTH - 20, 7.4)


def _description(trace: ExemplarTrace) -> str:
    path = list(dict.fromkeys(span.service for span in trace.spans if span.on_path))
    failed = sum(span.error for span in trace.spans)
    return f"{trace.spans_total} spans, {failed} failed, critical path through {', '.join(path) or 'none'}"


def rows(spans: Sequence[ExhibitSpan]) -> list[tuple[int, int]]:
    """Return each span as (index, depth): parents before children, siblings by time."""
    below: dict[int | None, list[int]] = {}
    for index, span in enumerate(spans):
        below.setdefault(span.parent if span.parent != index else None, []).append(index)
    for children in below.values():
        children.sort(key=lambda index: (spans[index].start_ms, -spans[index].duration_ms, index))
    found: list[tuple[int, int]] = []
    seen: set[int] = set()
    # Spans on a cycle of parents have no root; each remaining one starts a separate tree.
    for start in (*below.get(None, []), *range(len(spans))):
        stack = [(start, 0)]
        while stack:
            index, depth = stack.pop()
            if index in seen:
                continue
            seen.add(index)
            found.append((index, depth))
            stack.extend((child, depth + 1) for child in reversed(below.get(index, [])))
    return found


def _scale(spans: Sequence[ExhibitSpan]) -> _Scale:
    start = min(_bounded(span.start_ms) for span in spans)
    end = max(_bounded(span.start_ms + span.duration_ms) for span in spans)
    return _Scale(start, max(end - start, 1e-3))


def _bounded(value_ms: float) -> float:
    """Return a time within drawable bounds, since clocks of other systems may be wrong."""
    return min(max(value_ms, -LONGEST_MS), LONGEST_MS)


def _colours(spans: Sequence[ExhibitSpan]) -> dict[str, int]:
    """Return a colour per service in order of appearance; the remaining services share the last one."""
    services = list(dict.fromkeys(span.service for span in spans))
    return {service: min(index, COLOURS) for index, service in enumerate(services)}


def _axis(scale: _Scale, bottom: float) -> list[Markup]:
    parts = []
    for step in range(TICKS + 1):
        at_ms = scale.length_ms * step / TICKS
        x = scale.x(scale.start_ms + at_ms)
        parts += [
            line([(x, TOP - 6), (x, bottom)], "od-rule"),
            label(x, TOP - 10, _duration(at_ms), "od-small od-soft", "middle"),
        ]
    return parts


def _row(span: ExhibitSpan, depth: int, top: float, drawn: tuple[_Scale, dict[str, int], Roles]) -> Markup:
    scale, colours, roles = drawn
    indent = 26 + INDENT * min(depth, DEEPEST)
    mark = "".join(("◆" if span.on_path else "", "✕" if span.error else ""))
    name = f"{span.service} · {span.operation}"
    left, right = scale.x(span.start_ms), scale.x(span.start_ms + span.duration_ms)
    colour = f"od-f{colours[span.service]}"
    star = "★ " if span.service in roles.expected else ""
    middle = top + ROW / 2
    parts = [
        label(6, middle + 4, mark, "od-small od-bad" if span.error else "od-small"),
        label(
            indent,
            middle + 4,
            fitting(
                f"{star}{span.service} · {_brief(span.operation)}",
                NAMES - indent - 8,
                6.7 if span.on_path else 6.2,
            ),
            "od-small od-head" if span.on_path else "od-small",
        ),
        _bar(left, right, middle, THIN, f"{colour} od-pale"),
    ]
    parts += [_bar(scale.x(one), scale.x(two), middle, BAR, colour) for one, two in span.critical]
    if span.error:
        parts.append(_failed(left, right, middle))
    took = f"{_duration(span.duration_ms)} (self {_duration(span.self_ms)})"
    parts.append(label(right + 6, middle + 4, fitting(took, WIDTH - right - 8, 6.0), "od-small od-soft"))
    tip = [name, *([span.kind] if span.kind else []), *roles.words(span.service)]
    tip += ["failed"] * span.error + ["on the critical path"] * span.on_path
    return titled(", ".join(tip), *parts)


def _bar(left: float, right: float, middle: float, height: float, kind: str) -> Markup:
    return shape(
        "rect", x=left, y=middle - height / 2, width=max(1.2, right - left), height=height, class_=kind
    )


def _brief(operation: str) -> str:
    """Return the method of a full RPC name, any other name unchanged."""
    found = _PROCEDURE.fullmatch(operation)
    return found[1] if found else operation


def _failed(left: float, right: float, middle: float) -> Markup:
    """Mark the end of a failed span with a cross, so that colour is not the only sign."""
    x, y = max(left, right - BAR / 2) - BAR / 2, middle - BAR / 2
    cross = f"M{num(x)},{num(y)}l{num(BAR)},{num(BAR)}m0,{num(-BAR)}l{num(-BAR)},{num(BAR)}"
    return shape("path", d=cross, class_="od-err")


def _duration(value_ms: float) -> str:
    if not value_ms:
        return "0"
    if value_ms >= 1000:
        return f"{_bounded(value_ms) / 1000:.3g} s"
    return f"{value_ms:.3g} ms" if value_ms >= 0.01 else f"{value_ms * 1000:.2g} µs"


def _legend(trace: ExemplarTrace, colours: dict[str, int], top: float, shown: int) -> tuple[Markup, float]:
    parts, x, y = [], 10.0, top + 22
    rest = [service for service, colour in colours.items() if colour == COLOURS]
    keys = [(f"od-f{c}", service) for service, c in colours.items() if c < COLOURS]
    if rest:
        keys.append((f"od-f{COLOURS}", ", ".join(rest) if len(rest) < 4 else f"{len(rest)} others"))
    for kind, words in keys:
        room = 22 + wide(words)
        if x + room > WIDTH - 10 and x > 10:
            x, y = 10.0, y + 18
        parts += [
            shape("rect", x=x, y=y - 10, width=14.0, height=11.0, class_=kind),
            label(x + 19, y, words, "od-small"),
        ]
        x += room + 12
    y += 18
    signs = "◆ on the critical path · tall bar: where its own time decides · ✕ failed · ★ expected culprit"
    if trace.spans_total > shown:
        signs += f" · {shown} of {trace.spans_total} spans"
    parts.append(label(10, y, signs, "od-small od-soft"))
    return join(parts), y - top + 12
