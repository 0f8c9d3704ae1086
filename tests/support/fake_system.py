"""A target ``fake`` for whole pytest runs: the system of the sessions' tests, its flags in a file."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_otel_diag.errors import RestoreFailed
from tests.sessions.session_fakes import FakeTarget

ENTRY_POINTS = "[pytest_otel_diag.targets]\nfake = tests.support.fake_system:System\n"
METADATA = "Metadata-Version: 2.1\nName: fake-system\nVersion: 1\n"


class System(FakeTarget):
    """Spec ``exclusive``, ``stuck`` (its flags cannot be put back), or both with a comma."""

    @classmethod
    def from_settings(cls, rest, *, settings, worker):
        asked = rest.split(",")
        system = cls(exclusive="exclusive" in asked)
        file = Path(f"flags-{worker}.json")
        file.write_bytes(system.original)
        changed = system.flags.changed

        def kept() -> None:
            changed()
            part = file.with_suffix(f".{os.getpid()}")
            part.write_bytes(system.flags.raw())
            part.replace(file)

        system.flags.changed = kept
        if "stuck" in asked:
            system.trouble.raising("flags.restore", RestoreFailed("the disk is full"))
        return system

    def scenarios(self):
        return ()


def install(folder: Path) -> None:
    """Make the target known to processes that have *folder* on their path."""
    info = folder / "fake_system-1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    (info / "METADATA").write_text(METADATA, encoding="utf-8")
