"""Timeline of a session: rate, error rate and p95 of involved services, with faults and changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.exhibits import ServiceSeries, Timeline
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, iso
from pytest_otel_diag.reports.markup import Markup, join
from pytest_otel_diag.reports.pictures.intervals import Lane, lanes, off_ns
from pytest_otel_diag.reports.pictures.roles import Roles, roles_of
from pytest_otel_diag.reports.pictures.svg import Picture, fitting, label, line, shape, titled, wide
from pytest_otel_diag.reports.session_tables import fault_start_ns

WIDTH, LEFT, RIGHT = 960.0, 62.0, 14.0
PANEL, GAP, LANE, MARK = 108.0, 30.0, 17.0, 14.0
TICKS = 8
MOST = 1e12
LOG_FROM = 15.0
"""Ratio of the largest values of two services from which a linear scale would hide the smaller one."""

Value = Callable[[ServiceSeries, int], float | None]


@dataclass(frozen=True)
class _Scale:
    """Maps seconds since the fault, or since the start, to pixels."""

    start_ns: Nanos
    end_ns: Nanos
    zero_ns: Nanos

    def x(self, instant_ns: float) -> float:
        span = max(1, self.end_ns - self.start_ns)
        ratio = (instant_ns - self.start_ns) / span
        return LEFT + min(max(ratio, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)


@dataclass(frozen=True)
class _Panel:
    title: str
    unit: str
    value: Value


def timeline(session: SessionResult) -> Picture | None:
    """Return the timeline, None if the session has no telemetry."""
    exhibit = session.exhibits.timeline if session.exhibits is not None else None
    if exhibit is None or not exhibit.services or exhibit.duration_s <= 0:
        return None
    roles = roles_of(session)
    start = fault_start_ns(session)
    scale = _Scale(exhibit.start_ns, exhibit.end_ns, exhibit.start_ns if start is None else start)
    legend, legend_px = _legend(exhibit, roles)
    rows = lanes(session, exhibit.end_ns)
    top = 16.0 + legend_px
    marks_px = LANE * len(rows) + (29.0 + MARK if any(_events(session, scale)) else 16.0)
    panels_at = top + marks_px
    height = panels_at + 3 * (PANEL + GAP) + 14.0
    bottom = panels_at + 3 * (PANEL + GAP) - GAP
    parts = [
        legend,
        _windows(session, scale, panels_at - 4, bottom),
        _lanes(rows, scale, top),
        *(
            _panel(panel, exhibit, scale, panels_at + index * (PANEL + GAP))
            for index, panel in enumerate(_PANELS)
        ),
        _marks(session, scale, (top + LANE * len(rows) + 14.0, bottom)),
        _axis(exhibit, scale, bottom, _zero(session, start)),
    ]
    names = ", ".join(series.service for series in exhibit.services)
    return Picture(
        name="timeline",
        description=f"request rate, error rate and p95 of {names} over {exhibit.duration_s:.0f} s",
        width=WIDTH,
        height=height,
        body=join(parts),
    )


def _zero(session: SessionResult, start: Nanos | None) -> str:
    if start is None:
        return "the start of the session"
    return "the fault" if session.scenario.faults else "the judged window"


def _rate(series: ServiceSeries, index: int) -> float | None:
    return float(series.requests[index])


def _errors(series: ServiceSeries, index: int) -> float | None:
    requests = series.requests[index]
    return 100.0 * min(1.0, series.errors[index] / requests) if requests > 0 else None


def _p95(series: ServiceSeries, index: int) -> float | None:
    return series.p95_ms[index]


_PANELS = (_Panel("requests", "/s", _rate), _Panel("errors", "%", _errors), _Panel("p95", "ms", _p95))


def _legend(exhibit: Timeline, roles: Roles) -> tuple[Markup, float]:
    parts, x, y = [], LEFT, 18.0
    for index, series in enumerate(exhibit.services):
        words = ", ".join(roles.words(series.service))
        shown = fitting(series.service, 220) + (f" ({words})" if words else "")
        room = 42 + wide(shown)
        if x + room > WIDTH - RIGHT and x > LEFT:
            x, y = LEFT, y + 18
        parts += [line([(x, y - 4), (x + 28, y - 4)], f"od-line od-s{index % 6}"), label(x + 34, y, shown)]
        x += room + 10
    return join(parts), y


def _windows(session: SessionResult, scale: _Scale, top: float, bottom: float) -> Markup:
    quiet = session.scenario.control
    marked = (
        (session.windows.baseline, "od-w-base", "baseline"),
        (
            session.windows.incident,
            *(("od-w-base", "judged window") if quiet else ("od-w-fault", "incident")),
        ),
    )
    parts = []
    for window, kind, words in marked:
        if window is None:
            continue
        left, right = scale.x(window.start_ns), scale.x(window.end_ns)
        tip = f"{words} {window}"
        box = shape("rect", x=left, y=top, width=max(1.0, right - left), height=bottom - top, class_=kind)
        parts.append(titled(tip, box))
        if right - left > wide(words) + 8:
            parts.append(label(right - 4, top + PANEL + 25, words, "od-small od-soft", "end"))
    return join(parts)


def _lanes(rows: Sequence[Lane], scale: _Scale, top: float) -> Markup:
    parts: list[Markup] = []
    for row, (name, pieces) in enumerate(rows):
        y = top + 6 + row * LANE
        for piece in pieces:
            left, right = scale.x(piece.start_ns), scale.x(piece.end_ns)
            words = f"{name} = {piece.words}" if piece.words else name
            width = max(2.0, right - left)
            kind = "od-lane od-harmless" if piece.harmless else "od-lane"
            box = shape("rect", x=left, y=y, width=width, height=LANE - 4, class_=kind, rx=2.0)
            parts.append(titled(f"{words}, {iso(piece.start_ns)}", box))
            if width > wide(words) + 8:
                parts.append(label(left + 4, y + 10.5, words, "od-small"))
            elif piece is pieces[0]:
                parts.append(_beside(words, (left, scale.x(pieces[-1].end_ns)), y + 10.5))
    return join(parts)


def _beside(words: str, between: tuple[float, float], y: float) -> Markup:
    """Write the label on the side of a lane's bars with more space."""
    left, right = between
    if WIDTH - RIGHT - right > left - LEFT:
        return label(right + 6, y, fitting(words, WIDTH - RIGHT - right - 8), "od-small")
    return label(left - 6, y, fitting(words, left - LEFT), "od-small", "end")


