"""Answers to typed questions that stay true until telemetry of their window is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.questions import WindowQuestion
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.shop.records import Batch

_STARTED = attrgetter("start_ns")
_TIMED = attrgetter("time_ns")


class Answers:
    """Answers about the telemetry in the store of one session.

    An answer depends on the telemetry in the window of its question alone. So it holds for every end of the
    window after the newest telemetry, and until telemetry that lies in the window is written.
    """

    def __init__(self) -> None:
        self._kept: dict[WindowQuestion[Any], Any] = {}
        self._newest_ns: dict[str, Nanos] = {}

    def get(self, question: WindowQuestion[Any]) -> Any:
        """Return the answer, None where it is not known."""
        return self._kept.get(self._narrowed(question))

    def keep(self, question: WindowQuestion[Any], answer: Any) -> None:
        """Keep the answer to a question over the telemetry that is in the store now."""
        self._kept[self._narrowed(question)] = answer

    def written(self, batch: Batch) -> None:
        """Forget the answers that the telemetry of *batch* may change."""
        earliest_ns: dict[str, Nanos] = {}
        for signal, instants in _instants(batch).items():
            times = list(instants)
            if times:
                earliest_ns[signal], latest_ns = min(times), max(times)
                self._newest_ns[signal] = max(latest_ns, self._newest_ns.get(signal, latest_ns))
        self._kept = {
            question: answer
            for question, answer in self._kept.items()
            if all(
                question.window.end_ns <= earliest_ns.get(signal, question.window.end_ns)
                for signal in question.signals
            )
        }

    def _narrowed(self, question: WindowQuestion[Any]) -> WindowQuestion[Any]:
        """Return the question without the end of its window that holds no telemetry."""
        window = question.window
        after_ns = max((self._newest_ns.get(signal, 0) for signal in question.signals), default=0) + 1
        if after_ns >= window.end_ns:
            return question
        end_ns = max(window.start_ns, after_ns)
        return replace(question, window=Window(start_ns=window.start_ns, end_ns=end_ns))


def _instants(batch: Batch) -> Mapping[str, Iterable[Nanos]]:
    """Return by signal the instants that place the records of *batch* in windows."""
    return {
        "traces": map(_STARTED, batch.spans),
        "logs": map(_TIMED, batch.logs),
        "metrics": map(_TIMED, batch.metrics),
    }
