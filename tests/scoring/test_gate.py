"""The gate: three outcomes from an interval, and runs that never pass."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.session import Cleanup
from pytest_otel_diag.scoring import gate as gates
from pytest_otel_diag.scoring.gate import GateCriterion, GateSettings, decide, more_needed, run_gate
from pytest_otel_diag.scoring.gate_outcome import GateOutcome
from pytest_otel_diag.scoring.measures import MEASURES
from pytest_otel_diag.scoring.power import operating_characteristic
from tests.scoring.samples import control, faulty, quiet, ranked, session, solved

directions = st.sampled_from([">=", ">", "<=", "<"])
criteria = st.builds(
    GateCriterion, name=st.just("top1"), direction=directions, threshold=st.floats(0.05, 0.95)
)


def green(n=80):
    return [solved(f"fault-{i}") for i in range(n)] + [control(f"quiet-{i}") for i in range(n)]


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), criteria)
def test_an_outcome_needs_the_whole_interval_on_one_side(count, criterion):
    successes, n = count
    low, high = proportion_confint(successes, n, method="wilson")
    outcome = decide(successes, n, criterion)
    upward = criterion.direction in (">=", ">")
    reached = low >= criterion.threshold if upward else high <= criterion.threshold
    missed = high < criterion.threshold if upward else low > criterion.threshold
    by_interval = GateOutcome.PASS if reached else GateOutcome.FAIL if missed else GateOutcome.INCONCLUSIVE
    assert outcome in (by_interval, GateOutcome.INCONCLUSIVE)


DECIDING = [criterion for criterion in gates.DEFAULT_CRITERIA if criterion.gates]


@pytest.mark.parametrize("n", [1, 2, 4, 5, 7, 10, 12, 16, 22, 26, 35, 40, 75, 150])
def test_an_analyzer_at_a_threshold_is_rarely_judged_wrongly(n):
    """A/A, by exact sums: any of the criteria fails, or all pass, with a chance of at most 5 %."""
    at_threshold = [
        operating_characteristic(each.threshold, n, each, deciding=len(DECIDING)) for each in DECIDING
    ]
    assert sum(each.failed for each in at_threshold) <= 0.05
    assert min(each.passed for each in at_threshold) <= 0.05


def test_simulated_suites_of_an_analyzer_at_every_threshold_are_rarely_judged_wrongly():
    rng, suites, faults, quiet = random.Random(3), 200, 14, 10
    outcomes = Counter(
        run_gate(
            [
                solved(f"f{i}") if rng.random() < 0.75 else ranked(f"f{i}", 2, detected=rng.random() < 0.6)
                for i in range(faults)
            ]
            + [control(f"q{i}", alarm=rng.random() < 0.10) for i in range(quiet)]
        ).outcome
        for _ in range(suites)
    )
    assert outcomes[GateOutcome.PASS] <= 10 and outcomes[GateOutcome.FAIL] <= 10


def test_one_miss_is_too_little_to_fail():
    sensitivity = DECIDING[0]
    assert decide(0, 1, sensitivity) is GateOutcome.INCONCLUSIVE  # its Wilson interval ends at 0.79
    assert decide(0, 2, sensitivity) is GateOutcome.FAIL
    assert decide(2, 4, sensitivity) is GateOutcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("direction", "at_zero", "at_one"),
    [
        (">=", "PASS", "INCONCLUSIVE"),
        (">", "INCONCLUSIVE", "FAIL"),
        ("<=", "INCONCLUSIVE", "PASS"),
        ("<", "FAIL", "INCONCLUSIVE"),
    ],
)
def test_strict_directions_differ_exactly_at_the_bound(direction, at_zero, at_one):
    zero = GateCriterion(name="top1", direction=direction, threshold=0.0)
    assert decide(0, 9, zero) == at_zero
    one = GateCriterion(name="top1", direction=direction, threshold=1.0)
    assert decide(9, 9, one) == at_one


@given(st.integers(0, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), criteria)
def test_more_needed_is_the_first_size_that_decides(count, criterion):
    successes, n = count
    rate = successes / n if n else 1.0
    if n and decide(successes, n, criterion) is not GateOutcome.INCONCLUSIVE:
        return
    more = more_needed(rate, n, criterion)
    undecided = [
        k
        for k in range(1, (more or 400))
        if decide(rate * (n + k), n + k, criterion) is not GateOutcome.INCONCLUSIVE
    ]
    assert undecided == []
    if more is not None:
        assert decide(rate * (n + more), n + more, criterion) is not GateOutcome.INCONCLUSIVE


def test_eleven_of_eleven_needs_twenty_four_more():
    criterion = GateCriterion(name="detection_sensitivity", direction=">=", threshold=0.9)
    assert decide(0, 0, criterion) is GateOutcome.INCONCLUSIVE
    assert decide(11, 11, criterion) is GateOutcome.INCONCLUSIVE
    assert more_needed(1.0, 11, criterion) == 24
    assert decide(34, 34, criterion) is GateOutcome.INCONCLUSIVE
    assert decide(35, 35, criterion) is GateOutcome.PASS


@pytest.mark.parametrize("rate", [0.75, 0.7501])
def test_a_rate_on_the_threshold_is_never_decided(rate):
    criterion = GateCriterion(name="top1", direction=">=", threshold=0.75)
    assert more_needed(rate, 100, criterion) is None


def test_a_right_analyzer_passes_with_exit_code_zero():
    result = run_gate(green())
    assert result.outcome is GateOutcome.PASS
    assert result.outcome.exit_code == 0
    assert result.reasons == ()
    assert [r.criterion.name for r in result.criteria if r.criterion.gates] == [
        "detection_sensitivity",
        "false_positive_rate",
        "top1",
    ]


def test_a_wrong_analyzer_fails_with_the_reason():
    sessions = [ranked(f"f{i}", 4) for i in range(40)] + [control(f"q{i}") for i in range(80)]
    result = run_gate(sessions)
    assert (result.outcome, result.outcome.exit_code) == (GateOutcome.FAIL, 11)
    assert result.reasons == ("root cause top-1: 0.00 [0.00, 0.09] n=40, target ≥ 0.75",)


def test_false_alarms_fail_and_too_few_controls_are_inconclusive():
    loud = [solved(f"f{i}") for i in range(80)] + [control(f"q{i}", alarm=True) for i in range(20)]
    assert run_gate(loud).outcome is GateOutcome.FAIL
    few = run_gate([solved(f"f{i}") for i in range(80)] + [control("q")])
    assert (few.outcome, few.outcome.exit_code) == (GateOutcome.INCONCLUSIVE, 13)
    assert few.reasons == (
        "false alarms on controls: 0.00 [0.00, 0.79] n=1, target < 0.10; "
        "34 more scenarios needed at this rate",
    )
    none = run_gate([solved(f"f{i}") for i in range(80)])
    assert none.outcome is GateOutcome.INCONCLUSIVE
    assert none.reasons == ("false alarms on controls: nothing to measure, at least 35 scenarios needed",)


def test_fail_takes_precedence_over_inconclusive():
    result = run_gate([ranked(f"f{i}", None, detected=False) for i in range(20)])
    assert result.outcome is GateOutcome.FAIL
    assert len(result.reasons) == 2


def test_a_rate_that_cannot_be_decided_is_reported():
    sessions = [solved(f"f{i}") for i in range(75)] + [ranked(f"g{i}", 2) for i in range(25)]
    result = run_gate([*sessions, *(control(f"q{i}") for i in range(80))])
    assert result.outcome is GateOutcome.INCONCLUSIVE
    assert result.reasons[0].endswith("cannot be decided at this rate")


def test_repeats_of_a_scenario_add_evidence_only_if_declared_independent():
    sessions = [solved(f"f{i}", repeat=r) for i in range(8) for r in range(10)]
    sessions += [control(f"q{i}", repeat=r) for i in range(8) for r in range(10)]
    assert run_gate(sessions).outcome is GateOutcome.INCONCLUSIVE
    independent = run_gate(sessions, GateSettings(repeats_independent=True))
    assert independent.outcome is GateOutcome.PASS
    few = run_gate(sessions[:10], GateSettings(repeats_independent=True))
    assert few.reasons[0].endswith("25 more runs needed at this rate")


def test_only_reported_criteria_never_decide():
    slow = [solved(f"f{i}", wall_s=1000.0) for i in range(80)] + [control(f"q{i}") for i in range(80)]
    result = run_gate(slow)
    cycle = next(r for r in result.criteria if r.criterion.name == "full_cycle")
    assert cycle.outcome is GateOutcome.FAIL
    assert result.outcome is GateOutcome.PASS


def test_without_a_gating_criterion_no_run_passes():
    settings = GateSettings(criteria=(GateCriterion(name="top1", direction=">=", threshold=0.1),))
    assert run_gate(green(), settings).outcome is GateOutcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("sessions", "reason"),
    [
        ([], "no session to judge; select tests that use a diagnosis"),
        ([session(quiet(ungated="a trap"))], "none of 1 session counts in the gate; first reason: a trap"),
        ([session(faulty(), status="skipped")], "nothing ran: 1 session, skipped (no reason was given)"),
        (
            [session(faulty(), status="skipped", reason="no flagd")] * 2,
            "nothing ran: 2 sessions, skipped (no flagd)",
        ),
        (
            [
                session(faulty(), status="invalid", reason="NO_TRAFFIC"),
                session(faulty(), status="error", blame="infrastructure"),
            ],
            "nothing was scored: 2 sessions ran, 1 invalid, 1 error (infrastructure); first: NO_TRAFFIC",
        ),
        (
            [session(faulty(), status="error", blame="user")],
            "nothing was scored: 1 session ran, 1 error (user); first: no reason was given",
        ),
        (
            [session(faulty(), status="error", blame="analyzer", reason="KeyError: 'x'")],
            "nothing was scored: 1 session ran, 1 error (analyzer); first: KeyError: 'x'",
        ),
        (
            [session(faulty(), status="scored")],  # a scored session without a verdict does not count
            "nothing was scored: 1 session ran, 1 scored without a verdict; first: no reason was given",
        ),
    ],
)
def test_a_run_without_scored_sessions_is_infrastructure(sessions, reason):
    lenient = GateSettings(max_unscored_ratio=1.0, max_analyzer_error_ratio=1.0)
    for settings in (None, lenient):
        result = run_gate(sessions, settings)
        assert (result.outcome, result.outcome.exit_code) == (GateOutcome.INFRASTRUCTURE, 12)
        assert result.reasons == (reason,)


def test_too_many_unscored_sessions_are_infrastructure_and_few_are_tolerated():
    broken = [session(faulty(f"b{i}"), status="error", blame="infrastructure") for i in range(50)]
    result = run_gate([*green(), *broken])
    assert (result.outcome, result.outcome.exit_code) == (GateOutcome.INFRASTRUCTURE, 12)
    assert result.reasons[0].startswith("50 of 210 sessions do not judge the analyzer")
    assert run_gate([*green(), *broken[:20]]).outcome is GateOutcome.PASS


def test_an_analyzer_that_crashes_fails_even_if_other_sessions_are_right():
    crashed = [session(faulty(f"b{i}"), status="error", blame="analyzer") for i in range(20)]
    result = run_gate([*green(), *crashed])
    assert result.outcome is GateOutcome.FAIL
    assert "failed in 20 of 180 sessions" in result.reasons[0]
    assert run_gate([*green(), *crashed[:4]]).outcome is GateOutcome.PASS


@pytest.mark.parametrize(
    "proof", [{"restored": False, "verified": True}, {"restored": True, "verified": False}]
)
def test_a_fault_that_may_still_be_on_takes_precedence(proof):
    left = solved("left", cleanup=Cleanup(**proof, detail="flagd is gone"))
    result = run_gate([*green(), left])
    assert result.outcome is GateOutcome.INFRASTRUCTURE
    assert "s-left-0 of left (flagd is gone)" in result.reasons[0]
    fine = solved("fine", cleanup=Cleanup(restored=True, verified=True))
    assert run_gate([*green(), fine]).outcome is GateOutcome.PASS


def test_thresholds_can_be_replaced_by_name():
    settings = GateSettings().with_thresholds({"top1": 0.5})
    assert {c.name: c.threshold for c in settings.criteria}["top1"] == 0.5
    with pytest.raises(ConfigurationError, match="did you mean 'top1'"):
        GateSettings().with_thresholds({"top11": 0.5})
    with pytest.raises(ConfigurationError, match="from 0 to 1"):
        GateSettings().with_thresholds({"top1": 75})


def test_a_criterion_needs_a_known_metric():
    with pytest.raises(ValidationError, match="did you mean 'top1'"):
        GateCriterion(name="top_1", direction=">=", threshold=0.5)
    assert set(MEASURES) >= {criterion.name for criterion in gates.DEFAULT_CRITERIA}
    assert GateCriterion(name="mrr", direction="<", threshold=0.1).target == "< 0.10"


def test_outcomes_have_different_exit_codes():
    assert {outcome.exit_code for outcome in GateOutcome} == {0, 2, 11, 12, 13}


# Below a millionth, scipy overflows.
@given(st.floats(1e-6, 1 - 1e-6) | st.sampled_from([0.0, 1.0]), st.integers(1, 80), criteria)
def test_operating_characteristic_sums_the_binomial_of_scipy(rate, n, criterion):
    found = operating_characteristic(rate, n, criterion)
    expected = dict.fromkeys(GateOutcome, 0.0)
    for k in range(n + 1):
        expected[decide(k, n, criterion)] += stats.binom.pmf(k, n, rate)
    assert found.passed == pytest.approx(expected[GateOutcome.PASS], abs=1e-8)
    assert found.failed == pytest.approx(expected[GateOutcome.FAIL], abs=1e-8)
    assert found.inconclusive == pytest.approx(expected[GateOutcome.INCONCLUSIVE], abs=1e-8)
    assert 0 <= found.flips <= 2 / 3 + 1e-9


def test_unchanged_good_code_rarely_fails():
    criterion = GateCriterion(name="top1", direction=">=", threshold=0.75)
    assert operating_characteristic(0.75, 100, criterion).failed < 0.03
    assert operating_characteristic(0.75, 100, criterion).passed < 0.03
    assert operating_characteristic(0.95, 100, criterion).passed > 0.99


@pytest.mark.parametrize(("rate", "n"), [(1.5, 10), (-0.1, 10), (0.5, 0)])
def test_impossible_rates_and_counts_are_rejected(rate, n):
    criterion = GateCriterion(name="top1", direction=">=", threshold=0.75)
    with pytest.raises(ValueError, match="give a rate from 0 to 1"):
        operating_characteristic(rate, n, criterion)


def of(analyzer, sessions):
    return [one.model_copy(update={"analyzer": analyzer}) for one in sessions]


def test_analyzers_are_gated_separately_and_the_worst_counts():
    good, bad = of("good", green()), of("bad", [ranked(f"fault-{i}", 4) for i in range(80)])
    few = of("few", [solved("fault-1"), control("quiet-1")])
    both = run_gate([*good, *of("other", green())])
    assert (both.outcome, both.reasons, both.criteria) == (GateOutcome.PASS, (), ())
    mixed = run_gate([*few, *good, *bad])
    assert mixed.outcome is GateOutcome.FAIL
    assert mixed.reasons[0] == "bad FAIL: root cause top-1: 0.00 [0.00, 0.05] n=80, target ≥ 0.75"
    assert all(reason.startswith("few INCONCLUSIVE: ") for reason in mixed.reasons[1:])
    assert len(mixed.reasons) == 4
    broken = of("broken", [session(faulty(), status="invalid", reason="NO_TRAFFIC")])
    assert run_gate([*mixed_in(good, bad), *broken]).outcome is GateOutcome.INFRASTRUCTURE
    # 80 right of one and 80 wrong of the other are not an analyzer with 0.5.
    assert run_gate(mixed_in(good, bad)).reasons[0].startswith("bad FAIL: root cause top-1: 0.00")


def mixed_in(*suites):
    return [one for suite in suites for one in suite]


def test_the_same_fault_with_other_expectations_is_another_scenario():
    def asked(i):
        one = solved("same")
        expectation = one.scenario.expectation.model_copy(update={"red_herrings": (f"service-{i}",)})
        return one.model_copy(
            update={"scenario": one.scenario.model_copy(update={"expectation": expectation})}
        )

    result = run_gate([*(asked(i) for i in range(40)), *(control(f"q{i}") for i in range(40))])
    assert result.outcome is GateOutcome.PASS
    one_more = run_gate([*(asked(0) for _ in range(40)), *(control(f"q{i}") for i in range(34))])
    assert one_more.reasons[0].endswith("n=1, target ≥ 0.90; 34 more scenarios needed at this rate")
    assert "1 more scenario needed" in " ".join(one_more.reasons)
