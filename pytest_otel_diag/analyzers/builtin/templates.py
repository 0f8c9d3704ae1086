"""Log templates by drain3, which only this module imports, and only if there are logs.

Bodies are masked in SQL first (ids and numbers become ``<*>``), so Drain sees each distinct masked
body once, not each line. Method: He et al., "Drain: an online log parsing approach with fixed depth
tree", ICWS 2017, with its published defaults (similarity 0.5, depth 4).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MASK = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F-]{22}|[0-9A-Za-z]*[0-9][0-9A-Za-z]*"
"""Variable parts of a body: UUIDs, and words with a digit, such as numbers, times, hashes and names (RE2
syntax)."""

FIRST_ID = 1000
"""Template ids start here; 1 and 2 mark the start and the end of a flow."""


@dataclass(frozen=True, slots=True)
class Body:
    """A masked body: its hash in SQL, the service that wrote it, and its count."""

    hash: int
    service: str
    severity: str
    masked: str


@dataclass(frozen=True, slots=True)
class Template:
    """The common pattern of a cluster of bodies."""

    id: int
    text: str
    severity: str


@dataclass(frozen=True)
class Templates:
    """Templates by id, and the mapping that SQL needs to count them."""

    by_id: dict[int, Template]
    bodies: tuple[int, ...]
    template_of_body: tuple[int, ...]


def mine(bodies: Iterable[Body]) -> Templates:
    """Cluster masked bodies; a body that two services write is one template."""
    known: dict[int, int] = {}
    by_id: dict[int, Template] = {}
    drain = None
    for body in bodies:
        if body.hash in known:
            continue
        if drain is None:
            drain = _drain()
        cluster, _ = drain.add_log_message(body.masked)
        number = FIRST_ID + int(cluster.cluster_id)
        known[body.hash] = number
        severity = by_id[number].severity if number in by_id else body.severity
        by_id[number] = Template(number, str(cluster.get_template()), severity)
    return Templates(by_id, tuple(known), tuple(known.values()))


def _drain() -> Any:
    from drain3.drain import Drain  # noqa: PLC0415  # lazy: saves half a second in sessions without logs

    return Drain(depth=4, sim_th=0.5, max_children=1000, max_clusters=None)
