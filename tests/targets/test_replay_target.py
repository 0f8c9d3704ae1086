"""Replay: what a session sees is what had happened, and nothing that gives the answer away."""

import asyncio
from dataclasses import replace

import pytest

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import FlagError, RecordingError, ScenarioError
from pytest_otel_diag.model.flags import Flag, FlagChange
from pytest_otel_diag.model.scenario import Disturbance, Expectation, Fault, Scenario, Timing
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window, iso
from pytest_otel_diag.recordings.format.manifest import ControlWindow
from pytest_otel_diag.recordings.library import open_recording
from pytest_otel_diag.secret import SecretText
from pytest_otel_diag.targets.clock import VirtualClock
from pytest_otel_diag.targets.replay.target import RecordedFlag, ReplayTarget
from pytest_otel_diag.targets.replay.timeline import replay_of_control, scenario_of
from pytest_otel_diag.testing.flag_contract import FlagControllerContract
from tests.recordings.sample_cases import INCIDENT_SECONDS, START_S, write_sample_cases

NETWORK, EXCEPTION = "sample-cart-network_delay", "sample-db-exception"
STARTS = {NETWORK: INCIDENT_SECONDS[0], EXCEPTION: INCIDENT_SECONDS[1]}


def at(second):
    return (START_S + second) * NANOS_PER_SECOND


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("replay")
    write_sample_cases(place / "sample")
    return place


@pytest.fixture(scope="session")
def target(folder):
    target = ReplayTarget([folder / "sample"], store_dsn="chdb://memory", cache_dir=folder / "cache")
    target.load()
    yield target
    target.close()


def scenario(target, key):
    return next(item for item in target.scenarios() if item.id == key)


def controls(target):
    return [item for item in target.scenarios() if item.control]


async def times(session, table="otel_traces", column="Timestamp"):
    sql = f"SELECT toUnixTimestamp64Nano({column}) AS t FROM {table} ORDER BY t"
    return list((await session.telemetry.query(sql)).columns[0])


async def test_a_redacted_session_hides_evaluations_of_the_recorded_flag(folder, target):
    redacting = ReplayTarget(
        [folder / "sample"], store_dsn="chdb://memory", cache_dir=folder / "cache", redact=True
    )
    wanted = next(item for item in target.scenarios() if item.faults)
    try:
        async with target.open(wanted, "a") as plain, redacting.open(wanted, "b") as redacted:
            assert redacted.redacted and not plain.redacted
            assert await times(redacted) == await times(plain)  # the sample has no flagd
            changed = redacted.telemetry._inner._visibility.hidden.flags
            assert changed == target.recordings[0].manifest.flags != ()
    finally:
        redacting.close()


class TestRecordedFlag(FlagControllerContract):
    @pytest.fixture
    def clock(self):
        return VirtualClock(90)

    @pytest.fixture
    def controller(self, clock):
        flag = Flag(key="the-incident", variants={"off": False, "on": True}, default_variant="off")
        return RecordedFlag(flag, 100, clock)

    @pytest.fixture
    def flag(self):
        return "the-incident"

    async def test_switching_on_waits_for_the_recorded_start(self, controller, clock):
        await controller.apply(FlagChange(key="the-incident", variant="on"))
        assert clock.now() == 100
        answer = await controller.served("the-incident", {})
        assert (answer.variant, answer.value, answer.at_ns) == ("on", True, 100)

    async def test_switching_off_takes_no_time(self, controller, clock):
        await controller.apply(FlagChange(key="the-incident", variant="off"))
        assert clock.now() == 90

    async def test_before_the_recorded_start_off_is_served_whatever_is_set(self, controller, clock):
        document = await controller.document()
        await controller.apply(FlagChange(key="the-incident", variant="on"))
        changed = await controller.document()
        earlier = RecordedFlag(document.flags["the-incident"], 100, VirtualClock(99))
        await earlier.restore(changed)
        assert (await earlier.served("the-incident", {})).variant == "off"


def test_every_incident_and_every_control_is_a_scenario(target):
    scenarios = target.scenarios()
    assert [item.id for item in scenarios[:2]] == [NETWORK, EXCEPTION]
    assert len(scenarios) == 2 + len(target.recordings[0].manifest.controls)
    network = scenarios[0]
    assert network.faults == (Fault(flag=NETWORK, variant="on"),)
    assert network.require_impact is False
    assert dict(network.tags) == {
        "system": "Sample",
        "fault_type": "network_delay",
        "recording": target.recordings[0].manifest.id,
        "traces_before": "true",
    }
    assert (network.timing.baseline_s, network.timing.observe_s) == (100, 121)
    for control in scenarios[2:]:
        assert control.expectation == Expectation(healthy=True)
        assert control.faults == ()
        assert dict(control.tags)["fault_type"] == "control"
    assert all(target.validate(item) == () for item in scenarios)


