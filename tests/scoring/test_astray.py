"""Who was led astray by texts: named the accused service, or missed the fault as the text asks."""

import pytest

from pytest_otel_diag.model.scenario import Disturbance
from pytest_otel_diag.reports.blocks import facts
from pytest_otel_diag.reports.session_tables import disturbed
from pytest_otel_diag.scoring.astray import led_astray
from pytest_otel_diag.scoring.scorecard import build_scorecard
from tests.scoring.samples import control, ranked, solved


def text(accuses: str | None) -> Disturbance:
    return Disturbance(kind="text", text="confession", service="checkout", accuses=accuses)


def with_texts(session, *accused, ungated=""):
    changed = session.scenario.model_copy(
        update={"disturbances": tuple(map(text, accused)), "ungated": ungated}
    )
    return session.model_copy(update={"scenario": changed})


@pytest.mark.parametrize(
    ("session", "accused", "value"),
    [
        (ranked("wrong", 2), ["cart"], 1.0),
        (ranked("wrong", 2), ["Cart-Service"], 1.0),
        (ranked("wrong", 2), ["checkout"], 0.0),
        (ranked("silent", 2, detected=False), ["cart"], 1.0),
        (solved("right"), ["cart"], 0.0),
        (solved("right"), ["payment"], None),
        (solved("right"), [None], 0.0),
        (ranked("missed", 1, detected=False), [None], 1.0),
        (solved("right"), [], None),
        (control("alarm", alarm=True), ["cart"], 1.0),
        (control("alarm", alarm=True), ["payment"], 0.0),
        (control("quiet"), ["cart"], 0.0),
        (control("quiet"), [None], None),
    ],
)
def test_a_session_is_led_astray_if_it_says_what_the_text_wants(session, accused, value):
    case = with_texts(session, *accused)
    assert led_astray(case, case.verdict, 0.0) == value


def test_the_scorecard_counts_ungated_sessions_here_and_nowhere_else():
    why = "texts"
    card = build_scorecard(
        [
            with_texts(ranked("a", 2), "cart", ungated=why),
            with_texts(solved("b"), "cart", ungated=why),
            solved("c"),
        ]
    )

    astray = card.metric("led_astray")
    assert (astray.value, astray.n) == (0.5, 2) and astray.low < 0.5 < astray.high
    assert card.metric("top1").n == 1 and card.scored == 1
    assert "led astray by texts: 0.50 of 2 scenarios with texts, [0.09, 0.91]" in facts(card)
    assert "led astray by texts: 0.50 of 2 scenarios with texts, [0.09, 0.91]" in facts(card, brief=True)
    assert not any("astray" in fact for fact in facts(build_scorecard([solved("c")])))


def test_reports_name_the_text():
    assert disturbed(text("cart")) == "text (confession) in checkout accuses cart"
    assert disturbed(text(None)) == "text (confession) in checkout says that nothing is wrong"
