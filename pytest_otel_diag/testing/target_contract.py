"""The contract that every target fulfils.

Subclass it in a test module and provide two fixtures: ``target``, and ``scenario``, one with a fault that the
target can run::

    class TestMine(TargetContract):
        @pytest.fixture
        def target(self): ...
        @pytest.fixture
        def scenario(self): ...

The test methods are coroutines: run them with pytest-asyncio in auto mode.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from pytest_otel_diag.errors import FlagError, QueryRejected
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.flags import FlagChange
from pytest_otel_diag.model.scenario import Fault, Scenario
from pytest_otel_diag.model.session import SessionResult, Status
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.model.windows import seconds_to_ns
from pytest_otel_diag.ports import Investigation, JudgeFacts, Target, TargetSession
from pytest_otel_diag.sessions import EngineSettings, SessionEngine, SessionPlan, as_analyzer
from pytest_otel_diag.sessions.faults.external_changes import foreign_faults
from pytest_otel_diag.sessions.faults.injection import resolve_faults
from pytest_otel_diag.sessions.faults.witness import FlagWitness
from pytest_otel_diag.sessions.validation import validated

WRITES = (
    "DROP TABLE otel_traces",
    "TRUNCATE TABLE otel_traces",
    "INSERT INTO otel_traces (TraceId) VALUES ('x')",
    "CREATE TABLE mine (x Int8) ENGINE = Memory",
    "SELECT 1; SELECT 2",
)


class TargetContract:
    """Subclass this to test a target."""

    async def test_it_describes_itself(self, target: Target) -> None:
        """Its description for the manifest of a run consists of strings."""
        described = target.describe()
        assert target.name
        assert isinstance(target.exclusive, bool)
        assert isinstance(target.seeded, bool)
        assert described["name"] == target.name
        assert all(isinstance(text, str) for pair in described.items() for text in pair)

    async def test_it_knows_its_own_scenarios(self, target: Target, scenario: Scenario) -> None:
        """It accepts its own scenarios, and names the mistake in an invalid one."""
        assert list(target.validate(scenario)) == []
        wrong = scenario.model_copy(update={"faults": (Fault(flag="no-such-flag"),)})
        assert any("no-such-flag" in sentence for sentence in target.validate(wrong))

    async def test_its_scenarios_for_faults_are_valid(self, target: Target, scenario: Scenario) -> None:
        """It returns nothing for unknown faults, and does not raise."""
        known = target.scenario_for(scenario.faults)
        if known is not None:
            assert [fault.flag for fault in known.faults]
            assert list(target.validate(known)) == []
        assert target.scenario_for([Fault(flag="no-such-flag")]) is None

    async def test_sessions_start_without_a_fault(self, target: Target, scenario: Scenario) -> None:
        """Every session starts without a fault, whatever the previous one did."""
        documents = []
        for _ in range(2):
            async with target.open(scenario, "contract") as session:
                document = await session.flags.document()
                assert await foreign_faults(FlagWitness(session, EngineSettings()), document) == []
                documents.append(document.raw)
        assert documents[0] == documents[1]

    async def test_an_error_in_a_session_passes_through(self, target: Target, scenario: Scenario) -> None:
        """The error propagates, and the target stays usable."""
        with pytest.raises(ZeroDivisionError):
            async with target.open(scenario, "contract"):
                raise ZeroDivisionError
        async with target.open(scenario, "contract") as session:
            assert session.clock.now() > 0

    async def test_time_passes_while_sleeping(self, target: Target, scenario: Scenario) -> None:
        """Sleeping advances its clock, which never goes back."""
        async with target.open(scenario, "contract") as session:
            before = session.clock.now()
            await session.clock.sleep(0.05)
            assert session.clock.now() - before >= seconds_to_ns(0.05)

    async def test_a_fault_is_served_and_restored(self, target: Target, scenario: Scenario) -> None:
        """A fault is resolved, applied, served, restored byte for byte, and no longer served."""
        async with target.open(scenario, "contract") as session:
            before = await session.flags.document()
            changes = resolve_faults(scenario.faults, before)
            assert changes
            answered = {c.key: (await session.flags.served(c.key, {})).variant for c in changes}
            for change in changes:
                await session.flags.apply(change)
            await _proven(session, {change.key: change.variant for change in changes})
            await session.flags.restore(before)
            assert (await session.flags.document()).raw == before.raw
            await _proven(session, answered)

    async def test_unknown_flags_and_variants_are_refused(self, target: Target, scenario: Scenario) -> None:
        """They raise FlagError before anything is written."""
        async with target.open(scenario, "contract") as session:
            before = await session.flags.document()
            with pytest.raises(FlagError):
                await session.flags.apply(FlagChange(key="no-such-flag", variant="on"))
            with pytest.raises(FlagError):
                await session.flags.apply(FlagChange(key=scenario.faults[0].flag, variant="no-such-variant"))
            assert (await session.flags.document()).raw == before.raw

    async def test_telemetry_hides_the_future(self, target: Target, scenario: Scenario) -> None:
        """All visible telemetry has ended by the target's now."""
        async with target.open(scenario, "contract") as session:
            await session.clock.sleep(scenario.timing.baseline_s)
            assert (await session.telemetry.schema()).signals()
            latest = await session.telemetry.latest()
            assert latest is None or latest <= session.clock.now()

    async def test_telemetry_can_only_be_read(self, target: Target, scenario: Scenario) -> None:
        """Statements that write are rejected."""
        async with target.open(scenario, "contract") as session:
            for sql in WRITES:
                with pytest.raises(QueryRejected):
                    await session.telemetry.query(sql)

    async def test_reference_windows_are_in_order(self, target: Target, scenario: Scenario) -> None:
        """Reference windows are not empty and do not overlap."""
        async with target.open(scenario, "contract") as session:
            assert all(not window.empty for window in session.reference)
            pairs = zip(session.reference, session.reference[1:], strict=False)
            assert all(first.end_ns <= second.start_ns for first, second in pairs)

    async def test_driving_no_traffic_makes_no_calls(self, target: Target, scenario: Scenario) -> None:
        """Driving no traffic reports no calls."""
        async with target.open(scenario, "contract") as session:
            assert await session.traffic.drive([], 0) == 0
            assert session.traffic.made() == 0

    async def test_sessions_are_isolated(self, target: Target, scenario: Scenario) -> None:
        """Concurrent sessions of a target that is not exclusive do not see each other's fault."""
        if target.exclusive:
            pytest.skip("an exclusive target holds one session at a time")
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(target.open(scenario, "one"))
            other = await stack.enter_async_context(target.open(scenario, "other"))
            document, now = await other.flags.document(), other.clock.now()
            (change, *_) = resolve_faults(scenario.faults, document)
            await one.flags.apply(change)
            assert (await other.flags.document()).raw == document.raw
            assert other.clock.now() - now < seconds_to_ns(1)

    async def test_a_whole_session_leaves_no_trace(self, target: Target, scenario: Scenario) -> None:
        """A session of the engine sets, witnesses and judges the fault, and verifies that it is restored."""
        analyzer = as_analyzer(_finds_nothing)
        plan = SessionPlan(scenario=validated(scenario, target), session_id="contract", run_id="contract")
        result: SessionResult = await SessionEngine(target, analyzer, _judges_nothing).run(plan)
        assert result.status in {Status.SCORED, Status.INVALID}, result.reason
        assert result.witnesses
        assert all(proof.confirmed for proof in result.witnesses)
        assert result.cleanup is not None
        assert result.cleanup.restored
        assert result.cleanup.verified


async def _proven(session: TargetSession, wanted: dict[str, str]) -> None:
    for proof in await FlagWitness(session, EngineSettings()).confirm(wanted):
        assert proof.confirmed, proof


async def _finds_nothing(_: Investigation) -> Diagnosis:
    return Diagnosis(detected=False)


async def _judges_nothing(
    diagnosis: Diagnosis,
    scenario: Scenario,
    facts: JudgeFacts,  # noqa: ARG001 - the protocol's name
) -> Verdict:
    return Verdict(fault_present=not scenario.control, detected=diagnosis.detected)
