"""Totals of a simulation run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Totals since the start; requests begun minus requests ended are the requests in flight."""

    requests_begun: int = 0
    requests_ended: int = 0
    requests_failed: int = 0
    messages_produced: int = 0
    messages_consumed: int = 0
    spans: int = 0
    logs: int = 0
    points: int = 0
    records_lost: int = 0
    kills: int = 0
