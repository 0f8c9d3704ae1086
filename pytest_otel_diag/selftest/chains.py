"""Searches traces for a chain of services along parents and links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.statements import load

TRACES = 200
"""Number of traces of the path's last service that are searched."""

_LONGEST = 200
"""Maximal depth of a chain of calls; it ends cycles of links."""


@dataclass(frozen=True)
class _Span:
    service: str
    above: tuple[str, ...]
    """The parent of the span and the spans that it links to."""


async def real_path(telemetry: Telemetry, path: Sequence[str], window: Window) -> tuple[str, ...] | None:
    """Return the shortest chain of services in traces that passes through *path* in order, None without one.

    A chain leads from a span of the path's last service up to its callers; *path* may omit hops. The services
    have their names in telemetry. Raises TelemetryError.
    """
    table = await telemetry.query(
        load(__package__, "chains").sql,
        {"service": path[-1], "start": window.start_ns, "end": window.end_ns, "traces": TRACES},
    )
    spans = {
        span: _Span(service, tuple(above for above in (parent, *links) if above))
        for span, parent, service, links in table.rows()
    }
    ends = [span for span, value in spans.items() if value.service == path[-1]]
    found = {chain for end in ends if (chain := _up(spans, end, path)) is not None}
    return min(found, key=lambda chain: (len(chain), chain), default=None)


def _up(spans: Mapping[str, _Span], start: str, path: Sequence[str]) -> tuple[str, ...] | None:
    """Walk up from *start*; return the services from the first of the path to its last, without repeats."""
    waiting: list[tuple[str, int, tuple[str, ...]]] = [(start, len(path) - 1, ())]
    seen: set[tuple[str, int]] = set()
    while waiting:
        span, missing, below = waiting.pop()
        service = spans[span].service
        chain = below if below and below[0] == service else (service, *below)
        if service == path[missing]:
            missing -= 1
        if missing < 0:
            return chain
        for above in spans[span].above:
            if above in spans and (above, missing) not in seen and len(chain) < _LONGEST:
                seen.add((above, missing))
                waiting.append((above, missing, chain))
    return None
