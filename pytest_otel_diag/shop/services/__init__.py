"""The services of the Astronomy Shop, and the one door through which a simulation gets them.

:func:`build` adds every service of a release to a world and returns the :class:`Entry` of its traffic:
``entry.start()`` lets the users in, ``entry.load(factor)`` multiplies their number,
``entry.drive(services, calls)`` sends requests soon that reach the named services.
"""

from __future__ import annotations

from pytest_otel_diag.shop.services.build import build
from pytest_otel_diag.shop.services.entry import Entry

__all__ = ["Entry", "build"]
