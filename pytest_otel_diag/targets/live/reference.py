"""Quiet telemetry from before a session, which analyzers get beside its baseline.

With ``live:reference_s=N`` the first session gets the N seconds before it, which the user declares to be
quiet. Later sessions also get the quiet parts of earlier ones, from their opening to their first write to a
flag, N seconds in total, the newest first. A counter that is exported once a minute has no rate in a short
baseline, but it has one in the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_otel_diag import statements
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import FlagChange, FlagDocument, FlagValue, ServedFlag
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window, seconds_to_ns
from pytest_otel_diag.ports import Clock, FlagController
from pytest_otel_diag.targets.live.options import WAITING
from pytest_otel_diag.telemetry.session import StoreTelemetry

LEAST_S = 5.0
"""Shorter windows are ignored."""

_GAP_S = 2.0
"""Tolerated gap at the beginning of the first window, since systems are not busy every second."""

Notify = Callable[[str], object]


class Reference:
    """The quiet windows of one target, at most *seconds* of them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: list[Window] = []

    async def windows(self, telemetry: StoreTelemetry, clock: Clock, notify: Notify) -> tuple[Window, ...]:
        """Return them in order of time; the first call waits until telemetry reaches back far enough."""
        if not self._seconds:
            return ()
        if not self._seen:
            self._seen.append(await self._before(telemetry, clock, notify))
        return self._newest()

    def add(self, start_ns: Nanos, end_ns: Nanos) -> None:
        """Add a quiet window."""
        if (end_ns - start_ns) / NANOS_PER_SECOND >= LEAST_S:
            self._seen.append(Window(start_ns=start_ns, end_ns=end_ns))

    async def _before(self, telemetry: StoreTelemetry, clock: Clock, notify: Notify) -> Window:
        """Return the window before now, waiting until telemetry covers its beginning."""
        wanted_ns = clock.now() - seconds_to_ns(self._seconds)
        answer = await telemetry.run(statements.load(__package__, "oldest_traces"), {"since_ns": wanted_ns})
        oldest_ns, rows = next(answer.rows(), (0, 0))
        begins_ns = int(oldest_ns) if rows else clock.now()
        lacking_s = (begins_ns - wanted_ns) / NANOS_PER_SECOND - _GAP_S
        if lacking_s > 0:
            notify(f"{WAITING}{lacking_s:.0f} s of {self._seconds:g} s of quiet telemetry are missing")
            await clock.sleep(lacking_s)
        now = clock.now()
        return Window(start_ns=now - seconds_to_ns(self._seconds), end_ns=now)

    def _newest(self) -> tuple[Window, ...]:
        left_ns = seconds_to_ns(self._seconds)
        chosen: list[Window] = []
        for window in reversed(self._seen):
            start_ns = max(window.start_ns, window.end_ns - left_ns)
            if window.end_ns - start_ns < seconds_to_ns(LEAST_S):
                break
            chosen.append(Window(start_ns=start_ns, end_ns=window.end_ns))
            left_ns -= window.end_ns - start_ns
        return tuple(reversed(chosen))


class FirstChange:
    """A FlagController that records when the first flag was set and delegates to *inner*."""

    def __init__(self, inner: FlagController, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock
        self.first_ns: Nanos | None = None

    async def document(self) -> FlagDocument:
        """Return the whole document, exactly."""
        return await self._inner.document()

    async def apply(self, change: FlagChange) -> None:
        """Set one flag."""
        if self.first_ns is None:
            self.first_ns = self._clock.now()
        await self._inner.apply(change)

    async def restore(self, document: FlagDocument) -> None:
        """Restore the document."""
        await self._inner.restore(document)

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        """Evaluate the flag."""
        return await self._inner.served(key, context)
