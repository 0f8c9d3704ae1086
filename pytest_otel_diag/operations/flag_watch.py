"""What changes between two looks at the flags, written and served apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.operations.flag_overview import Overview, Row, overview


@dataclass(frozen=True)
class Seen:
    """One look: variants by flag, and by flag and context. ``problem``: what could not be read or asked."""

    written: Mapping[str, str] = field(default_factory=dict)
    served: Mapping[tuple[str, str], str] = field(default_factory=dict)
    on: tuple[str, ...] = ()
    problem: str = ""

    @property
    def summary(self) -> str:
        """What there is, in a few words."""
        if self.problem:
            return self.problem
        return f"{len(self.written)} flags, not as shipped: {', '.join(self.on) or 'none'}"

    def over(self, before: Seen) -> Seen:
        """Return it with what could not be seen as it was *before*, so that a gap hides no change."""
        return Seen(self.written or before.written, self.served or before.served, self.on, self.problem)


async def seen(flags: SurfaceFlags) -> Seen:
    """Look once; what cannot be read or asked is told in ``problem``."""
    try:
        found = await overview(flags)
    except FlagError as error:
        return Seen(problem=f"not readable: {error}")
    written = {row.flag: row.written for row in found.rows if row.written}
    problem = f"not served: {found.unserved}" if found.unserved else ""
    return Seen(written, _served(found), found.comparison.on, problem)


def _served(found: Overview) -> dict[tuple[str, str], str]:
    return {
        (row.flag, _context(row, position)): answer.variant or "nothing"
        for row in found.rows
        for position, answer in enumerate(row.answers)
    }


def _context(row: Row, position: int) -> str:
    return ", ".join(f"{key}={value}" for key, value in row.answers[position].context.items())


def changes(before: Seen, after: Seen) -> Iterator[tuple[str, str]]:
    """Yield flag and text for every change from one look to the next; a problem is told once."""
    if after.problem != before.problem:
        yield "(flags)", after.problem or "readable and served again"
    if after.written:
        for flag in dict.fromkeys((*before.written, *after.written)):
            old, new = before.written.get(flag, "absent"), after.written.get(flag, "absent")
            if old != new:
                yield flag, f"written {old} → {new}"
    if after.served:
        for flag, context in dict.fromkeys((*before.served, *after.served)):
            old = before.served.get((flag, context), "absent")
            new = after.served.get((flag, context), "absent")
            if old != new:
                yield flag, f"served {old} → {new}" + (f" for {context}" if context else "")
