"""Pictures of a session as SVG, drawn from its result alone, without scripts or external resources."""

from __future__ import annotations

from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.reports.pictures.gantt import gantt
from pytest_otel_diag.reports.pictures.graph import graph
from pytest_otel_diag.reports.pictures.svg import Picture, style
from pytest_otel_diag.reports.pictures.timeline import timeline

__all__ = ["Picture", "gantt", "graph", "pictures", "style", "timeline"]


def pictures(session: SessionResult) -> tuple[Picture, ...]:
    """Return the pictures of a session that its data allows: timeline, service graph, critical path."""
    drawn = (draw(session) for draw in (timeline, graph, gantt))
    return tuple(picture for picture in drawn if picture is not None)
