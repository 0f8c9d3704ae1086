"""Findings of a diagnosis as rows of text, for messages of failures."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_otel_diag.model.diagnosis import Anomaly, Evidence, RootCause


def cause_rows(causes: Sequence[RootCause]) -> list[list[str]]:
    """Return root causes as rows below a header, without rows if there are none."""
    if not causes:
        return []
    rows = [
        [
            str(rank),
            cause.service,
            cause.operation or "-",
            str(cause.mechanism or "-"),
            score_text(cause.score),
            cause.explanation or _summary(cause.evidence),
        ]
        for rank, cause in enumerate(causes, start=1)
    ]
    return [["#", "service", "operation", "mechanism", "score", "why"], *rows]


def anomaly_rows(anomalies: Sequence[Anomaly]) -> list[list[str]]:
    """Return anomalies as rows below a header, the strongest first, without rows if there are none."""
    if not anomalies:
        return []
    rows = [
        [
            anomaly.service,
            anomaly.operation or "-",
            str(anomaly.signal),
            anomaly.direction,
            score_text(anomaly.score),
            change_text(anomaly),
        ]
        for anomaly in sorted(anomalies, key=lambda anomaly: -abs(anomaly.score))
    ]
    return [["service", "operation", "signal", "direction", "score", "change"], *rows]


def score_text(score: float) -> str:
    """Return a score; a dash for 0, its default, since the analyzer gave none."""
    return f"{score:.3g}" if score else "-"


def change_text(anomaly: Anomaly) -> str:
    """Return from where to where the signal went, or the evidence where the analyzer states no values."""
    if anomaly.baseline is None or anomaly.observed is None:
        return _summary(anomaly.evidence)
    return f"{anomaly.baseline:.4g} → {anomaly.observed:.4g} {anomaly.unit}".rstrip()


def _summary(evidence: Sequence[Evidence]) -> str:
    return evidence[0].summary if evidence else ""
