"""The catalog: the flags of systems, by release."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_otel_diag.catalog import hints, loading, validation
from pytest_otel_diag.catalog.entries import CatalogFile, ExpectationEntry, FlagEntry, Period, ServiceEntry
from pytest_otel_diag.catalog.names import folded
from pytest_otel_diag.catalog.system import Generation, System, systems
from pytest_otel_diag.errors import ConfigurationError, ScenarioError, nearest
from pytest_otel_diag.model.scenario import (
    Expectation,
    ExpectedAnomaly,
    ExpectedRootCause,
    Fault,
    InvestigationStep,
)

DEFAULT_DEMO = "3.0"
_SCHEMA = "https://flagd.dev/schema/v0/flags.json"


class Catalog:
    """Entries of one or more files, checked against each other.

    Names of flags and releases are unique across all systems, names of services within one. Raises
    ConfigurationError that lists every contradiction.
    """

    def __init__(self, files: Sequence[tuple[str, CatalogFile]]) -> None:
        self._files = tuple(files)
        self.systems = systems(self._files)
        validation.check(self.systems)
        self._by_name = {
            folded(name): (system, flag)
            for system in self.systems
            for flag in system.flags
            for name in (*flag.names, *flag.aliases)
        }

    def extended(self, path: Path) -> Catalog:
        """Return this catalog with the entries of a user's file; raises ConfigurationError for conflicts.

        A file without a ``system``, or with a known one, extends that system; another name creates one.
        """
        return Catalog((*self._files, loading.read(path)))

    @property
    def flags(self) -> tuple[FlagEntry, ...]:
        """The flags of all systems."""
        return tuple(flag for system in self.systems for flag in system.flags)

    def demos(self, flag: FlagEntry | str | None = None) -> tuple[str, ...]:
        """Return the releases that have the flag, oldest first; for None those of all systems."""
        if flag is None:
            return tuple(demo for system in self.systems for demo in system.releases.demos)
        system, entry = self._found(flag if isinstance(flag, str) else flag.key)
        return system.demos(entry)

    def generation(self, demo: str) -> Generation:
        """Return the flags and services of a release; raises ConfigurationError for an unknown one."""
        return self._release(demo)[1]

    def _release(self, demo: str) -> tuple[System, Generation]:
        for system in self.systems:
            release = system.releases.named(demo)
            if release is not None:
                return system, system.generation(release)
        raise ConfigurationError(
            f"unknown demo release {demo!r}{nearest(demo, self.demos())}; "
            f"known: {', '.join(self.demos()) or 'none'}"
        )

    def flag(self, name: str, demo: str | None = None) -> FlagEntry:
        """Return the flag of that name, of any release, in any case and with any separators.

        Raises ScenarioError for an unknown name, and with *demo* also for a flag that it does not have.
        """
        entry = self._found(name)[1]
        if demo is not None:
            self.period(entry, demo)
        return entry

    def _found(self, name: str) -> tuple[System, FlagEntry]:
        found = self._by_name.get(folded(name))
        if found is None:
            spellings = [spelling for flag in self.flags for spelling in (*flag.names, *flag.aliases)]
            known = ", ".join(flag.key for flag in self.flags) or "none"
            raise ScenarioError(f"unknown flag {name!r}{nearest(name, spellings)}; known: {known}")
        return found

    def period(self, flag: FlagEntry | str, demo: str = DEFAULT_DEMO) -> Period:
        """Return the flag as it is in a release; raises ScenarioError where it does not exist."""
        system, entry = self._found(flag if isinstance(flag, str) else flag.key)
        generation = self.generation(demo)
        found = generation.flags.get(entry.key)
        if found is None or generation.system != system.name:
            reason = entry.absent if generation.system == system.name else f"It belongs to {system.name}."
            raise ScenarioError(
                f"flag {entry.key!r} does not exist in demo {generation.demo}: {reason} "
                f"It exists in {', '.join(system.demos(entry))}"
            )
        return found

    def variant(self, flag: FlagEntry | str, variant: str | None, demo: str = DEFAULT_DEMO) -> str:
        """Return *variant*, or the suggested one for None; raises ScenarioError for one it does not have."""
        entry = self.flag(flag) if isinstance(flag, str) else flag
        period = self.period(entry, demo)
        chosen = variant if variant is not None else period.suggested or entry.suggested
        if chosen not in period.variants:
            raise ScenarioError(
                f"flag {period.name!r} of demo {demo} has no variant {chosen!r}"
                f"{nearest(chosen, period.variants)}; choose from {', '.join(period.variants)}"
            )
        return chosen

    def service(self, name: str, demo: str = DEFAULT_DEMO) -> str:
        """Return the service's name in a release; an unknown name is returned unchanged."""
        system, generation = self._release(demo)
        return system.service_name(name, generation.demo)

    def service_entry(self, name: str, demo: str = DEFAULT_DEMO) -> ServiceEntry | None:
        """Return the service of that name, of any release of *demo*'s system; None for an unknown name."""
        return self._release(demo)[0].service(name)

    def fault(self, flag: str, variant: str | None = None, demo: str = DEFAULT_DEMO) -> Fault:
        """Return the fault that sets the flag, by its name in *demo* and with its evaluation context."""
        period = self.period(flag, demo)
        return Fault(
            flag=period.name,
            variant=self.variant(flag, variant, demo),
            context=tuple(period.context.items()),
        )

    def expectation(self, flag: str, variant: str | None = None, demo: str = DEFAULT_DEMO) -> Expectation:
        """Return the right answer to the fault, with the names of *demo*; healthy for the default variant.

        Red herrings that *demo* does not have are left out.
        """
        entry = self.flag(flag)
        period = self.period(entry, demo)
        chosen = self.variant(entry, variant, demo)
        answer = self.answer(entry, demo)
        if chosen == period.default or answer.healthy:
            return Expectation(healthy=True, flags=(period.name,))
        return self._named(answer, demo, flags=(period.name,))

    def investigation_path(
        self, flag: str, variant: str | None = None, demo: str = DEFAULT_DEMO
    ) -> tuple[InvestigationStep, ...]:
        """Return the steps to the right answer, with the names of *demo*; none where nothing is wrong."""
        if self.expectation(flag, variant, demo).healthy:
            return ()
        return tuple(
            InvestigationStep(
                hint=hints.PLACE.sub(lambda found: self.service(found[1], demo), step.hint),
                signal=step.signal,
                services=tuple(self.service(name, demo) for name in step.services),
            )
            for step in self.answer(flag, demo).investigation_path
        )

    def answer(self, flag: FlagEntry | str, demo: str = DEFAULT_DEMO) -> ExpectationEntry:
        """Return the expectation as the data has it, with its reasons and newest names."""
        entry = self.flag(flag) if isinstance(flag, str) else flag
        return self.period(entry, demo).expectation or entry.expectation

    def combined(self, faults: Iterable[Fault], demo: str = DEFAULT_DEMO) -> Expectation:
        """Return the right answer to several faults at once: one root cause for each.

        A culprit of one fault is not a red herring of another. Leave out a fault that another one hides: the
        catalog does not know that.
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

    def _named(self, answer: ExpectationEntry, demo: str, flags: tuple[str, ...]) -> Expectation:
        services = self.generation(demo).services
        herrings = [herring.service for herring in answer.red_herrings]
        return Expectation(
            anomalies=tuple(
                ExpectedAnomaly(
                    service=self.service(anomaly.service, demo),
                    signal=anomaly.signal,
                    operation=anomaly.operation,
                    direction=anomaly.direction,
                )
                for anomaly in answer.anomalies
            ),
            paths=tuple(tuple(self.service(name, demo) for name in path) for path in answer.paths),
            root_causes=tuple(
                ExpectedRootCause(
                    service=self.service(cause.service, demo),
                    operation=cause.operation,
                    mechanisms=cause.mechanisms,
                )
                for cause in answer.root_causes
            ),
            red_herrings=tuple(services[name] for name in herrings if name in services),
            flags=flags,
        )
