"""Half-open intervals of time in UTC nanoseconds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Self

from pydantic import model_validator

from pytest_otel_diag.model.base import Model, Nanos

NANOS_PER_SECOND = 1_000_000_000


def seconds_to_ns(seconds: float) -> Nanos:
    """Return *seconds* as whole nanoseconds."""
    return round(seconds * NANOS_PER_SECOND)


def iso(instant_ns: Nanos) -> str:
    """Return the instant as ISO 8601 in UTC, with milliseconds; beyond the calendar as a number."""
    whole_s, rest_ns = divmod(instant_ns, NANOS_PER_SECOND)
    try:
        moment = datetime.fromtimestamp(whole_s, tz=UTC)
    except (OverflowError, ValueError, OSError):
        return f"{instant_ns} ns after 1970"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ns // 1_000_000:03d}Z"


class Window(Model):
    """The interval ``[start_ns, end_ns)``."""

    start_ns: Nanos
    end_ns: Nanos

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end_ns < self.start_ns:
            raise ValueError(
                f"window ends ({iso(self.end_ns)}) before it starts ({iso(self.start_ns)}); "
                "swap the two, both are UTC nanoseconds"
            )
        return self

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return (self.end_ns - self.start_ns) / NANOS_PER_SECOND

    @property
    def empty(self) -> bool:
        """Whether the window holds no instant."""
        return self.end_ns == self.start_ns

    def moved(self, later_ns: Nanos) -> Window:
        """Return the window of the same length that begins *later_ns* later."""
        return Window(start_ns=self.start_ns + later_ns, end_ns=self.end_ns + later_ns)

    def __contains__(self, instant_ns: Nanos) -> bool:
        return self.start_ns <= instant_ns < self.end_ns

    def overlaps(self, other: Window) -> bool:
        """Whether the two share an instant."""
        return max(self.start_ns, other.start_ns) < min(self.end_ns, other.end_ns)

    def minus(self, others: tuple[Window, ...]) -> tuple[Window, ...]:
        """Return the parts of this window outside of *others*, in order of time."""
        left = [self]
        for other in others:
            left = [piece for window in left for piece in _cut(window, other)]
        return tuple(sorted(left, key=lambda window: window.start_ns))

    def __str__(self) -> str:
        return f"{iso(self.start_ns)}..{iso(self.end_ns)}"


def _cut(window: Window, hole: Window) -> list[Window]:
    if not window.overlaps(hole):
        return [window] if not window.empty else []
    edges = (
        (window.start_ns, min(window.end_ns, hole.start_ns)),
        (max(window.start_ns, hole.end_ns), window.end_ns),
    )
    return [Window(start_ns=start, end_ns=end) for start, end in edges if start < end]
