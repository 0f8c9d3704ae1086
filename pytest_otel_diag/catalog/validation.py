"""Checks that span entries: names across entries, files and releases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from pytest_otel_diag.catalog.entries import CatalogFile, ExpectationEntry, FlagEntry, ServiceEntry
from pytest_otel_diag.catalog.hints import PLACE, wrong_hints
from pytest_otel_diag.catalog.names import folded
from pytest_otel_diag.catalog.releases import Releases
from pytest_otel_diag.catalog.system import System
from pytest_otel_diag.errors import ConfigurationError, nearest

Files = Sequence[tuple[str, CatalogFile]]
Named = Callable[[CatalogFile], Iterable[tuple[str, Iterable[str]]]]


def check(systems: Sequence[System]) -> None:
    """Raise ConfigurationError with every contradiction between the entries of *systems*."""
    files = [file for system in systems for file in system.files]
    mistakes = [*_twice("release", files, _releases), *_twice("flag", files, _flags)]
    for system in systems:
        mistakes += _twice("service", system.files, _services)
        names = [service.name for service in system.services]
        if not system.releases.all:
            mistakes.append(f"{system.files[0][0]}: system {system.name!r} lists no releases; add one")
            continue
        for source, file in system.files:
            mistakes += [f"{source}: {mistake}" for mistake in _within(file, system.releases, names)]
    if mistakes:
        raise ConfigurationError("; ".join(mistakes))


def _twice(kind: str, files: Files, named: Named) -> Iterator[str]:
    seen: dict[str, tuple[str, int]] = {}
    for source, file in files:
        for position, (owner, spellings) in enumerate(named(file)):
            for spelling in dict.fromkeys(map(folded, spellings)):
                named_here = f"{kind} {owner!r} of {source}"
                earlier = seen.setdefault(spelling, (named_here, position))
                if earlier != (named_here, position):
                    yield f"{named_here} is named {spelling!r}, and so is {earlier[0]}; rename or remove one"


def _releases(file: CatalogFile) -> Iterable[tuple[str, Iterable[str]]]:
    return ((release.demo, [release.demo.replace(".", "dot")]) for release in file.releases)


def _services(file: CatalogFile) -> Iterable[tuple[str, Iterable[str]]]:
    return ((service.name, service.names) for service in file.services)


def _flags(file: CatalogFile) -> Iterable[tuple[str, Iterable[str]]]:
    return ((flag.key, (*flag.names, *flag.aliases)) for flag in file.flags)


def _within(file: CatalogFile, releases: Releases, services: Sequence[str]) -> Iterator[str]:
    for service in file.services:
        for mistake in _service(service, releases):
            yield f"service {service.name}: {mistake}"
    for flag in file.flags:
        for mistake in (*_periods(flag, releases), *_names(flag, services)):
            yield f"flag {flag.key}: {mistake}"


def _service(service: ServiceEntry, releases: Releases) -> Iterator[str]:
    for span in (service.releases, *(former.releases for former in service.formerly)):
        try:
            releases.bounds(span)
        except ConfigurationError as error:
            yield str(error)


def _periods(flag: FlagEntry, releases: Releases) -> Iterator[str]:
    claimed: dict[int, str] = {}
    for period in flag.periods:
        try:
            first, last = releases.bounds(period.releases)
        except ConfigurationError as error:
            yield str(error)
            continue
        for position in range(first, last + 1):
            earlier = claimed.setdefault(position, period.releases)
            if earlier != period.releases:
                yield f"the periods {earlier} and {period.releases} overlap; a release belongs to one period"
                break
        for what, name in (
            ("default", period.default),
            ("suggested variant", period.suggested or flag.suggested),
        ):
            if name not in period.variants:
                yield (
                    f"period {period.releases}: its {what} {name!r} is not one of its variants "
                    f"{', '.join(period.variants)}{nearest(name, period.variants)}"
                )
    known = {name for period in flag.periods for name in period.variants}
    for note in flag.variants:
        if note.variant not in known:
            yield f"variants: {note.variant!r} is not a variant of any release{nearest(note.variant, known)}"
    if len(claimed) < len(releases.all) and not flag.absent:
        yield "absent: missing; say why some releases do not have it"


def _names(flag: FlagEntry, services: Sequence[str]) -> Iterator[str]:
    answers = [flag.expectation, *(period.expectation for period in flag.periods if period.expectation)]
    used = [*flag.implemented_by, *flag.shown_by, *flag.traffic.services]
    used += [name for answer in answers for name in _services_in(answer)]
    if flag.cleanup is not None and flag.cleanup.restart:
        used.append(flag.cleanup.restart)
    for name in dict.fromkeys(used):
        if name not in services:
            yield (
                f"service {name!r} is not listed{nearest(name, services)}; "
                "list it under services, by its newest name"
            )
    for answer in answers:
        yield from _contradictions(answer)
        yield from _hints(flag, answer)


def _services_in(answer: ExpectationEntry) -> Iterator[str]:
    yield from (anomaly.service for anomaly in answer.anomalies)
    yield from (cause.service for cause in answer.root_causes)
    yield from (herring.service for herring in answer.red_herrings)
    for path in answer.paths:
        yield from path
    for step in answer.investigation_path:
        yield from (*step.services, *PLACE.findall(step.hint))


def _hints(flag: FlagEntry, answer: ExpectationEntry) -> Iterator[str]:
    wrong = wrong_hints(
        answer.investigation_path,
        flags=(*flag.names, *flag.aliases),
        variants=[variant for period in flag.periods for variant in period.variants],
        culprits=[cause.service for cause in answer.root_causes],
        control=answer.healthy,
    )
    for number, mistake in wrong:
        yield f"investigation_path: step {number + 1}: {mistake}"


def _contradictions(answer: ExpectationEntry) -> Iterator[str]:
    culprits = {cause.service for cause in answer.root_causes}
    if answer.healthy and (answer.anomalies or culprits):
        yield "expectation: healthy: true contradicts expected findings; remove one of the two"
    if not answer.healthy and not culprits:
        yield "expectation: it needs a root cause, or healthy: true"
    for herring in answer.red_herrings:
        if herring.service in culprits:
            yield f"expectation: {herring.service!r} is root cause and red herring; keep one of the two"
