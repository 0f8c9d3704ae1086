"""Status lines of a running shop."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_otel_diag.shop.realtime.encode import Signal
from pytest_otel_diag.shop.realtime.export import ExportCounts

_NAMES: dict[Signal, str] = {"traces": "spans", "logs": "logs", "metrics": "points"}
_LATE_S = 1.0


def line(
    before: ExportCounts, now: ExportCounts, *, over_s: float, passed_s: float, behind_s: float, flags: str
) -> str:
    """Return one line: shop time, records sent per wall second since *before*, problems, flags."""
    parts = [clock(passed_s)]
    for signal, name in _NAMES.items():
        sent = now.sent[signal] - before.sent[signal]
        parts.append(f"{name} {sent / over_s:.0f}/s")
    parts.append(f"waiting {now.unsent}")
    parts.append(f"dropped {now.dropped}" + (f" ({now.why_dropped()})" if now.dropped else ""))
    if behind_s > _LATE_S:
        parts.append(f"behind {behind_s:.1f} s: this machine cannot keep up")
    parts.append(flags)
    return "  ".join(parts)


def summary(counts: ExportCounts, passed_s: float) -> str:
    """Return the final line."""
    sent = ", ".join(f"{counts.sent[signal]:,} {name}" for signal, name in _NAMES.items())
    dropped = f"dropped {counts.dropped} ({counts.why_dropped()})" if counts.dropped else "nothing dropped"
    return f"{clock(passed_s)} of the shop: sent {sent}; {dropped}"


def flags(changed: Sequence[str], *, answered: bool) -> str:
    """Return the flags that are not at their default, written ``name=variant``."""
    if not answered:
        return "flags at the services' defaults: no flag source"
    return f"flags {', '.join(changed)}" if changed else "flags at default"


def clock(seconds: float) -> str:
    """Return *seconds* as ``h:mm:ss``."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