@pytest.mark.parametrize(
    ("quiet", "control", "baseline_s"),
    [
        ((0, 60), (0, 60), 120),  # telemetry starts with the control
        ((0, 60), (5, 60), 120),  # five seconds are no baseline
        ((0, 90), (30, 90), 20),  # the guard before a control is no baseline
        ((0, 500), (440, 500), 120),
        ((0, 500), (510, 520), 120),  # the last scrape of a stretch may lie a little behind it
        ((0, 30), (80, 110), 120),  # too far back
    ],
)
def test_the_baseline_is_the_quiet_telemetry_right_before(target, quiet, control, baseline_s):
    def window(seconds):
        return Window(start_ns=at(seconds[0]), end_ns=at(seconds[1]))

    recording = target.recordings[0]
    manifest = recording.manifest.model_copy(update={"quiet": (window(quiet),)})
    cut = ControlWindow(id="c", system="Sample", window=window(control))
    replay = replay_of_control(replace(recording, manifest=manifest), cut)
    assert scenario_of(replay).timing.baseline_s == baseline_s
    assert scenario_of(replay).timing.observe_s == control[1] - control[0]


@pytest.mark.parametrize("key", [NETWORK, EXCEPTION])
async def test_a_session_sees_what_had_happened_by_now(target, key):
    item = scenario(target, key)
    async with target.open(item, "s") as session:
        start = session.clock.now()
        assert not [t for t in await times(session) if start <= t < at(STARTS[key] + 120)]
        await session.clock.sleep(item.timing.baseline_s)
        now = session.clock.now()
        own = [t for t in await times(session) if t >= start and not inside(t, session.reference)]
        assert own
        assert max(own) <= now
        assert await session.telemetry.latest() <= now
        await session.flags.apply(FlagChange(key=key, variant="on"))
        assert session.clock.now() == at(STARTS[key])
        assert (await session.flags.served(key, {})).variant == "on"
        await session.clock.sleep(item.timing.observe_s)
        incident = Window(start_ns=at(STARTS[key]), end_ns=session.clock.now())
        assert len([t for t in await times(session) if t in incident]) >= 4 * 120
        assert await session.telemetry.latest() <= session.clock.now()


def inside(instant, windows):
    return any(instant in window for window in windows)


