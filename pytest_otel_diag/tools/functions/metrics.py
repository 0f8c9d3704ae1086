"""Metrics in two parts of a comparison: how far each left the range that it had before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.tools.contract import ToolContext

MOST_WINDOWS = 3
"""Windows of one part that are read, the newest: a question about metrics reads one window."""

_BUCKETS = 10
_LEAST_BUCKET_S = 10.0

Key = tuple[str, str, str]
COLUMNS = ("service", "metric", "kind", "mean", "mean_before", "min_before", "max_before")


@dataclass(frozen=True)
class MetricChange:
    """A metric in both parts; None where it has no value. ``kind`` is that of :class:`.MetricLevel`."""

    key: Key
    after: float | None
    before: tuple[float, float, float] | None

    @property
    def size(self) -> tuple[float, float]:
        """How far the mean left the earlier range, and how far the earlier mean, relative to the values."""
        if self.after is None or self.before is None:
            return (1.0, 1.0)
        mean, low, high = self.before
        scale = max(abs(self.after), abs(low), abs(high)) or 1.0
        return max(self.after - high, low - self.after, 0.0) / scale, abs(self.after - mean) / scale

    def row(self) -> tuple[object, ...]:
        """Return the columns of :data:`COLUMNS`."""
        return (*self.key, self.after, *(self.before or (None, None, None)))


async def metric_changes(
    context: ToolContext, after: Sequence[Window], before: Sequence[Window], services: Sequence[str]
) -> list[MetricChange]:
    """Return the metrics of the services, those first that left their earlier range furthest."""
    late = await _values(context, after, services)
    early = await _values(context, before, services)
    changes = [
        MetricChange(
            key,
            fmean(late[key]) if key in late else None,
            (fmean(early[key]), min(early[key]), max(early[key])) if key in early else None,
        )
        for key in sorted({*late, *early})
    ]
    return sorted(changes, key=lambda change: change.size, reverse=True)


async def _values(
    context: ToolContext, windows: Sequence[Window], services: Sequence[str]
) -> dict[Key, list[float]]:
    found: dict[Key, list[float]] = defaultdict(list)
    for window in windows[-MOST_WINDOWS:]:
        bucket_s = max(_LEAST_BUCKET_S, window.duration_s / _BUCKETS)
        for level in await context.investigation.telemetry.metric_levels(window, bucket_s, services):
            found[level.service, level.metric, level.kind].append(level.value)
    return found