def _marks(session: SessionResult, scale: _Scale, between: tuple[float, float]) -> Markup:
    """Draw fault on, fault off and impact, with labels in two rows that do not collide."""
    top, bottom = between
    parts, taken = [], [LEFT - 60.0, LEFT - 60.0]
    for instant_ns, words, kind in sorted(_events(session, scale)):
        x, room = scale.x(instant_ns), wide(words)
        left = min(max(x - room / 2, LEFT - 50), WIDTH - RIGHT - room)
        row = 0 if left >= taken[0] + 8 else 1
        left = max(left, taken[row] + 8)
        taken[row] = left + room
        y = top + MARK * (1 - row)
        parts += [line([(x, y + 4), (x, bottom)], kind), label(left, y, words, "od-small od-head od-halo")]
    return join(parts)


def _events(session: SessionResult, scale: _Scale) -> Iterator[tuple[Nanos, str, str]]:
    start = fault_start_ns(session)
    faults = bool(session.scenario.faults)
    if start is not None and faults:
        yield start, "▼ fault on", "od-mark"
    impact = session.impact
    if impact is not None and impact.time_to_impact_s is not None and start is not None:
        after_s = min(max(impact.time_to_impact_s, 0.0), 1e6)
        yield start + round(after_s * NANOS_PER_SECOND), f"◆ impact seen +{after_s:.0f} s", "od-seen"
    off = off_ns(session)
    if off is not None and faults and scale.start_ns < off <= scale.end_ns:
        yield off, "▲ fault off", "od-mark"


def _panel(panel: _Panel, exhibit: Timeline, scale: _Scale, top: float) -> Markup:
    curves = _curves(panel, exhibit)
    height = _height(panel, curves)
    bottom = top + PANEL
    log = ", logarithmic" if height.log else ""
    parts = [
        shape("rect", x=LEFT, y=top, width=WIDTH - LEFT - RIGHT, height=PANEL, class_="od-panel"),
        label(LEFT, top - 5, f"{panel.title}, {panel.unit}{log}", "od-small od-head"),
    ]
    for value in height.ticks():
        y = bottom - PANEL * height.ratio(value)
        parts.append(label(LEFT - 6, y + 4, _short(value), "od-small od-soft", "end"))
        if 1 < bottom - y < PANEL - 1:
            parts.append(line([(LEFT, y), (WIDTH - RIGHT, y)], "od-rule"))
    step_ns = exhibit.bucket_s * NANOS_PER_SECOND
    for number, curve in reversed(list(enumerate(curves))):
        for run in _runs(curve):
            points = [
                (scale.x(exhibit.start_ns + (index + 0.5) * step_ns), bottom - PANEL * height.ratio(value))
                for index, value in run
            ]
            if len(points) == 1:
                ((x, y),) = points
                parts.append(shape("circle", cx=x, cy=y, r=2.2, class_=f"od-f{number % 6}"))
            else:
                parts.append(line(points, f"od-line od-s{number % 6}"))
    return join(parts)