async def test_spans_that_have_not_ended_are_hidden_until_the_session_is_over(target):
    item = scenario(target, NETWORK)
    async with target.open(item, "s") as session:
        await session.clock.sleep_until(at(STARTS[NETWORK]) + NANOS_PER_SECOND // 10)
        roots = (
            "SELECT count() FROM otel_traces WHERE ParentSpanId = '' "
            "AND Timestamp >= fromUnixTimestamp64Nano({t:Int64})"
        )
        since = {"t": at(STARTS[NETWORK])}
        future = {"t": at(STARTS[NETWORK] + 100)}
        assert (await session.telemetry.query(roots, since)).columns[0][0] == await reference_roots(
            session, since
        )
        await session.clock.sleep(0.5)
        assert (await session.telemetry.query(roots, since)).columns[0][0] == await reference_roots(
            session, since
        ) + 1
        await session.clock.sleep_until(at(STARTS[NETWORK] + 120))
        last = (await session.telemetry.query(roots, future)).columns[0][0]
        assert last - await reference_roots(session, future) == 20


async def reference_roots(session, since):
    starts = [window.start_ns for window in session.reference if window.start_ns >= since["t"]]
    ends = [window.end_ns for window in session.reference if window.start_ns >= since["t"]]
    return sum((end - start) // NANOS_PER_SECOND for start, end in zip(starts, ends, strict=True))


@pytest.mark.parametrize("key", [NETWORK, EXCEPTION])
async def test_a_session_sees_its_own_windows_and_the_reference_and_no_other_fault(target, key):
    item = scenario(target, key)
    manifest = target.recordings[0].manifest
    others = [i.disturbed(manifest.policy) for i in manifest.incidents if i.id != key]
    async with target.open(item, "s") as session:
        start = session.clock.now()
        await session.clock.sleep_until(at(STARTS[key]))
        await session.clock.sleep(item.timing.observe_s + 3600)
        own = Window(start_ns=start, end_ns=at(STARTS[key]) + 120_001_000_000)
        for table, column in (
            ("otel_traces", "Timestamp"),
            ("otel_logs", "Timestamp"),
            ("otel_metrics_gauge", "TimeUnix"),
        ):
            seen = await times(session, table, column)
            assert [t for t in seen if t in own]
            assert [t for t in seen if not inside(t, (own, *session.reference))] == []
            assert [t for t in seen if inside(t, others)] == []
        assert session.reference
        assert not any(window.overlaps(own) for window in session.reference)


async def test_the_reference_is_visible_before_its_time_has_come(target):
    item = scenario(target, NETWORK)
    async with target.open(item, "s") as session:
        future = [window for window in session.reference if window.start_ns > session.clock.now()]
        assert future
        health = await session.telemetry.service_health(future[0], 10.0)
        assert {row.service for row in health} == {"frontend", "cart", "db"}
        edges = {(edge.caller, edge.callee) for edge in await session.telemetry.call_edges(future[0])}
        assert edges == {("frontend", "cart"), ("cart", "db")}


async def test_a_reference_of_the_past_only_leaves_the_future_out(folder):
    target = ReplayTarget(
        [folder / "sample"], store_dsn="chdb://memory", cache_dir=folder / "cache", reference="past"
    )
    async with target.open(scenario(target, NETWORK), "s") as session:
        assert session.reference == ()
        assert session.provenance["reference"] == "past"
        assert await session.telemetry.latest() is None
    async with target.open(scenario(target, EXCEPTION), "s") as session:
        assert len(session.reference) == 1
        assert session.reference[0].end_ns <= session.clock.now()
    target.close()


async def test_an_incident_begins_where_its_telemetry_begins(tmp_path):
    source = write_sample_cases(tmp_path / "sample")
    cases = (source / "cases.json").read_text()
    first = f'"traces_from": "{iso(at(STARTS[NETWORK] - 110))}"'
    assert first in cases
    (source / "cases.json").write_text(
        cases.replace(first, f'"traces_from": "{iso(at(STARTS[NETWORK] + 30))}"')
    )
    target = ReplayTarget([source], store_dsn="chdb://memory", cache_dir=tmp_path / "cache")
    item = scenario(target, NETWORK)
    assert item.timing.observe_s == 91
    async with target.open(item, "s") as session:
        await session.clock.sleep(item.timing.baseline_s)
        assert session.clock.now() == at(STARTS[NETWORK] - 10)
        await session.flags.apply(FlagChange(key=NETWORK, variant="on"))
        assert session.clock.now() == at(STARTS[NETWORK] + 30)
    target.close()


async def test_a_session_may_observe_for_less_than_was_recorded(target):
    item = scenario(target, NETWORK)
    short = item.model_copy(update={"timing": item.timing.model_copy(update={"observe_s": 30.0})})
    async with target.open(short, "s") as session:
        await session.clock.sleep_until(at(STARTS[NETWORK] + 200))
        seen = [t for t in await times(session) if t >= at(STARTS[NETWORK])]
        assert max(t for t in seen if not inside(t, session.reference)) < at(STARTS[NETWORK] + 30)


async def test_nothing_the_analyzer_can_ask_names_the_incident(target):
    async with target.open(scenario(target, NETWORK), f"session of {NETWORK}") as session:
        schema = await session.telemetry.schema()
        answer = await session.telemetry.query("SELECT currentDatabase()")
        names = [schema.database, answer.columns[0][0], *schema.tables]
        assert not [name for name in names if "sample" in name.lower() or "delay" in name or "cart" in name]
        assert NETWORK not in "".join(session.provenance.values())


async def test_controls_have_no_flag_and_exclude_themselves_from_the_reference(target):
    for control in controls(target):
        async with target.open(control, "s") as session:
            assert (await session.flags.document()).flags == {}
            timing = control.timing
            await session.clock.sleep(timing.baseline_s + timing.guard_s + timing.observe_s)
            own = Window(
                start_ns=session.clock.now() - round(control.timing.observe_s * NANOS_PER_SECOND),
                end_ns=session.clock.now(),
            )
            assert len([t for t in await times(session) if t in own]) == 5 * int(control.timing.observe_s)
            assert not any(window.overlaps(own) for window in session.reference)
            assert await session.traffic.drive(["cart"], 10) == 0


async def test_sessions_run_side_by_side_without_seeing_each_other(target):
    async def run(item):
        async with target.open(item, "s") as session:
            await session.clock.sleep(item.timing.baseline_s)
            for fault in item.faults:
                await session.flags.apply(FlagChange(key=fault.flag, variant="on"))
                with pytest.raises(FlagError):
                    await session.flags.served(NETWORK if fault.flag == EXCEPTION else EXCEPTION, {})
            await session.clock.sleep(item.timing.observe_s)
            return session.clock.now(), await times(session)

    items = target.scenarios()
    together = await asyncio.gather(*(run(item) for item in items))
    alone = [await run(item) for item in items]
    assert together == alone
    assert together[0] != together[1]


async def test_closing_a_session_drops_its_views(target):
    async with target.open(scenario(target, NETWORK), "s") as session:
        name = (await session.telemetry.schema()).database
        assert name in target._store.store.databases()
    assert name not in target._store.store.databases()
    session.telemetry.close()


async def test_a_session_cancelled_while_it_opens_leaves_no_views(target):
    async def opened():
        async with target.open(scenario(target, NETWORK), "s"):
            await asyncio.Event().wait()

    before = target._store.store.databases()
    for seconds in (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.3):
        task = asyncio.create_task(opened())
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert set(target._store.store.databases()) <= set(before)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            Scenario(id="x", faults=(Fault(flag="sample-cart-network-delay"),), expectation=Expectation()),
            "no recorded incident 'sample-cart-network-delay' (did you mean 'sample-cart-network_delay'?)",
        ),
        (
            Scenario(id="quiet", expectation=Expectation(healthy=True)),
            "no recorded control 'quiet': a recording has several controls; "
            'name one with otel_scenario(id), or take them all with otel_recorded("controls")',
        ),
        (
            Scenario(id="x", faults=(Fault(flag=NETWORK, variant="50%"),), expectation=Expectation()),
            "was recorded with variant 'on', not '50%'",
        ),
        (
            Scenario(id="x", faults=(Fault(flag=NETWORK), Fault(flag=EXCEPTION)), expectation=Expectation()),
            "has 2 faults; a recorded incident has one",
        ),
        (
            Scenario(
                id="x",
                faults=(Fault(flag=NETWORK),),
                disturbances=(Disturbance(kind="text", text="submit", service="cart"),),
                expectation=Expectation(),
            ),
            "has disturbances; the past cannot be changed",
        ),
    ],
)
async def test_scenarios_that_were_not_recorded_are_refused(target, given, message):
    (mistake,) = target.validate(given)
    assert message in mistake
    with pytest.raises(ScenarioError):
        async with target.open(given, "s"):
            pass


