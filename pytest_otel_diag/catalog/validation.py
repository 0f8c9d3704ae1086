"""Checks that no entry can make on its own: names across entries, files and releases."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pytest_otel_diag.catalog.entries import CatalogFile, ExpectationEntry, FlagEntry, ServiceEntry
from pytest_otel_diag.catalog.releases import Releases
from pytest_otel_diag.errors import ConfigurationError, nearest

_SEPARATORS = re.compile(r"[\W_]+")


def check(files: Sequence[tuple[str, CatalogFile]], releases: Releases) -> None:
    """Raise ConfigurationError with every contradiction between the entries of *files*."""
    mistakes = [
        *_twice(files),
        *(
            f"{source}: {mistake}"
            for source, file in files
            for mistake in _within(file, releases, _known_services(files))
        ),
    ]
    if mistakes:
        raise ConfigurationError("; ".join(mistakes))


def _known_services(files: Sequence[tuple[str, CatalogFile]]) -> tuple[str, ...]:
    return tuple(service.name for _, file in files for service in file.services)


def _twice(files: Sequence[tuple[str, CatalogFile]]) -> Iterator[str]:
    for kind, named in (("release", _releases), ("service", _services), ("flag", _flags)):
        seen: dict[str, tuple[str, str]] = {}
        for source, file in files:
            for owner, spellings in named(file):
                for spelling in dict.fromkeys(spellings):
                    earlier = seen.setdefault(spelling, (owner, source))
                    if earlier != (owner, source):
                        yield (
                            f"{source}: {kind} {owner!r} has the name {spelling!r}, which {kind} "
                            f"{earlier[0]!r} of {earlier[1]} has already; rename one, or leave it out"
                        )


def _releases(file: CatalogFile) -> Iterator[tuple[str, list[str]]]:
    for position, release in enumerate(file.releases):
        yield f"{release.demo} (entry {position + 1})", [release.demo]


def _services(file: CatalogFile) -> Iterator[tuple[str, list[str]]]:
    for service in file.services:
        names = [service.name, *service.aliases, *(former.name for former in service.formerly)]
        yield service.name, [_SEPARATORS.sub("", name).casefold() for name in names]


def _flags(file: CatalogFile) -> Iterator[tuple[str, list[str]]]:
    for flag in file.flags:
        yield flag.key, [_SEPARATORS.sub("", name).casefold() for name in (*flag.names, *flag.aliases)]


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
    taken: dict[int, str] = {}
    for period in flag.periods:
        try:
            first, last = releases.bounds(period.releases)
        except ConfigurationError as error:
            yield str(error)
            continue
        for position in range(first, last + 1):
            earlier = taken.setdefault(position, period.releases)
            if earlier != period.releases:
                yield f"the periods {earlier} and {period.releases} overlap; a release belongs to one period"
                break
        for what, name in (
            ("default", period.default),
            ("suggested variant", period.suggested or flag.suggested),
        ):
            if name not in period.variants:
                yield (
                    f"period {period.releases}: its {what} {name!r} is none of its variants "
                    f"{', '.join(period.variants)}{nearest(name, period.variants)}"
                )
    known = {name for period in flag.periods for name in period.variants}
    for note in flag.variants:
        if note.variant not in known:
            yield f"variants: {note.variant!r} is no variant of any release{nearest(note.variant, known)}"
    if len(taken) < len(releases.all) and not flag.absent:
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
                f"it names a service {name!r} that is not listed{nearest(name, services)}; "
                "list it under services, by its newest name"
            )
    for answer in answers:
        yield from _contradictions(answer)


def _services_in(answer: ExpectationEntry) -> Iterator[str]:
    yield from (anomaly.service for anomaly in answer.anomalies)
    yield from (cause.service for cause in answer.root_causes)
    yield from (herring.service for herring in answer.red_herrings)
    for path in answer.paths:
        yield from path


def _contradictions(answer: ExpectationEntry) -> Iterator[str]:
    culprits = {cause.service for cause in answer.root_causes}
    if answer.healthy and (answer.anomalies or culprits):
        yield "expectation: it is healthy and yet expects findings; leave out one of the two"
    if not answer.healthy and not culprits:
        yield "expectation: it needs a root cause, or healthy: true"
    for herring in answer.red_herrings:
        if herring.service in culprits:
            yield f"expectation: {herring.service!r} is a root cause and a red herring; it can be one of them"
