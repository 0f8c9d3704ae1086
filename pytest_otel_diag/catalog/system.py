"""One system: its releases, services and flags, from one or more files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pytest_otel_diag.catalog.entries import CatalogFile, FlagEntry, Period, Release, ServiceEntry
from pytest_otel_diag.catalog.names import folded
from pytest_otel_diag.catalog.releases import Releases

SHIPPED_SYSTEM = "OpenTelemetry Demo"
"""The system to which files without a ``system`` belong."""


@dataclass(frozen=True)
class Generation:
    """One release: its flags by their newest names, and its names of services by their newest names."""

    release: Release
    system: str
    flags: Mapping[str, Period]
    services: Mapping[str, str]

    @property
    def demo(self) -> str:
        """The release, as ``3.0``."""
        return self.release.demo


class System:
    """The entries of one system. ``files`` are its files, by name."""

    def __init__(self, name: str, files: Sequence[tuple[str, CatalogFile]]) -> None:
        self.name = name
        self.files = tuple(files)
        self.releases = Releases([release for _, file in files for release in file.releases])
        self.services: tuple[ServiceEntry, ...] = tuple(s for _, file in files for s in file.services)
        self.flags: tuple[FlagEntry, ...] = tuple(flag for _, file in files for flag in file.flags)
        self._generations: dict[str, Generation] = {}

    @cached_property
    def _by_name(self) -> Mapping[str, ServiceEntry]:
        return {folded(name): service for service in self.services for name in service.names}

    def generation(self, release: Release) -> Generation:
        """Return the flags and services of one of its releases."""
        found = self._generations.get(release.demo)
        if found is None:
            flags = {flag.key: period for flag in self.flags if (period := self.period(flag, release.demo))}
            services = {
                service.name: self._name_of(service, release.demo)
                for service in self.services
                if self.releases.within(release.demo, service.releases)
            }
            found = self._generations[release.demo] = Generation(release, self.name, flags, services)
        return found

    def period(self, flag: FlagEntry, demo: str) -> Period | None:
        """Return the flag as it is in a release, None where it does not exist."""
        return next((p for p in flag.periods if self.releases.within(demo, p.releases)), None)

    def demos(self, flag: FlagEntry) -> tuple[str, ...]:
        """Return the releases that have the flag, oldest first."""
        return tuple(demo for demo in self.releases.demos if self.period(flag, demo))

    def service(self, name: str) -> ServiceEntry | None:
        """Return the service of that name, of any release; None for an unknown name."""
        return self._by_name.get(folded(name))

    def service_name(self, name: str, demo: str) -> str:
        """Return the service's name in a release; an unknown name is returned unchanged."""
        entry = self.service(name)
        return self._name_of(entry, demo) if entry is not None else name

    def _name_of(self, service: ServiceEntry, demo: str) -> str:
        for former in service.formerly:
            if self.releases.within(demo, former.releases):
                return former.name
        return service.name


def systems(files: Sequence[tuple[str, CatalogFile]]) -> tuple[System, ...]:
    """Return the systems of *files*, in the order in which they are first named."""
    grouped: dict[str, list[tuple[str, CatalogFile]]] = {}
    for source, file in files:
        grouped.setdefault(file.system or SHIPPED_SYSTEM, []).append((source, file))
    return tuple(System(name, members) for name, members in grouped.items())
