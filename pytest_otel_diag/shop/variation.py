"""The parameters of a simulated shop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variation:
    """A shop to simulate, resolved from a scenario's environment.

    ``demo`` is the release of the OpenTelemetry Demo, ``users`` and ``browser_users`` the load
    generator's virtual users. ``seed`` decides all random draws; ``jitter`` draws the topology as well
    (replicas, nodes and speed of services).
    """

    demo: str = "3.0"
    users: int = 5
    browser_users: int = 1
    seed: int = 0
    jitter: bool = False
