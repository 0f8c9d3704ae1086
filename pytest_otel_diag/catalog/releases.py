"""Releases in order, and ranges of releases."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_otel_diag.catalog.entries import Release
from pytest_otel_diag.errors import ConfigurationError, nearest


class Releases:
    """The known releases of a system, oldest first."""

    def __init__(self, releases: Sequence[Release]) -> None:
        self.all = tuple(releases)
        self._by_demo = {release.demo: release for release in self.all}
        self._order = {release.demo: index for index, release in enumerate(self.all)}

    @property
    def demos(self) -> tuple[str, ...]:
        """Their names, oldest first."""
        return tuple(self._by_demo)

    def named(self, demo: str) -> Release | None:
        """Return the release that *demo* spells: ``3.0``, ``v3.0.1``, or ``2.x`` for the newest of a line.

        The newest of a line is the newest that is known completely. None for an unknown release.
        """
        name = demo.strip().removeprefix("v")
        exact = self._by_demo.get(name) or self._by_demo.get(".".join(name.split(".")[:2]))
        if exact is not None:
            return exact
        line = name.removesuffix(".x")
        if "." not in line:
            members = [release for release in self.all if release.demo.split(".")[0] == line]
            complete = [release for release in members if release.known == "complete"] or members
            if complete:
                return complete[-1]
        return None

    def within(self, demo: str, span: str) -> bool:
        """Return whether a known release lies in a range such as ``1.9..1.12``, ``2.1..`` or ``2.2``."""
        first, last = self.bounds(span)
        return first <= self._order[demo] <= last

    def bounds(self, span: str) -> tuple[int, int]:
        """Return the positions of a range's first and last release; raises ConfigurationError."""
        first, dots, last = span.partition("..")
        start = self._position(first, span) if first else 0
        if not dots:
            return start, start
        end = self._position(last, span) if last else len(self.all) - 1
        if end < start:
            raise ConfigurationError(f"the range {span!r} ends before it starts; swap its ends")
        return start, end

    def _position(self, demo: str, span: str) -> int:
        if demo not in self._order:
            raise ConfigurationError(
                f"the range {span!r} names a release {demo!r} that is not listed"
                f"{nearest(demo, self._order)}; known: {', '.join(self._order) or 'none'}"
            )
        return self._order[demo]
