"""The catalog: what is known of a system's flags, by release. Built once, asked often."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pytest_otel_diag.catalog import loading, validation
from pytest_otel_diag.catalog.entries import (
    CatalogFile,
    ExpectationEntry,
    FlagEntry,
    Period,
    Release,
    ServiceEntry,
)
from pytest_otel_diag.catalog.releases import Releases
from pytest_otel_diag.errors import ScenarioError, nearest
from pytest_otel_diag.model.scenario import Expectation, ExpectedAnomaly, ExpectedRootCause, Fault

DEFAULT_DEMO = "3.0"
_SCHEMA = "https://flagd.dev/schema/v0/flags.json"
_SEPARATORS = re.compile(r"[\W_]+")


def folded(name: str) -> str:
    """Return *name* without case and separators: ``payment_failure`` and ``paymentFailure`` are one."""
    return _SEPARATORS.sub("", name).casefold()


@dataclass(frozen=True)
class Generation:
    """One release with what it has: its flags and the names of its services."""

    release: Release
    flags: Mapping[str, Period]
    services: Mapping[str, str]

    @property
    def demo(self) -> str:
        """The release, as ``3.0``."""
        return self.release.demo


class Catalog:
    """Entries of one or more files, checked against each other.

    Raises ConfigurationError when a file contradicts itself or another.
    """

    def __init__(self, files: Sequence[tuple[str, CatalogFile]]) -> None:
        self._files = tuple(files)
        self.releases = Releases([release for _, file in files for release in file.releases])
        self.services: tuple[ServiceEntry, ...] = tuple(s for _, file in files for s in file.services)
        self.flags: tuple[FlagEntry, ...] = tuple(flag for _, file in files for flag in file.flags)
        validation.check(self._files, self.releases)
        self._by_name = {folded(name): flag for flag in self.flags for name in (*flag.names, *flag.aliases)}
        self._generations: dict[str, Generation] = {}

    def extended(self, path: Path) -> Catalog:
        """Return this catalog with the entries of a user's file; raises ConfigurationError for conflicts."""
        return Catalog((*self._files, loading.read(path)))

    @cached_property
    def _services(self) -> Mapping[str, ServiceEntry]:
        return {
            folded(name): service
            for service in self.services
            for name in (service.name, *service.aliases, *(former.name for former in service.formerly))
        }

    def generation(self, demo: str) -> Generation:
        """Return what a release has; raises ConfigurationError for one that is not known."""
        release = self.releases.named(demo)
        found = self._generations.get(release.demo)
        if found is None:
            flags = {flag.key: period for flag in self.flags if (period := self._period(flag, release.demo))}
            services = {
                service.name: self._name_of(service, release.demo)
                for service in self.services
                if self.releases.within(release.demo, service.releases)
            }
            found = self._generations[release.demo] = Generation(release, flags, services)
        return found

    def flag(self, name: str, demo: str | None = None) -> FlagEntry:
        """Return the flag of that name, of any release, in any case and with any separators.

        Raises ScenarioError for an unknown name, and with *demo* also for a flag that it does not have.
        """
        entry = self._by_name.get(folded(name))
        if entry is None:
            spellings = [spelling for flag in self.flags for spelling in (*flag.names, *flag.aliases)]
            known = ", ".join(flag.key for flag in self.flags)
            raise ScenarioError(f"no flag {name!r} is known{nearest(name, spellings)}; there are {known}")
        if demo is not None:
            self.period(entry, demo)
        return entry

    def period(self, flag: FlagEntry | str, demo: str = DEFAULT_DEMO) -> Period:
        """Return the flag as it is in a release; raises ScenarioError where it does not exist."""
        entry = self.flag(flag) if isinstance(flag, str) else flag
        generation = self.generation(demo)
        found = generation.flags.get(entry.key)
        if found is None:
            where = ", ".join(self.demos(entry))
            raise ScenarioError(
                f"flag {entry.key!r} does not exist in demo {generation.demo}: {entry.absent} "
                f"It exists in {where}"
            )
        return found

    def demos(self, flag: FlagEntry) -> tuple[str, ...]:
        """Return the releases that have the flag, oldest first."""
        return tuple(demo for demo in self.releases.demos if self._period(flag, demo))

    def variant(self, flag: FlagEntry | str, variant: str | None, demo: str = DEFAULT_DEMO) -> str:
        """Return *variant*, or the suggested one for None; raises ScenarioError for one it does not have."""
        entry = self.flag(flag) if isinstance(flag, str) else flag
        period = self.period(entry, demo)
        chosen = variant if variant is not None else period.suggested or entry.suggested
        if chosen not in period.variants:
            raise ScenarioError(
                f"flag {period.name!r} of demo {demo} has no variant {chosen!r}"
                f"{nearest(chosen, period.variants)}; it has {', '.join(period.variants)}"
            )
        return chosen

    def service(self, name: str, demo: str = DEFAULT_DEMO) -> str:
        """Return what a release calls the service, by any of its names; an unknown name stays as it is."""
        entry = self._services.get(folded(name))
        return self._name_of(entry, self.generation(demo).demo) if entry else name

    def service_entry(self, name: str) -> ServiceEntry | None:
        """Return the service of that name, of any release; None for a name that is not known."""
        return self._services.get(folded(name))

    def fault(self, flag: str, variant: str | None = None, demo: str = DEFAULT_DEMO) -> Fault:
        """Return the fault that sets the flag, by its name in *demo* and with its evaluation context."""
        period = self.period(flag, demo)
        return Fault(
            flag=period.name,
            variant=self.variant(flag, variant, demo),
            context=tuple(period.context.items()),
        )

    def expectation(self, flag: str, variant: str | None = None, demo: str = DEFAULT_DEMO) -> Expectation:
        """Return the right answer to the fault, with the names of *demo*; healthy for the default variant."""
        entry = self.flag(flag)
        period = self.period(entry, demo)
        chosen = self.variant(entry, variant, demo)
        told = self.answer(entry, demo)
        if chosen == period.default or told.healthy:
            return Expectation(healthy=True, flags=(period.name,))
        return self._named(told, demo, flags=(period.name,))

    def answer(self, flag: FlagEntry | str, demo: str = DEFAULT_DEMO) -> ExpectationEntry:
        """Return the expectation as the data has it, with its reasons and newest names."""
        entry = self.flag(flag) if isinstance(flag, str) else flag
        return self.period(entry, demo).expectation or entry.expectation

    def combined(self, faults: Iterable[Fault], demo: str = DEFAULT_DEMO) -> Expectation:
        """Return the right answer to several faults at once: each wants a root cause of its own.

        A culprit of one fault is no red herring of another. Whether one fault hides another is not known
        here: leave a hidden one out.
        """
        parts = [(fault, self.expectation(fault.flag, fault.variant, demo)) for fault in faults]
        causes = tuple(
            cause.model_copy(update={"fault": str(fault)})
            for fault, part in parts
            for cause in part.root_causes
        )
        culprits = {cause.service for cause in causes}
        herrings = dict.fromkeys(name for _, part in parts for name in part.red_herrings)
        return Expectation(
            healthy=all(part.healthy for _, part in parts),
            anomalies=tuple(dict.fromkeys(a for _, part in parts for a in part.anomalies)),
            paths=tuple(dict.fromkeys(path for _, part in parts for path in part.paths)),
            root_causes=causes,
            red_herrings=tuple(name for name in herrings if name not in culprits),
            flags=tuple(dict.fromkeys(name for _, part in parts for name in part.flags)),
        )

    def demo_document(self, demo: str = DEFAULT_DEMO) -> bytes:
        """Return the whole flagd document of a release as shipped, every flag at its default."""
        flags = {}
        for key, period in self.generation(demo).flags.items():
            entry: dict[str, object] = {
                "description": self.flag(key).does,
                "state": "ENABLED",
                "variants": dict(period.variants),
                "defaultVariant": period.default,
            }
            if period.targeting is not None:
                entry["targeting"] = dict(period.targeting)
            flags[period.name] = entry
        body = {"$schema": _SCHEMA, "flags": dict(sorted(flags.items()))}
        return (json.dumps(body, indent=2, ensure_ascii=False) + "\n").encode()

    def _period(self, flag: FlagEntry, demo: str) -> Period | None:
        return next((p for p in flag.periods if self.releases.within(demo, p.releases)), None)

    def _name_of(self, service: ServiceEntry, demo: str) -> str:
        for former in service.formerly:
            if self.releases.within(demo, former.releases):
                return former.name
        return service.name

    def _named(self, told: ExpectationEntry, demo: str, flags: tuple[str, ...]) -> Expectation:
        return Expectation(
            anomalies=tuple(
                ExpectedAnomaly(
                    service=self.service(anomaly.service, demo),
                    signal=anomaly.signal,
                    operation=anomaly.operation,
                    direction=anomaly.direction,
                )
                for anomaly in told.anomalies
            ),
            paths=tuple(tuple(self.service(name, demo) for name in path) for path in told.paths),
            root_causes=tuple(
                ExpectedRootCause(
                    service=self.service(cause.service, demo),
                    operation=cause.operation,
                    mechanisms=cause.mechanisms,
                )
                for cause in told.root_causes
            ),
            red_herrings=tuple(self.service(herring.service, demo) for herring in told.red_herrings),
            flags=flags,
        )
