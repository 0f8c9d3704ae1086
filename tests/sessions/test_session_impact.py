"""Every outcome of the wait for impact, with the number of calls behind it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.errors import SchemaError, TelemetryUnavailable
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.scenario import Expectation, ExpectedAnomaly, ExpectedRootCause, Timing
from pytest_otel_diag.model.session import ImpactReason, Phase, Status
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.sessions.impact.assess import looks
from tests.sessions.session_fakes import (
    QUICK,
    START_NS,
    Behaviour,
    FakeTarget,
    Watcher,
    engine,
    plan,
    scenario,
    shop,
)

FAULT_NS = START_NS + seconds_to_ns(60)


async def impact_of(target, analyzer=None, **changes):
    case = scenario("paymentFailure=50%", **changes)
    watcher = Watcher()
    result = await engine(target, analyzer, watcher=watcher).run(plan(case))
    assert target.restored and result.impact is not None
    assert watcher.progress and watcher.progress[-1].reason is result.impact.reason
    return result


def with_payment(**behaviour):
    services = shop()
    services["payment"] = Behaviour(**({"rate": 8, "flag": "paymentFailure"} | behaviour))
    return services


@pytest.mark.parametrize(
    ("behaviour", "signal", "says"),
    [
        ({"errors_on": 0.5}, "error_rate", "payment fails "),
        ({"p95_on_ms": 60.0}, "latency", "p95 of payment is 2.9"),
        ({"p95_on_ms": 5.0}, "latency", "p95 of payment is 0.2"),
        ({"rate_on": 1.0}, "request_rate", "payment gets "),
        ({"rate_on": 0.0}, "request_rate", "payment gets 0.00 calls a second, before 8.00"),
        ({"rate_on": 32.0}, "request_rate", "payment gets "),
    ],
)
async def test_each_signal_makes_a_fault_visible(behaviour, signal, says):
    result = await impact_of(FakeTarget(services=with_payment(**behaviour)))

    assert result.status is Status.SCORED
    assert result.impact.reason is ImpactReason.VISIBLE
    assert (result.impact.service, result.impact.signal) == ("payment", signal)
    assert result.impact.detail.startswith(says)
    assert 0 < result.impact.time_to_impact_s <= 60


async def test_a_fault_without_effect_is_reported_once_enough_calls_were_seen():
    result = await impact_of(FakeTarget(services=with_payment()))

    assert result.status is Status.INVALID and result.blame is None
    assert result.impact.reason is ImpactReason.NO_EFFECT
    assert result.impact.calls_seen >= result.impact.calls_needed > 50
    assert (
        result.reason.startswith("NO_EFFECT: ") and "calls of payment look like the baseline" in result.reason
    )


async def test_a_service_called_too_rarely_says_how_many_calls_it_needs():
    services = with_payment(rate=2, errors_on=0.02)
    target = FakeTarget(services=services)
    target.traffic.willing = False

    result = await impact_of(target, timing={"impact_timeout_s": 20, "baseline_s": 300})

    assert result.impact.reason is ImpactReason.TOO_RARE
    assert 0 < result.impact.calls_seen < result.impact.calls_needed
    assert (
        f"it needs about {result.impact.calls_needed} calls, has {result.impact.calls_seen}" in result.reason
    )
    assert len(target.traffic.asked) == 1  # a target that cannot drive is asked once


async def test_many_calls_of_a_busy_caller_do_not_stand_for_the_few_behind_it():
    services = with_payment(rate=2)
    target = FakeTarget(services=services)
    target.traffic.willing = False
    expectation = Expectation(
        anomalies=(ExpectedAnomaly(service="payment"), ExpectedAnomaly(service="frontend")),
        root_causes=(ExpectedRootCause(service="payment"),),
    )

    result = await impact_of(
        target, expectation=expectation, timing={"impact_timeout_s": 20, "baseline_s": 300}
    )

    assert (result.impact.reason, result.impact.service) == (ImpactReason.TOO_RARE, "payment")
    assert f"it needs about {result.impact.calls_needed} calls" in result.reason


async def test_missing_calls_are_driven_and_do_not_count_as_impact():
    services = with_payment(rate=0.3)
    target = FakeTarget(services=services)

    result = await impact_of(target, timing={"baseline_s": 1200, "impact_timeout_s": 120})

    assert sum(target.traffic.asked) > 20
    assert result.impact.reason is ImpactReason.NO_EFFECT
    assert result.impact.calls_seen >= result.impact.calls_needed


async def test_driven_traffic_makes_a_rare_fault_visible():
    services = with_payment(rate=0.7, errors_on=0.3)

    result = await impact_of(
        FakeTarget(services=services), timing={"baseline_s": 600, "impact_timeout_s": 120}
    )

    assert (result.impact.reason, result.impact.signal) == (ImpactReason.VISIBLE, "error_rate")


async def test_driving_has_a_limit():
    target = FakeTarget(services=with_payment(rate=0.7))
    case = scenario("paymentFailure=50%", timing={"baseline_s": 600, "impact_timeout_s": 30})

    await engine(target, settings=replace(QUICK, max_driven_calls=5)).run(plan(case))

    assert sum(target.traffic.asked) == 5


async def test_a_thin_baseline_is_named_as_the_reason():
    target = FakeTarget(services=with_payment(rate=0.2))

    result = await impact_of(target, timing={"impact_timeout_s": 30})

    assert result.impact.reason is ImpactReason.TOO_RARE
    needed = result.impact.calls_needed
    assert needed > 12
    assert result.reason.startswith("TOO_RARE: payment fails 0 of 26 calls, before 0 of 12; ")
    assert (
        f"it needs about {needed} calls before the fault and {needed} since; lengthen baseline_s to about"
        in (result.reason)
    )


async def test_no_call_of_the_service_is_no_traffic():
    services = shop()
    del services["payment"]

    result = await impact_of(FakeTarget(services=services))

    assert result.status is Status.INVALID
    assert result.reason == "NO_TRAFFIC: no call of payment since the fault began, and none before it"


async def test_traffic_that_stops_altogether_is_no_impact():
    services = {
        name: Behaviour(rate=8, flag="paymentFailure", rate_on=0.0) for name in ("frontend", "payment", "ad")
    }

    target = FakeTarget(services=services)
    target.traffic.willing = False

    result = await impact_of(target)

    assert result.impact.reason is ImpactReason.NO_TRAFFIC


async def test_telemetry_that_stays_behind_is_not_yet_exported():
    result = await impact_of(FakeTarget(ends_ns=FAULT_NS))

    assert result.status is Status.INVALID
    assert result.reason.startswith("NOT_YET_EXPORTED: no telemetry is newer than the start of the fault")


async def test_late_exports_are_waited_for():
    result = await impact_of(FakeTarget(lag_s=15))

    assert result.impact.reason is ImpactReason.VISIBLE
    assert result.windows.incident.end_ns >= FAULT_NS + seconds_to_ns(20)


async def test_an_impact_that_is_not_required_is_reported_and_diagnosed():
    result = await impact_of(FakeTarget(services=with_payment()), require_impact=False)

    assert result.status is Status.SCORED
    assert result.impact.reason in {ImpactReason.NO_EFFECT, ImpactReason.TOO_RARE}
    # Waiting longer than the incident is observed would only blur the window.
    assert result.windows.incident.duration_s == pytest.approx(30)


async def test_a_wait_of_no_time_looks_once():
    result = await impact_of(FakeTarget(), require_impact=False, timing={"observe_s": 0})

    assert result.status is Status.SCORED


async def test_a_store_without_traces_shows_no_calls():
    target = FakeTarget(tables=("otel_metrics_gauge",))
    target.trouble.raising("telemetry.service_health", SchemaError("no otel_traces"))
    target.trouble.raising("telemetry.call_edges", SchemaError("no otel_traces"))

    result = await impact_of(target, lambda _: Diagnosis(detected=True), require_impact=False)

    assert result.status is Status.SCORED
    assert result.impact.reason is ImpactReason.NO_TRAFFIC
    assert result.windows.baseline is not None


async def test_without_expected_services_all_are_watched():
    services = {"a": Behaviour(rate=9), "b": Behaviour(rate=8, flag="paymentFailure", errors_on=0.5)}
    expectation = Expectation(flags=("paymentFailure",))

    result = await impact_of(FakeTarget(services=services), expectation=expectation)

    assert (result.impact.reason, result.impact.service) == (ImpactReason.VISIBLE, "b")


async def test_a_slow_network_is_seen_at_the_caller():
    services = shop()
    services["checkout"] = Behaviour(rate=8, flag="paymentFailure", p95_on_ms=400)
    services["payment"] = Behaviour(rate=8)
    expectation = Expectation(root_causes=(ExpectedRootCause(service="payment"),))

    result = await impact_of(FakeTarget(services=services), expectation=expectation)

    assert (result.impact.service, result.impact.signal) == ("checkout", "latency")
    assert "(payment fails 0 of " in result.impact.detail, "the root cause is named with its numbers too"


async def test_not_knowing_the_callers_is_no_obstacle():
    target = FakeTarget()
    target.trouble.raising("telemetry.call_edges", TelemetryUnavailable("busy"))

    result = await impact_of(target)

    assert result.impact.reason is ImpactReason.VISIBLE


async def test_a_quiet_window_is_compared_with_when_the_baseline_has_no_calls():
    quiet = Window(start_ns=START_NS - seconds_to_ns(300), end_ns=START_NS - seconds_to_ns(100))
    services = shop()
    target = FakeTarget(services=services, reference=(quiet,), begins_ns=quiet.start_ns)
    health = target.telemetry.service_health

    async def gap(window, bucket_s):
        return () if START_NS <= window.start_ns < FAULT_NS else await health(window, bucket_s)

    target.telemetry.service_health = gap
    result = await impact_of(target)

    assert result.impact.reason is ImpactReason.VISIBLE
    assert result.windows.baseline is not None


@pytest.mark.parametrize("seed_s", range(0, 600, 60))
async def test_quiet_systems_show_no_impact(seed_s):
    """A/A: the flag changes nothing, whenever it is set."""
    target = FakeTarget(services=with_payment(errors=0.03))
    target.clock._now_ns += seconds_to_ns(seed_s)

    result = await impact_of(target)

    assert result.impact.reason is not ImpactReason.VISIBLE


@given(st.floats(0.01, 500), st.floats(0, 2000))
def test_a_wait_ends_after_its_looks(poll_s, timeout_s):
    count = looks(Timing(impact_poll_s=poll_s), timeout_s)
    assert count >= 1
    assert count == 1 or (count - 1) * poll_s < timeout_s + 1e-6
    assert count * poll_s >= timeout_s - 1e-6 * count


async def test_progress_is_emitted_at_each_look():
    target, watcher = FakeTarget(lag_s=15), Watcher()

    await engine(target, watcher=watcher).run(plan())

    reasons = [impact.reason for impact in watcher.progress]
    assert reasons[0] is ImpactReason.NOT_YET_EXPORTED and reasons[-1] is ImpactReason.VISIBLE
    assert [record.phase for record in watcher.ended] == list(Phase)


async def test_quiet_windows_help_out_where_the_baseline_has_few_calls():
    quiet = Window(start_ns=START_NS - seconds_to_ns(900), end_ns=START_NS)
    services = with_payment(rate=0.5, errors_on=0.2)
    changes = {"timing": {"impact_timeout_s": 60}}
    alone = FakeTarget(services=services)
    helped = FakeTarget(services=services, reference=(quiet,), begins_ns=quiet.start_ns)
    for target in (alone, helped):
        target.traffic.willing = False

    assert (await impact_of(alone, **changes)).impact.reason is ImpactReason.TOO_RARE
    assert (await impact_of(helped, **changes)).impact.reason is ImpactReason.VISIBLE


async def test_metrics_alone_cannot_show_an_impact_that_is_required():
    target = FakeTarget(services={})

    result = await engine(target).run(plan())

    assert result.status is Status.ERROR
    assert "no calls in traces before the fault, so its impact cannot be seen" in result.reason
    assert target.trouble.passed["flags.apply"] == 0


async def test_metrics_alone_are_enough_for_a_control():
    result = await engine(FakeTarget(services={}), lambda _: Diagnosis(detected=False)).run(plan(scenario()))

    assert result.status is Status.SCORED
    assert result.phases[1].detail == ""


async def test_without_anything_to_compare_with_one_look_is_enough():
    target = FakeTarget(services={})

    result = await impact_of(target, lambda _: Diagnosis(detected=True), require_impact=False)

    assert result.impact.reason is ImpactReason.NO_TRAFFIC
    assert target.trouble.passed["telemetry.service_health"] == 3  # baseline, one look, the timeline
    assert result.windows.incident.duration_s == pytest.approx(30)
