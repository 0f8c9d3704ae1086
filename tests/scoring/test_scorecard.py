"""Aggregation to a scorecard: counted, ungated and unscored sessions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from pytest_otel_diag.model.scenario import Environment, Timing
from pytest_otel_diag.model.session import Cleanup, LeakAudit, QueryRecord
from pytest_otel_diag.model.verdict import Match, QueryVerdict, Verdict
from pytest_otel_diag.scoring.calibration import calibrate
from pytest_otel_diag.scoring.compare import compare_paired, mcnemar_exact
from pytest_otel_diag.scoring.gate_outcome import GateOutcome
from pytest_otel_diag.scoring.measures import MEASURES, take
from pytest_otel_diag.scoring.scorecard import Scorecard, build_scorecard
from tests.scoring.samples import control, faulty, ranked, session, solved

ranks = st.one_of(st.none(), st.integers(1, 8))


def judged(name="x", *, scenario=None, wall_s=2.0, queries=(), leaks=None, **verdict):
    given_verdict = Verdict(**({"fault_present": True, "detected": True} | verdict))
    return session(scenario or faulty(name), given_verdict, wall_s=wall_s, queries=queries, leaks=leaks)


def _asked(*signals):
    return tuple(QueryRecord(sql="", elapsed_s=0.1, rows=0, data_sources=(signal,)) for signal in signals)


@given(st.lists(ranks, min_size=1, max_size=30))
def test_rank_metrics_follow_their_definitions(found):
    card = build_scorecard([ranked(f"f{i}", rank) for i, rank in enumerate(found)])

    def at(k):
        return np.mean([rank is not None and rank <= k for rank in found])

    assert card.metric("top1").value == pytest.approx(at(1))
    assert card.metric("top3").value == pytest.approx(at(3))
    assert card.metric("avg5").value == pytest.approx(np.mean([at(k) for k in range(1, 6)]))
    assert card.metric("mrr").value == pytest.approx(np.mean([1 / rank if rank else 0 for rank in found]))
    low, high = proportion_confint(sum(rank == 1 for rank in found), len(found), method="wilson")
    assert card.metric("top1").low == pytest.approx(low, abs=1e-9)
    assert card.metric("top1").high == pytest.approx(high, abs=1e-9)
    assert card.metric("top1").n == len(found)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_detection_is_measured_on_faults_and_alarms_on_controls(outcomes):
    sessions = [
        ranked(f"f{i}", 1, detected=hit) if faulted else control(f"q{i}", alarm=hit)
        for i, (faulted, hit) in enumerate(outcomes)
    ]
    card = build_scorecard(sessions)
    faults = [hit for faulted, hit in outcomes if faulted]
    alarms = [hit for faulted, hit in outcomes if not faulted]
    for name, values in (("detection_sensitivity", faults), ("false_positive_rate", alarms)):
        metric = card.metric(name)
        assert metric.n == len(values)
        assert metric.value == (pytest.approx(np.mean(values)) if values else None)
    if faults:
        missed = card.metric("false_negative_rate").value
        assert missed == pytest.approx(1 - card.metric("detection_sensitivity").value)


def test_repeats_count_as_one_scenario():
    sessions = [ranked("flaky", 1 if r < 3 else 2, repeat=r) for r in range(4)] + [solved("steady")]
    card = build_scorecard(sessions)
    top1 = card.metric("top1")
    assert (top1.n, top1.sessions) == (2, 5)
    assert top1.value == pytest.approx((0.75 + 1.0) / 2)
    assert (card.scenarios, card.scored) == (2, 5)
    assert card.flips.scenarios == 1
    assert card.flips.unstable == 1.0
    assert card.flips.disagreement == pytest.approx(0.5)  # 3 of 6 pairs differ
    assert card.flips.unstable_scenarios == ("flaky",)


def test_the_same_scenario_on_another_target_is_another_unit():
    card = build_scorecard([solved("f", target="shop"), solved("f", target="live")])
    assert card.metric("top1").n == 2
    assert card.flips is None
    assert [(group.tag, group.value) for group in card.groups] == [("target", "live"), ("target", "shop")]


def test_other_expectations_or_timing_with_the_same_id_are_other_units():
    first = solved("same")
    others = [
        first.scenario.model_copy(update={"timing": Timing(observe_s=7.0)}),
        first.scenario.model_copy(update={"faults": ()}),
        faulty("same", "cart"),
    ]
    sessions = [first, *(ranked("same", 2).model_copy(update={"scenario": other}) for other in others)]
    card = build_scorecard(sessions)
    assert (card.scenarios, card.metric("top1").n, card.flips) == (4, 4, None)
    labelled = first.scenario.model_copy(update={"tags": (("owner", "me"),)})
    again = build_scorecard([*sessions, first.model_copy(update={"scenario": labelled, "repeat": 1})])
    assert (again.scenarios, again.flips.scenarios) == (4, 1)  # a label makes no other unit
    found = compare_paired(sessions, [first.model_copy(update={"analyzer": "other"})])
    assert (found.pairs, found.both, found.unpaired) == (1, 1, 3)


def test_metrics_are_never_computed_across_analyzers():
    good = [solved(f"f{i}", tags=(("system", "x"),)) for i in range(3)]
    bad = [ranked(f"f{i}", 2, analyzer="other") for i in range(3)]
    card = build_scorecard([*good, *bad])
    assert (card.analyzers, card.sessions, card.scored, card.metrics) == (("builtin", "other"), 6, 6, ())
    assert [(group.tag, group.value) for group in card.groups] == [
        ("analyzer", "builtin"),
        ("analyzer", "other"),
    ]
    assert [group.metric("top1").value for group in card.groups] == [1.0, 0.0]
    assert card.by_analyzer == (build_scorecard(good), build_scorecard(bad))
    assert card.gate.outcome == "FAIL"
    assert Scorecard.model_validate_json(card.model_dump_json()) == card


def test_constant_repeats_have_no_disagreement():
    card = build_scorecard([solved("f", repeat=r) for r in range(3)])
    assert (card.flips.unstable, card.flips.disagreement, card.flips.unstable_scenarios) == (0.0, 0.0, ())


def test_unscored_sessions_are_counted_with_their_reason_and_never_averaged():
    sessions = [
        solved("a"),
        session(faulty("b"), status="invalid", reason="NO_TRAFFIC"),
        session(faulty("c"), status="invalid", reason="NO_TRAFFIC"),
        session(faulty("d"), status="error", blame="analyzer", reason="KeyError: 'x'"),
        session(faulty("e"), status="skipped"),
        session(faulty("f"), status="scored"),
    ]
    card = build_scorecard(sessions)
    assert (card.sessions, card.scored, card.metric("top1").n, card.metric("top1").value) == (6, 1, 1, 1.0)
    assert card.statuses == {"scored": 2, "invalid": 2, "error": 1, "skipped": 1}
    found = [(item.status, item.count, item.reason, item.scenarios) for item in card.unscored]
    assert found == [
        ("invalid", 2, "NO_TRAFFIC", ("b", "c")),
        ("error", 1, "KeyError: 'x'", ("d",)),
        ("skipped", 1, "no reason was given", ("e",)),
        ("scored", 1, "no reason was given", ("f",)),
    ]
    assert sum(item.count for item in card.unscored) + card.scored == card.sessions


def test_an_empty_run_has_no_metrics_and_does_not_pass():
    card = build_scorecard([])
    assert all(metric.value is None and metric.n == 0 and metric.low is None for metric in card.metrics)
    assert card.gate.outcome == "INFRASTRUCTURE"
    assert (card.seconds, card.calibration, card.chance_top1, card.flips, card.groups) == (None,) * 4 + ((),)


def test_groups_by_every_tag():
    sessions = [
        solved("a", tags=(("system", "boutique"), ("fault_type", "cpu"), ("system", "boutique"))),
        ranked("b", 2, tags=(("system", "boutique"), ("fault_type", "network"))),
        control("q", tags=(("system", "train"),)),
    ]
    card = build_scorecard(sessions)
    groups = {(group.tag, group.value): group for group in card.groups}
    assert list(groups) == [
        ("fault_type", "cpu"),
        ("fault_type", "network"),
        ("system", "boutique"),
        ("system", "train"),
    ]
    boutique = groups["system", "boutique"]
    assert (boutique.sessions, boutique.scenarios, boutique.metric("top1").value) == (2, 2, 0.5)
    assert groups["system", "train"].metric("top1").value is None
    assert groups["system", "train"].metric("false_positive_rate").value == 0.0
    with pytest.raises(KeyError, match="no metric 'speed'; choose from detection_sensitivity"):
        boutique.metric("speed")


def test_misses_show_what_was_named_instead():
    sessions = [
        solved("right"),
        ranked("second", 2, tags=(("system", "x"),)),
        ranked("silent", None, detected=False),
        control("quiet"),
        control("alarm", alarm=True),
    ]
    misses = build_scorecard(sessions).misses
    assert [(miss.kind, miss.scenario_id, miss.rank) for miss in misses] == [
        ("wrong cause", "second", 2),
        ("not detected", "silent", None),
        ("false alarm", "alarm", None),
    ]
    assert misses[0].expected == ("payment",)
    assert misses[0].named == ("cart", "payment", "checkout")
    assert misses[0].tags == (("system", "x"),)
    assert (misses[2].expected, misses[2].named) == ((), ("cart",))
    undiagnosed = session(faulty(), Verdict(fault_present=True, detected=False))
    assert build_scorecard([undiagnosed]).misses[0].named == ()


def test_times_and_chance():
    sessions = [solved(f"f{i}", wall_s=float(i)) for i in (1, 2, 9)] + [control("q", wall_s=4.0)]
    sessions.append(
        judged("late", time_to_impact_s=30.0, time_to_diagnosis_s=5.0, wall_s=3.0, service_rank=1)
    )
    wrong = {"time_to_impact_s": 900.0, "time_to_diagnosis_s": 1.0}
    sessions.append(judged("wrong", wall_s=3.0, service_rank=2, **wrong))
    card = build_scorecard(sessions)
    assert (card.seconds.median, card.seconds.high, card.seconds.n) == (3.0, 9.0, 6)
    assert (card.seconds_to_impact.n, card.seconds_to_impact.high) == (2, 900.0)
    # A wrong diagnosis has no time to the right root cause.
    assert (card.seconds_to_root_cause.n, card.seconds_to_root_cause.high) == (4, 35.0)
    assert (card.metric("time_to_root_cause").n, card.metric("time_to_root_cause").value) == (4, 1.0)
    assert card.chance_top1 == pytest.approx(0.25)


def test_alternatives_raise_the_top1_of_a_random_guess():
    verdict = {"candidates": 4, "known_services": ("payment", "cart", "a", "b")}
    alternatives = judged(scenario=faulty("x", "payment", "PaymentService", "cart"), **verdict)
    assert build_scorecard([alternatives]).chance_top1 == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "fields", "value"),
    [
        ("operation_top1", {"expected_operation": True, "operation_rank": 1}, 1.0),
        ("operation_top1", {"operation_rank": 1}, None),
        ("mechanism_top1", {"expected_mechanism": True, "mechanism_rank": 2}, 0.0),
        ("mechanism_top1", {}, None),
        ("all_causes_named", {"causes_expected": 2, "causes_named": 2}, 1.0),
        ("all_causes_named", {"causes_expected": 2, "causes_named": 1}, 0.0),
        ("all_causes_named", {"causes_expected": 1, "causes_named": 1}, None),
        ("anomaly_recall", {"anomalies": (Match(expected="a", found="a"), Match(expected="b"))}, 0.5),
        ("anomaly_recall", {}, None),
        ("path_recall", {"paths": (Match(expected="a", found="a"),)}, 1.0),
        ("query_shows_culprit", {"query": QueryVerdict(executed=True, shows_culprit=True)}, 1.0),
        ("query_shows_culprit", {}, 0.0),
        ("query_shows_culprit", {"fault_present": False}, None),
        ("named_flag", {"named_flag": True}, 1.0),
        ("flag_in_telemetry", {"leaks": LeakAudit(rows={"flag_events": 2})}, 1.0),
        ("flag_in_telemetry", {"leaks": LeakAudit()}, 0.0),
        ("flag_in_telemetry", {}, None),
        ("flag_read", {"leaks": LeakAudit(queries_asked=1)}, 1.0),
        ("flag_read", {"leaks": LeakAudit(rows={"flag_events": 2})}, 0.0),
        ("flag_read", {}, None),
        ("red_herring_first", {"named_red_herring": "cart"}, None),
        ("unknown_services", {"unknown_services": ("x",), "known_services": ("a",)}, 1.0),
        ("unknown_services", {}, None),
        ("multi_source", {"data_sources": ("traces", "logs")}, 1.0),
        ("multi_source", {"data_sources": ("traces",)}, 0.0),
        ("irrelevant_queries", {"queries_total": 8, "queries_irrelevant": 2}, 0.25),
        ("irrelevant_queries", {}, None),
        ("few_irrelevant_queries", {"service_rank": 1, "queries_irrelevant": 4}, 1.0),
        ("few_irrelevant_queries", {"service_rank": 1, "queries_irrelevant": 5}, 0.0),
        ("few_irrelevant_queries", {"service_rank": 2}, None),
        ("solved_few_prompts", {"service_rank": 1, "human_prompts": 2}, 1.0),
        ("solved_few_prompts", {"service_rank": 1, "human_prompts": 3}, 0.0),
        ("solved_few_prompts", {"service_rank": 2}, 0.0),
        ("solved_few_prompts", {"fault_present": False}, None),
        ("full_cycle", {"wall_s": 300.0}, 1.0),
        ("full_cycle", {"wall_s": 301.0}, 0.0),
        (
            "time_to_root_cause",
            {"service_rank": 1, "time_to_impact_s": 500.0, "time_to_diagnosis_s": 101.0},
            0.0,
        ),
        ("time_to_root_cause", {"service_rank": 1, "time_to_diagnosis_s": 600.0}, 1.0),
        ("time_to_root_cause", {"service_rank": 2, "time_to_diagnosis_s": 1.0}, None),
        ("time_to_root_cause", {"time_to_diagnosis_s": 1.0}, None),
        ("time_to_root_cause", {"service_rank": 1}, None),
        (
            "multi_source",
            {"data_sources": ("metrics",), "queries": _asked("traces", "logs", "metrics")},
            None,
        ),
        ("multi_source", {"data_sources": ("metrics",), "queries": _asked("logs", "metrics")}, 0.0),
        ("multi_source", {"data_sources": (), "queries": _asked("traces", "logs", "metrics")}, 0.0),
        ("query_time", {"query": QueryVerdict(executed=True, elapsed_s=31.0)}, 0.0),
        ("query_time", {"query": QueryVerdict(executed=False)}, None),
        ("query_time", {"queries": (QueryRecord(sql="", elapsed_s=1.0, rows=0),)}, 1.0),
    ],
)
def test_readings_of_one_session(name, fields, value):
    assert take([judged(**fields)], MEASURES[name]).value == value


def test_red_herrings_and_flags_count_only_if_the_scenario_has_some():
    trap = judged(scenario=faulty("x", red_herrings=("cart",)), named_red_herring="cart")
    assert take([trap, judged("y")], MEASURES["red_herring_first"]).n == 1
    assert take([control("q")], MEASURES["named_flag"]).n == 0


def test_limits_come_from_the_criterion():
    assert take([judged(wall_s=2.0)], MEASURES["full_cycle"], limit=1.0).value == 0.0
    assert take([judged(wall_s=2.0)], MEASURES["full_cycle"]).limit == 300.0
    assert take([judged()], MEASURES["top1"]).limit is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_calibration_equals_brier_score_and_ece(pairs):
    sessions = [ranked(f"f{i}", 1 if right else 2, confidence=c) for i, (c, right) in enumerate(pairs)]
    found = calibrate([*sessions, control("q")])
    confidence = np.array([c for c, _ in pairs])
    right = np.array([r for _, r in pairs], dtype=float)
    assert found.n == len(pairs)
    assert found.brier == pytest.approx(np.mean((confidence - right) ** 2))
    index = np.minimum(9, (confidence * 10).astype(int))
    ece = sum(
        abs(confidence[index == b].mean() - right[index == b].mean()) * (index == b).mean()
        for b in set(index)
    )
    assert found.expected_error == pytest.approx(ece, abs=1e-9)
    assert sum(b.n for b in found.bins) == len(pairs)
    assert all(b.low <= b.mean_confidence + 1e-9 and b.mean_confidence <= b.high + 1e-9 for b in found.bins)


def test_controls_alone_have_no_calibration():
    assert calibrate([control("q")]) is None


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_that_of_statsmodels(b, c):
    expected = mcnemar([[3, b], [c, 4]], exact=True).pvalue
    assert mcnemar_exact(b, c) == pytest.approx(min(1.0, expected), abs=1e-9)


@given(st.integers(0, 5), st.integers(0, 5))
def test_fewer_than_six_discordant_pairs_never_reach_significance(b, c):
    if b + c < 6:
        assert mcnemar_exact(b, c) >= 0.05
    assert mcnemar_exact(6, 0) < 0.05


def test_pairs_are_scenarios_and_repeats_vote():
    first = [
        *(solved(f"both{i}") for i in range(3)),
        *(solved(f"one{i}") for i in range(7)),
        *(ranked("vote", 1 if r else 2, repeat=r) for r in range(3)),
        *(ranked("tie", 1 + r, repeat=r) for r in range(2)),
        solved("alone"),
        ranked("neither", 3),
        control("quiet"),
    ]
    second = [
        *(solved(f"both{i}") for i in range(3)),
        *(ranked(f"one{i}", 2) for i in range(7)),
        ranked("vote", 2),
        solved("tie"),
        ranked("neither", None),
        solved("other"),
    ]
    found = compare_paired(first, second)
    assert (found.both, found.only_first, found.only_second, found.neither) == (3, 8, 0, 1)
    assert (found.pairs, found.unpaired, found.undecided) == (12, 2, 1)
    assert found.cases_first[-1] == "vote"
    assert found.p_value == pytest.approx(2 * 0.5**8)
    assert found.note == "the first is better (exact McNemar p = 0.00781)"
    assert compare_paired(second, first).note.startswith("the second is better")
    assert "cannot reach" in compare_paired(first[:3], second[:3]).note


def test_no_difference_is_reported():
    first = [solved(f"a{i}") for i in range(4)] + [ranked(f"b{i}", 2) for i in range(4)]
    second = [ranked(f"a{i}", 2) for i in range(4)] + [solved(f"b{i}") for i in range(4)]
    assert compare_paired(first, second).note == "no difference shown (exact McNemar p = 1.000)"


def test_a_scorecard_survives_a_round_trip_through_json():
    card = build_scorecard(
        [solved("a", tags=(("system", "ä|<b>"),)), ranked("b", 2), control("q", alarm=True)]
    )
    again = Scorecard.model_validate_json(card.model_dump_json())
    assert again == card
    assert not any(math.isnan(metric.value) for metric in again.metrics if metric.value is not None)


def test_ungated_sessions_are_listed_but_do_not_count():
    def ungated(result):
        scenario = result.scenario.model_copy(update={"ungated": "nothing moves within the window"})
        return result.model_copy(update={"scenario": scenario})

    card = build_scorecard(
        [ranked("a", 1), ungated(ranked("leak", None, detected=False)), ungated(ranked("leak", 1))]
    )
    assert (card.sessions, card.scored, card.scenarios) == (3, 1, 1)
    assert card.metric("top1").n == card.metric("detection_sensitivity").n == 1
    assert [(u.scenario_id, u.sessions, u.scored, u.detected, u.top1) for u in card.ungated] == [
        ("leak", 2, 2, 1, 1)
    ]
    assert card.ungated[0].reason == "nothing moves within the window"
    assert not card.misses


def test_a_fault_left_on_by_an_ungated_session_prevents_pass():
    left = ranked("leak", 1)
    left = left.model_copy(
        update={
            "scenario": left.scenario.model_copy(update={"ungated": "rare"}),
            "cleanup": Cleanup(restored=False, verified=False),
        }
    )
    gate = build_scorecard([ranked("a", 1), left]).gate
    assert gate is not None
    assert gate.outcome is GateOutcome.INFRASTRUCTURE
    assert "a fault may still be on" in gate.reasons[0]


def test_a_scenario_in_another_environment_is_another_observation():
    def seeded(seed: int):
        result = ranked("a", 1)
        scenario = result.scenario.model_copy(update={"environment": Environment(seed=seed)})
        return result.model_copy(update={"scenario": scenario})

    assert build_scorecard([seeded(1), seeded(2), seeded(2)]).metric("top1").n == 2


def test_a_fault_left_on_as_requested_is_not_a_failed_undo_but_prevents_pass():
    asked = Cleanup(restored=False, verified=False, left_on=("leak=on",), detail="left on, as requested")
    gate = build_scorecard([ranked("a", 1).model_copy(update={"cleanup": asked})]).gate
    assert gate is not None
    assert gate.outcome is GateOutcome.INFRASTRUCTURE
    assert gate.reasons[0].startswith("a fault was left on as requested by 1 session, first ")
