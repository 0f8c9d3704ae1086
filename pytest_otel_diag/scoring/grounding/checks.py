"""Compares what a diagnosis cites with what telemetry says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_otel_diag.model.grounding import Claim, ClaimKind, Outcome
from pytest_otel_diag.ports import Sightings
from pytest_otel_diag.scoring.grounding.citations import CitedId, Entity
from pytest_otel_diag.scoring.grounding.facts import Facts, Place
from pytest_otel_diag.scoring.names import ServiceNames, fold_case, same_operation
from pytest_otel_diag.scoring.text import clip

_CITED_CHARS, _FOUND_CHARS = 160, 200
_NAMES_SHOWN = 4


@dataclass(frozen=True)
class Checker:
    """Judges citations one by one; ``sightings`` is what the analyzer has read, None where unknown."""

    facts: Facts
    names: ServiceNames
    sightings: Sightings | None

    def id(self, cited: CitedId) -> Claim:
        """Check that a trace or span exists, lies in the windows, touches its service, and was read."""
        known = self.facts.traces if cited.kind == "trace" else self.facts.spans
        place = known.get(fold_case(cited.id))
        words = f"{cited.kind} {cited.id}"
        if place is None and "ids" in self.facts.problems:
            return claim(cited.kind, cited.place, words, "unchecked", self.facts.problems["ids"])
        problem = self._problem(cited, place)
        return claim(cited.kind, cited.place, words, "refuted" if problem else "confirmed", problem)

    def _problem(self, cited: CitedId, place: Place | None) -> str:
        if place is None:
            return f"telemetry of the session has no such {cited.kind}"
        if not place.in_windows:
            return f"the {cited.kind} lies outside of the session's windows"
        wanted = {name for name in map(self.names.resolve, cited.services) if name is not None}
        if wanted and not wanted & place.services:
            there = _listed(sorted(place.services))
            return f"the {cited.kind} does not touch {_listed(sorted(wanted))}; it touches {there}"
        if self.sightings is not None and self.sightings.complete and not self.sightings.saw(cited.id):
            return f"the {cited.kind} exists, but no query of the session returned it"
        return ""

    def entity(self, entity: Entity) -> Claim:
        """Check that a service or operation exists and, where evidence names it, that it was read."""
        return self._service(entity) if entity.kind == "service" else self._operation(entity)

    def _service(self, entity: Entity) -> Claim:
        service = self.names.resolve(entity.name)
        words = f"service {entity.name}"
        if service is not None:
            return self._read("service", entity, words, (service, entity.name))
        if fold_case(entity.name) in self.facts.peers:
            return self._read("service", entity, words, (entity.name,))
        unknown = f"unknown: {self.names.explain(entity.name)}"
        return claim("service", entity.place, words, "refuted", unknown)

    def _operation(self, entity: Entity) -> Claim:
        words = f"operation {entity.name} of {entity.service}"
        known = self.operations(self.names.resolve(entity.service) or "", entity.name)
        if known:
            return self._read("operation", entity, words, (*known, entity.name))
        owners = {
            owner
            for operation, services in self.facts.elsewhere.items()
            if _alike(entity.name, operation)
            for owner in services
        }
        if owners:
            return claim("operation", entity.place, words, "confirmed")
        for kind in ("calls", "operations"):
            if kind in self.facts.problems:
                return claim("operation", entity.place, words, "unchecked", self.facts.problems[kind])
        return claim("operation", entity.place, words, "refuted", "telemetry has no such operation")

    def _read(self, kind: ClaimKind, entity: Entity, words: str, spellings: Iterable[str]) -> Claim:
        seen = self.sightings
        if entity.cited and seen is not None and not any(map(seen.saw, spellings)):
            found = "exists, but no query of the session returned its name"
            return claim(kind, entity.place, words, "unchecked", found)
        return claim(kind, entity.place, words, "confirmed")

    def operations(self, service: str, name: str) -> list[str]:
        """Return the operations of a service that *name* means."""
        return [known for known in self.facts.operations.get(service, ()) if _alike(name, known)]


def _alike(cited: str, known: str) -> bool:
    return same_operation(cited, known) or same_operation(known, cited)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def claim(kind: ClaimKind, place: str, cited: str, outcome: Outcome, found: str = "") -> Claim:
    """Return a claim with texts of bounded length."""
    return Claim(
        kind=kind,
        place=place,
        cited=clip(cited, _CITED_CHARS),
        outcome=outcome,
        found=clip(found, _FOUND_CHARS),
    )
