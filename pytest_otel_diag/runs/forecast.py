"""What sessions of an analyzer are likely to cost, from earlier runs. Imports the standard library only."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MOST_RUNS = 20
"""Newest runs that are looked at."""
_MOST_SESSIONS = 200


@dataclass(frozen=True)
class Forecast:
    """Sessions of an analyzer in earlier runs: how many, their wall time in seconds and their cost.

    ``mean_usd`` is what one costs on average, ``most_usd`` what the dearest one did.
    """

    sessions: int
    median_s: float
    mean_usd: float
    most_usd: float

    def described(self, ahead: int = 0) -> str:
        """Return the forecast in a sentence, for *ahead* sessions where that is known."""
        if ahead:
            return (
                f"forecast for {ahead} sessions: {ahead * self.median_s / 60:.2g} minutes one after another "
                f"and {ahead * self.mean_usd:.2g} USD, as {self.sessions} earlier ones took and cost"
            )
        return (
            f"forecast: {self.sessions} earlier sessions of this analyzer took {self.median_s:.3g} s and "
            f"cost {self.mean_usd:.2g} USD each (at most {self.most_usd:.2g})"
        )


def forecast(reports: Path, analyzer: str) -> Forecast | None:
    """Return what sessions of *analyzer*, as runs show it, took and cost; None where none has cost anything.

    Replayed runs are left out: they cost nothing. What cannot be read is left out as well.
    """
    found = []
    for session in _sessions(reports, analyzer):
        found.append(session)
        if len(found) == _MOST_SESSIONS:
            break
    costs = [cost for _, cost in found]
    if not any(costs):
        return None
    return Forecast(
        sessions=len(found),
        median_s=statistics.median(seconds for seconds, _ in found),
        mean_usd=statistics.fmean(costs),
        most_usd=max(costs),
    )


def _sessions(reports: Path, analyzer: str) -> Iterator[tuple[float, float]]:
    """Yield seconds and dollars of the analyzer's sessions that reached it, the newest run first."""
    runs = sorted(reports.glob("*/sessions.jsonl"), reverse=True)[:_MOST_RUNS]
    for file in runs:
        try:
            if _replayed(json.loads((file.parent / "run.json").read_bytes()), analyzer):
                continue
            lines = file.read_bytes().split(b"\n")[:-1]
        except (OSError, ValueError):
            continue
        for line in lines:
            measured = _measured(line, analyzer)
            if measured is not None:
                yield measured


def _replayed(manifest: Any, analyzer: str) -> bool:
    found = manifest.get("analyzers", ()) if isinstance(manifest, Mapping) else ()
    return any(one.get("id") == analyzer and "tape" in one.get("details", {}) for one in found)


def _measured(line: bytes, analyzer: str) -> tuple[float, float] | None:
    try:
        session = json.loads(line)
        if session["analyzer"] != analyzer:
            return None
        asked = session.get("diagnosis") or session.get("transcript")
        return None if asked is None else (float(session["wall_s"]), float(asked["usage"]["cost_usd"]))
    except (ValueError, KeyError, TypeError):
        return None
