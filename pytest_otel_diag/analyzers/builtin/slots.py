"""Splits the windows of an investigation into slots of equal length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pytest_otel_diag.analyzers.builtin.robust_statistics import Floats
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window, seconds_to_ns

SLOTS_WANTED = 24
"""Wanted number of slots, enough for spreads and for a distribution of quiet scores."""

SLOTS_MAX = 60
PARTS_MAX = 40
SLOT_MIN_S = 5.0
ONSET_DOUBT_S = 30.0
"""With a reference, the last seconds before the incident are not used as quiet time: the start of a fault is
rarely known more exactly, and exporters batch."""


@dataclass(frozen=True)
class Slots:
    """Slot 0 is the incident, slots 1.. are quiet, and the last ones are the incident again in parts.

    The last ``own`` quiet slots are directly before the incident.
    """

    incident: Window
    quiet: tuple[Window, ...]
    parts: tuple[Window, ...]
    own: int

    @property
    def count(self) -> int:
        """Number of slots."""
        return self.first_part + len(self.parts)

    @property
    def first_part(self) -> int:
        """Number of the first part of the incident."""
        return 1 + len(self.quiet)

    @property
    def seconds(self) -> Floats:
        """Length of each slot."""
        return np.array([slot.duration_s for slot in (self.incident, *self.quiet, *self.parts)])

    @property
    def windows(self) -> tuple[Window, ...]:
        """The fewest windows that contain all slots, in order of time."""
        return tuple(merged([self.incident, *self.quiet]))

    def parameters(self) -> dict[str, list[int] | int]:
        """Return ``bounds`` and ``slots``: instants in order, and the slot from each one on (-1: none).

        Within the incident it is the part; statements add slot 0 for slots from ``parts_from`` on.
        """
        bounds: list[Nanos] = [0]
        numbers = [-1]
        pieces = [(slot, index) for index, slot in enumerate((*self.quiet, *self.parts), 1)]
        for window, number in sorted(pieces, key=lambda piece: piece[0].start_ns):
            if window.empty:
                continue
            if bounds[-1] == window.start_ns:
                numbers[-1] = number
            else:
                bounds.append(window.start_ns)
                numbers.append(number)
            bounds.append(window.end_ns)
            numbers.append(-1)
        return {"bounds": bounds, "slots": numbers, "parts_from": self.first_part}


def plan(incident: Window, baseline: Window | None, reference: Sequence[Window]) -> Slots:
    """Split baseline and reference into slots that are comparable with the incident.

    Slots are as long as the incident, or shorter if there would be fewer than SLOTS_WANTED, since spreads
    need many slots more than long ones. Of a very long reference, SLOTS_MAX slots are used at even distances.
    """
    far = merged([piece for window in reference for piece in window.minus((incident,))])
    own = _own(incident, baseline, far)
    total_s = sum(window.duration_s for window in (*far, *own))
    length_s = max(min(incident.duration_s, max(total_s / SLOTS_WANTED, 2 * SLOT_MIN_S)), SLOT_MIN_S)
    length_s = max(length_s, incident.duration_s / PARTS_MAX)
    near = [slot for window in own for slot in _cut(window, length_s)][-SLOTS_MAX:]
    quiet = [slot for window in far for slot in _cut(window, length_s)]
    if len(quiet) > SLOTS_MAX:
        quiet = [quiet[index * len(quiet) // SLOTS_MAX] for index in range(SLOTS_MAX)]
    parts = _cut(incident, length_s) or [incident]
    return Slots(incident, (*quiet, *near), tuple(parts), len(near))


def _own(incident: Window, baseline: Window | None, far: Sequence[Window]) -> list[Window]:
    if baseline is None:
        return []
    doubt = seconds_to_ns(ONSET_DOUBT_S if far else 0.0)
    trusted = max(min(baseline.end_ns, incident.start_ns - doubt), baseline.start_ns)
    window = Window(start_ns=baseline.start_ns, end_ns=trusted)
    return list(window.minus((incident, *far)))


def merged(windows: Sequence[Window]) -> list[Window]:
    """Return the fewest windows that cover the same instants, in order of time."""
    joined: list[Window] = []
    for window in sorted((w for w in windows if not w.empty), key=lambda w: w.start_ns):
        if joined and window.start_ns <= joined[-1].end_ns:
            end = max(window.end_ns, joined[-1].end_ns)
            joined[-1] = Window(start_ns=joined[-1].start_ns, end_ns=end)
        else:
            joined.append(window)
    return joined


def _cut(window: Window, length_s: float) -> list[Window]:
    """Split into equal slots of about *length_s*; a rest below half of it is dropped."""
    if window.duration_s < 0.5 * length_s:
        return []
    count = max(1, round(window.duration_s / length_s))
    span = window.end_ns - window.start_ns
    edges = [window.start_ns + span * index // count for index in range(count + 1)]
    return [Window(start_ns=a, end_ns=b) for a, b in pairwise(edges) if b - a > NANOS_PER_SECOND // 10]
