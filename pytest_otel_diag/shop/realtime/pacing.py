"""Paces a model by the wall clock: never ahead of it, in small steps, with a report of the lag.

The target instant of the model is ``start + speed × wall time since the start``. The model advances towards
it in steps worth at most ``step_s`` seconds of wall time, so it also reacts to a stop while it catches up.
After every step, records that are visible at the model's now go to the sink; the last step flushes records
that are in flight, as an SDK does when its process stops.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, seconds_to_ns
from pytest_otel_diag.shop.records import Batch

_LONGEST_STEP_S = 10.0  # of model time: bounds the size of a batch at any speed


class PacedModel(Protocol):
    """A model that can be paced, such as :class:`pytest_otel_diag.shop.realtime.simulated.PacedShop`."""

    @property
    def now_ns(self) -> Nanos:
        """The current instant of the model."""
        ...

    def advance(self, until_ns: Nanos) -> None:
        """Run the model up to this instant."""
        ...

    def take(self, until_ns: Nanos) -> Batch:
        """Remove and return the records that are visible at this instant."""
        ...

    def flush(self) -> Batch:
        """Return all records emitted so far, visible or not; this ends the model."""
        ...


class Pacer:
    """Drives *model* from its current instant and passes its records to *sink*.

    ``speed`` is model seconds per wall second, ``monotonic`` the wall clock in seconds; ``stop`` ends the
    run from a signal handler or another thread. Raises ConfigurationError unless the speed is above 0.
    """

    def __init__(
        self,
        model: PacedModel,
        sink: Callable[[Batch], object],
        *,
        monotonic: Callable[[], float],
        stop: threading.Event,
        speed: float = 1.0,
        step_s: float = 0.1,
    ) -> None:
        if not 0 < speed < float("inf"):
            raise ConfigurationError(
                f"speed {speed:g} is not a valid speed; give a number above 0 (1 is real time)"
            )
        self._model = model
        self._sink = sink
        self._monotonic = monotonic
        self._stop = stop
        self._speed = speed
        self._step_s = step_s
        self._start_ns = model.now_ns
        self._begun_s = monotonic()

    @property
    def passed_s(self) -> float:
        """Model seconds since the start."""
        return (self._model.now_ns - self._start_ns) / NANOS_PER_SECOND

    @property
    def behind_s(self) -> float:
        """Lag of the model in wall seconds."""
        late_ns = self._start_ns + self._passed_ns() - self._model.now_ns
        return max(0.0, late_ns / NANOS_PER_SECOND / self._speed)

    def run(self, duration_s: float | None, each_step: Callable[[], object] = lambda: None) -> None:
        """Run for *duration_s* model seconds (None: until stopped), then flush the model.

        *each_step* is called after every step, for example to print. An error of the model, the sink or
        *each_step* propagates without a flush.
        """
        self._begun_s = self._monotonic()
        self._start_ns = self._model.now_ns
        end_ns = None if duration_s is None else self._start_ns + seconds_to_ns(duration_s)
        step_ns = max(1, seconds_to_ns(min(self._step_s * self._speed, _LONGEST_STEP_S)))
        while not self._stop.is_set() and (end_ns is None or self._model.now_ns < end_ns):
            due_ns = self._start_ns + self._passed_ns()
            if end_ns is not None:
                due_ns = min(due_ns, end_ns)
            if self._model.now_ns < due_ns:
                until_ns = min(due_ns, self._model.now_ns + step_ns)
                self._model.advance(until_ns)
                self._sink(self._model.take(until_ns))
            if self._model.now_ns >= due_ns:
                self._stop.wait(self._step_s)
            each_step()
        self._sink(self._model.flush())

    def _passed_ns(self) -> Nanos:
        return seconds_to_ns((self._monotonic() - self._begun_s) * self._speed)
