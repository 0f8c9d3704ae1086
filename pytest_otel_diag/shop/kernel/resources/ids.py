"""Random identifiers of simulated programs."""

from __future__ import annotations

import random
from uuid import UUID


def uuid4(rng: random.Random) -> str:
    """Return a random UUID, version 4 of RFC 9562."""
    return str(UUID(int=rng.getrandbits(128), version=4))