Curve = list[tuple[int, float]]


def _curves(panel: _Panel, exhibit: Timeline) -> list[Curve]:
    per_bucket = exhibit.bucket_s if panel.unit == "/s" else 1.0
    return [
        [
            (index, min(max(value, 0.0), MOST) / per_bucket)
            for index in range(len(series.requests))
            if (value := panel.value(series, index)) is not None and math.isfinite(value)
        ]
        for series in exhibit.services
    ]


@dataclass(frozen=True)
class _Height:
    """Maps values to shares of a panel's height."""

    low: float
    high: float
    log: bool

    def ratio(self, value: float) -> float:
        if not self.log:
            return min(1.0, max(0.0, value / self.high))
        if value <= self.low:
            return 0.0
        return min(1.0, math.log(value / self.low) / math.log(self.high / self.low))

    def ticks(self) -> tuple[float, ...]:
        if not self.log:
            return 0.0, self.high / 2, self.high
        decades = max(1, round(math.log10(self.high / self.low)))
        step = math.ceil(decades / 4)
        return tuple(self.low * 10.0**power for power in range(0, decades + 1, step))


def _height(panel: _Panel, curves: Sequence[Curve]) -> _Height:
    """Return a linear scale, or a logarithmic one if a service would vanish at the bottom."""
    highest = max((value for curve in curves for _, value in curve), default=0.0)
    if panel.unit == "%":
        return _Height(0.0, min(_ceiling(highest), 100.0), log=False)
    tops = [max(value for _, value in curve) for curve in curves if any(value > 1e-9 for _, value in curve)]
    if not tops or highest / min(tops) < LOG_FROM:
        return _Height(0.0, _ceiling(highest), log=False)
    lowest = min(value for curve in curves for _, value in curve if value > 0)
    # Below the smallest value, so that it differs from 0 at the bottom.
    low = 10.0 ** (math.ceil(math.log10(max(lowest, highest / 1e6))) - 1)
    return _Height(low, 10.0 ** math.ceil(math.log10(highest)), log=True)


def _runs(curve: Curve) -> Iterator[Curve]:
    """Yield the pieces between gaps, so that lines do not bridge missing data."""
    run: Curve = []
    for point in curve:
        if run and point[0] != run[-1][0] + 1:
            yield run
            run = []
        run.append(point)
    if run:
        yield run


def _ceiling(value: float) -> float:
    """Return the smallest of 1, 2, 5 × 10ⁿ that is at least the value."""
    if value <= 1e-9:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        (factor * power for factor in (1.0, 2.0, 5.0, 10.0) if value <= factor * power * (1 + 1e-9)), value
    )


def _short(value: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            scaled = value / (1e3 if suffix == "k" else limit)
            return f"{scaled:.3g}{suffix}"
    return f"{value:.4g}"


def _axis(exhibit: Timeline, scale: _Scale, y: float, zero: str) -> Markup:
    """Draw ticks at round seconds since the start of the fault."""
    low = (scale.start_ns - scale.zero_ns) / NANOS_PER_SECOND
    high = (scale.end_ns - scale.zero_ns) / NANOS_PER_SECOND
    step = _ceiling((high - low) / TICKS)
    parts: list[Markup] = []
    for index in range(math.ceil(low / step), math.floor(high / step) + 1):
        seconds = index * step
        x = scale.x(scale.zero_ns + seconds * NANOS_PER_SECOND)
        words = f"{seconds:+g}" if seconds else "0"
        anchor = "end" if x + wide(words) / 2 > WIDTH else "middle"
        parts.append(line([(x, y), (x, y + 4)], "od-rule"))
        parts.append(label(x, y + 16, words, "od-small od-soft", anchor))
    since = f"seconds from {zero}, {iso(scale.zero_ns)}; one point is {exhibit.bucket_s:g} s"
    parts.append(label(WIDTH - RIGHT, y + 32, since, "od-small od-soft", "end"))
    return join(parts)
