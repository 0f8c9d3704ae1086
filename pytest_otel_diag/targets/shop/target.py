"""The target ``shop``: the simulated demo in virtual time, with a separate shop per session.

A session starts with ``settle_s`` seconds of warm-up and ``reference_s`` seconds of quiet telemetry, the
reference; its clock then is at the start of the baseline.
"""

from __future__ import annotations

import hashlib
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib import metadata, resources
from pathlib import Path
from typing import Self

from pytest_otel_diag import catalog
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError, ScenarioError, nearest
from pytest_otel_diag.flags.document import DocumentFlags, FlagdDocument
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.scenario import Fault, Scenario
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.scoring.names import ServiceNames
from pytest_otel_diag.shop.flag_provider import NoFlags
from pytest_otel_diag.shop.simulation import Shop
from pytest_otel_diag.shop.variation import Variation
from pytest_otel_diag.targets.garbage import paused_collector
from pytest_otel_diag.targets.private import held
from pytest_otel_diag.targets.replay.recording_store import MEMORY_DSN, RecordingStore, shared_store
from pytest_otel_diag.targets.shop.options import ShopOptions
from pytest_otel_diag.targets.shop.session import ShopClock, ShopTelemetry, ShopTraffic, TelemetryWriter
from pytest_otel_diag.telemetry.layout import Layout
from pytest_otel_diag.telemetry.leaks import NOTHING_HIDDEN, Hidden
from pytest_otel_diag.telemetry.session import StoreTelemetry

_FIRST_DAY = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


def _random_id() -> str:
    return uuid.uuid4().hex[:12]


class ShopTarget:
    """The simulated shop as a target; sessions run concurrently.

    *store_dsn* is the store of telemetry during a session; empty means memory. With *redact*, sessions see no
    evaluations of flags. *new_id* names the databases
    of sessions, which are dropped when the sessions close; an embedded store drops those of a killed process
    at its next start.
    """

    name = "shop"
    exclusive = False
    seeded = True

    def __init__(
        self,
        options: ShopOptions,
        *,
        cache_dir: Path,
        store_dsn: str = "",
        redact: bool = False,
        new_id: Callable[[], str] = _random_id,
    ) -> None:
        catalog.generation(options.demo)
        self._options = options
        self._dsn = store_dsn or MEMORY_DSN
        self._cache_dir = cache_dir
        self._redact = redact
        self._new_id = new_id
        self._resources = ExitStack()

    @classmethod
    def from_settings(cls, rest: str, *, settings: Settings, worker: str) -> Self:  # noqa: ARG003 - sessions keep apart
        """Return the target for ``demo=3.0,users=5,seed=1``, each part optional; see ShopOptions.

        Raises ConfigurationError for unknown options, values and releases.
        """
        return cls(
            ShopOptions.parse(rest),
            store_dsn=settings.store.reveal(),
            cache_dir=settings.cache_dir(),
            redact=settings.leaks == "redact",
        )

    @cached_property
    def _store(self) -> RecordingStore:
        return self._resources.enter_context(shared_store((self._dsn,), self._cache_dir))

    def close(self) -> None:
        """Release the store; a later session opens it again."""
        self._resources.close()
        self.__dict__.pop("_store", None)

    @property
    def identity(self) -> object:
        """The target itself."""
        return self

    def describe(self) -> Mapping[str, str]:
        """Return the name, a hash of the model, and the default shop."""
        options = self._options
        return {
            "name": self.name,
            "version": f"{metadata.version('pytest-otel-diag')}+model.{model_hash()}",
            "source": f"simulated OpenTelemetry Demo {options.demo}",
            "demo": options.demo,
            "users": str(options.users),
            "browser_users": str(options.browser_users),
            "jitter": str(options.jitter).lower(),
            "reference_s": f"{options.reference_s:g}",
        }

    def scenarios(self) -> tuple[Scenario, ...]:
        """Return the catalog's scenarios for the release: one per flag, with its suggested variant."""
        return catalog.scenarios(self._options.demo)

    def scenario_for(self, faults: Sequence[Fault]) -> Scenario | None:
        """Return the catalog's scenario of the faults together; None if one of them is unknown.

        Without faults it is a control that lasts as long as faults, so that times do not reveal which it is.
        """
        demo = self._options.demo
        with suppress(ConfigurationError):
            return catalog.together(faults, demo) if faults else catalog.controls(demo)[0]
        return None

    def validate(self, scenario: Scenario) -> tuple[str, ...]:
        """Return the parts of a scenario that the shop does not support, with the nearest spellings."""
        if scenario.external:
            return (
                f"scenario {scenario.id!r}: nothing outside of a simulation can make {scenario.external!r}; "
                "run it on a live system, and write targets: [live] to skip it elsewhere",
            )
        try:
            variation = self._options.variation(scenario.environment)
            document = FlagdDocument(catalog.demo_document(variation.demo))
            services = tuple(_service_mistakes(scenario, variation.demo))
        except ConfigurationError as error:
            return (f"scenario {scenario.id!r}: {error}",)
        return (*_flag_mistakes(scenario, document, variation), *services)

    def open(
        self,
        scenario: Scenario,
        session_id: str,  # noqa: ARG002 - the port; nothing the analyzer sees may be named after it
    ) -> AbstractAsyncContextManager[TargetSession]:
        """Open a shop; raises ScenarioError for scenarios that :meth:`validate` rejects, TelemetryError."""
        return self._session(scenario)

    @asynccontextmanager
    async def _session(self, scenario: Scenario) -> AsyncIterator[TargetSession]:
        mistakes = self.validate(scenario)
        if mistakes:
            raise ScenarioError("; ".join(mistakes))
        variation = self._options.variation(scenario.environment)
        document = FlagdDocument(catalog.demo_document(variation.demo))
        start_ns = first_instant(variation.seed)
        shop = Shop(variation, document, start_ns)
        stored = self._store
        database = stored.private_name(self._new_id())
        quiet_ns = start_ns + seconds_to_ns(self._options.settle_s)
        baseline_ns = quiet_ns + seconds_to_ns(self._options.reference_s)
        hidden = Hidden(flags=tuple(document.flags)) if self._redact else NOTHING_HIDDEN
        async with (
            held(
                lambda: _database(stored, database, hidden),
                lambda opened: _discard(stored, database, opened),
            ) as inner,
            AsyncExitStack() as stack,
        ):
            stack.enter_context(paused_collector())
            clock = ShopClock(shop)
            telemetry = ShopTelemetry(shop, clock, TelemetryWriter(stored.store, database), inner)
            stack.push_async_callback(telemetry.close)
            traffic = ShopTraffic(shop)
            await clock.sleep_until(baseline_ns)
            quiet = Window(start_ns=quiet_ns, end_ns=baseline_ns)
            yield TargetSession(
                clock=clock,
                flags=DocumentFlags(document, now=clock.now),
                telemetry=telemetry,
                exporter=telemetry.exporter,
                traffic=traffic,
                reference=() if quiet.empty else (quiet,),
                provenance=_provenance(variation),
                disturb=traffic.disturb,
                normal={flag.key: flag.default_variant for flag in document.flags.values()},
                redacted=self._redact,
            )


