"""Numbers as they are written, with the precision that their digits state."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

Bound = Literal["exact", "about", "least", "most"]

_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_PLAIN = re.compile(r"\d+(?:\.\d+)?")
_DIGITS = 15
_RELATIVE = 1e-9
_ABOUT = 0.1
_BOUND_FACTOR = 2.0


@dataclass(frozen=True, slots=True)
class Written:
    """A number with its rounding: what is written stands for ``value`` ± ``half``.

    Zeros at the end may be digits or may be rounded: ``300`` is 300 ± 0.5 or 300 ± 50. ``loose`` is the
    wider reading. ``bound`` is what the words before it say: ``about``, ``more than``.
    """

    value: float
    half: float
    loose: float
    bound: Bound = "exact"

    def times(self, factor: float) -> Written:
        """Return the number in another unit."""
        return Written(self.value * factor, self.half * factor, self.loose * factor, self.bound)

    def strict(self) -> Written:
        """Return the number with every digit meant."""
        return Written(self.value, self.half, self.half, self.bound)

    def judged(self, low: float, high: float) -> bool | None:
        """Return whether the number agrees with a true value in ``[low, high]``, None where that is open.

        A bound that holds but is far from the value ("at least 0 %") says nothing, so it is open.
        """
        slack = abs(self.value) * _RELATIVE
        if self.bound == "least":
            near = low <= _BOUND_FACTOR * self.value
            return False if high < self.value - self.half - slack else near or None
        if self.bound == "most":
            near = _BOUND_FACTOR * high >= self.value
            return False if low > self.value + self.half + slack else near or None
        half, loose = self.half, self.loose
        if self.bound == "about":
            half = max(self.loose, _ABOUT * abs(self.value))
            loose = 2.0 * half
        distance = max(low - self.value, self.value - high, 0.0)
        if distance <= half + slack:
            return True
        return None if distance <= loose + slack else False


def read_number(text: str, bound: Bound = "exact") -> Written | None:
    """Return the number that *text* writes, None for what may be read in several ways.

    ``1,200`` is 1200; ``0,5``, ``1.2.3`` and numbers of more than 15 digits are left alone.
    """
    if len(text) > 2 * _DIGITS:
        return None
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if not _PLAIN.fullmatch(text) or len(text) > _DIGITS:
        return None
    whole, _, decimals = text.partition(".")
    half = 0.5 * 10.0 ** -len(decimals)
    return Written(float(text), half, half if decimals else _loose(whole), bound)


def from_value(value: float) -> Written:
    """Return a number of a structured figure, in the shortest form that writes it."""
    if not math.isfinite(value):
        return Written(0.0, 0.0, 0.0)
    text = format(abs(value), ".15g")
    if "e" in text:
        half = abs(value) * _RELATIVE
        return Written(value, half, half)
    whole, _, decimals = text.partition(".")
    half = 0.5 * 10.0 ** -len(decimals)
    return Written(value, half, half if decimals else _loose(whole))


def _loose(whole: str) -> float:
    zeros = len(whole) - len(whole.rstrip("0")) if whole.strip("0") else 0
    return 0.5 * 10.0**zeros