async def test_a_scenario_of_the_users_own_may_name_a_recorded_fault(target):
    mine = Scenario(
        id="mine",
        faults=(Fault(flag=NETWORK),),
        expectation=Expectation(),
        timing=Timing(baseline_s=20, observe_s=5),
    )
    assert target.validate(mine) == ()
    async with target.open(mine, "s") as session:
        assert session.clock.now() == at(STARTS[NETWORK] - 10 - 20)


def test_the_description_names_recording_and_hash(target):
    manifest = target.recordings[0].manifest
    found = target.describe()
    assert found["name"] == "replay"
    assert found["source"] == "Sample"
    assert found[f"recording.{manifest.id}"] == target.recordings[0].sha256


def test_a_spec_names_one_or_several_paths(folder):
    settings = Settings(store=SecretText("chdb://memory"), cache=str(folder))
    rest = f"replay:{folder}/sample:{folder}/sample"
    target = ReplayTarget.from_settings(rest, settings=settings, worker="")
    assert len(target.recordings) == 1
    with pytest.raises(ScenarioError, match="write replay:PATH"):
        ReplayTarget.from_settings("replay:", settings=settings, worker="")
    with pytest.raises(RecordingError, match=r"is not a folder \(did you mean 'sample'\?\)"):
        ReplayTarget.from_settings(f"{folder}/samlpe", settings=settings, worker="").scenarios()


def test_the_same_incident_in_two_recordings_is_refused(folder, tmp_path):
    other = write_sample_cases(tmp_path / "other")
    (other / "logs.parquet").unlink()
    target = ReplayTarget([folder / "sample", other], store_dsn="chdb://memory", cache_dir=tmp_path)
    with pytest.raises(ScenarioError, match=f"'{NETWORK}' is in .* and in .*; name only one"):
        target.scenarios()


def test_a_closed_target_opens_again(folder, target):
    second = ReplayTarget([folder / "sample"], store_dsn="chdb://memory", cache_dir=folder / "cache")
    second.close()
    second.load()
    assert second._store is target._store
    second.close()
    second.close()
    target.load()


def test_rows_that_do_not_arrive_are_an_error(tmp_path):
    recording = open_recording(write_sample_cases(tmp_path / "sample"), tmp_path / "cache")
    manifest = recording.folder / "recording.json"
    manifest.write_text(manifest.read_text().replace('"rows": 460', '"rows": 461'))
    target = ReplayTarget([recording.folder], store_dsn="chdb://memory", cache_dir=tmp_path / "cache")
    with pytest.raises(RecordingError, match=r"logs.parquet: 460 rows were loaded, the manifest says 461"):
        target.load()
    target.close()


async def test_a_recording_that_was_changed_is_not_loaded(tmp_path):
    source = write_sample_cases(tmp_path / "sample")
    (source / "logs.parquet").unlink()
    target = ReplayTarget([source], store_dsn="chdb://memory", cache_dir=tmp_path / "cache")
    path = target.recordings[0].folder / "traces.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RecordingError, match="copy the recording again"):
        async with target.open(target.scenarios()[0], "s"):
            pass
    target.close()