def _database(stored: RecordingStore, name: str, hidden: Hidden) -> StoreTelemetry:
    """Create the database of a session and return its telemetry."""
    stored.store.create_database(name, layout=Layout(in_memory=True))
    return stored.store.telemetry(name, hidden=hidden, threads=1)


def _discard(stored: RecordingStore, name: str, opened: StoreTelemetry | None) -> None:
    """Drop the databases of a session: that of its views, where it has some, and its own."""
    if opened is not None and opened.database != name:
        stored.discard(opened.database)
    stored.discard(name)


def first_instant(seed: int) -> Nanos:
    """Return the start of simulated time for a seed: during working hours, never close to midnight."""
    rng = random.Random(f"start/{seed}")  # noqa: S311 - a simulation, repeatable on purpose
    day, minute = rng.randrange(200), rng.randrange(8 * 60)
    return int(_FIRST_DAY.timestamp() + day * 86_400 + minute * 60) * 1_000_000_000


@cache
def model_hash() -> str:
    """Return a short hash of the model: the source of the shop and the catalog's data."""
    digest = hashlib.sha256()
    root = resources.files("pytest_otel_diag")
    for folder in ("shop", "catalog"):
        base = Path(str(root / folder))
        for path in sorted(base.rglob("*")):
            if path.suffix in {".py", ".yaml", ".json"}:
                digest.update(path.relative_to(base).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@cache
def _services(demo: str) -> tuple[str, ...]:
    return Shop(Variation(demo=demo), NoFlags(), 0).services


def _service_mistakes(scenario: Scenario, demo: str) -> Iterator[str]:
    """Yield a mistake for each service that the release does not have: no diagnosis could be right."""
    expected = scenario.expectation
    named = [("disturbs", each.service) for each in scenario.disturbances if each.service is not None]
    named += [("lets texts accuse", each.accuses) for each in scenario.disturbances if each.accuses]
    named += [("expects", cause.service) for cause in expected.root_causes]
    named += [("expects", anomaly.service) for anomaly in expected.anomalies]
    named += [("expects", service) for path in expected.paths for service in path]
    named += [("expects", service) for service in expected.red_herrings]
    if not named:
        return
    simulated = _services(demo)
    names = ServiceNames(simulated).including(catalog.generation(demo).services.values())
    for does, service in dict.fromkeys(named):
        # A disturbance has to name the service exactly.
        if service not in simulated if does == "disturbs" else names.resolve(service) is None:
            yield (
                f"scenario {scenario.id!r} {does} {service!r}, the demo {demo} has no such service"
                f"{nearest(service, names.known)}; known services: {', '.join(names.known)}"
            )


def _flag_mistakes(scenario: Scenario, document: FlagdDocument, variation: Variation) -> Iterator[str]:
    flags = document.flags
    for fault in scenario.faults:
        flag = flags.get(fault.flag)
        if flag is None:
            yield (
                f"the demo {variation.demo} has no flag {fault.flag!r}{nearest(fault.flag, flags)}; "
                f"known flags: {', '.join(flags)}"
            )
            continue
        wanted = (fault.variant, *(step.variant for step in fault.steps))
        for variant in wanted:
            if variant is not None and variant not in flag.variants:
                guess = nearest(variant, flag.variants)
                yield (
                    f"flag {fault.flag!r} of the demo {variation.demo} has no variant {variant!r}{guess}; "
                    f"choose from {', '.join(flag.variants)}"
                )


def _provenance(variation: Variation) -> dict[str, str]:
    return {
        "demo": variation.demo,
        "users": str(variation.users),
        "browser_users": str(variation.browser_users),
        "seed": str(variation.seed),
        "jitter": str(variation.jitter).lower(),
        "model": model_hash(),
    }
