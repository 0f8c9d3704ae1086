"""Markers are signatures: every use is checked, and every mistake names the remedy."""

from types import SimpleNamespace

import pytest

from pytest_otel_diag.plugin.markers import (
    MARKERS,
    OtelExpect,
    OtelFlag,
    OtelTiming,
    parse,
    registration_lines,
)


def marks(*decorators: pytest.MarkDecorator) -> list[pytest.Mark]:
    return [decorator.mark for decorator in decorators]


def test_flags_are_repeatable_and_variants_optional() -> None:
    found, mistakes = parse(marks(pytest.mark.otel_flag("a"), pytest.mark.otel_flag("b", variant="50%")))
    assert found == [OtelFlag("a"), OtelFlag("b", "50%")]
    assert mistakes == []


def test_foreign_markers_are_left_alone() -> None:
    assert parse(marks(pytest.mark.usefixtures("x"), pytest.mark.parametrize("x", [1]))) == ([], [])


@pytest.mark.parametrize(
    ("mark", "sentence"),
    [
        (pytest.mark.otel_flag(), "missing 1 required positional argument: 'key'"),
        (pytest.mark.otel_flag("a", varint="on"), "unexpected keyword argument 'varint'"),
        (pytest.mark.otel_recorded("incident"), "did you mean 'incidents'?"),
        (pytest.mark.otel_expect(mechanism="cpu"), "belong to a root_cause"),
        (pytest.mark.otel_timing(observe_s=-1), "observe_s=-1: must be a number of seconds"),
        (pytest.mark.otel_timing(observe_s=True), "observe_s=True"),
        (pytest.mark.otel_timing(observe_s=float("nan")), "observe_s=nan"),
        (pytest.mark.otel_control("x"), "otel_control()"),
    ],
)
def test_a_mistake_names_the_value_and_the_signature(mark: pytest.MarkDecorator, sentence: str) -> None:
    found, mistakes = parse(marks(mark))
    assert found == []
    assert len(mistakes) == 1
    assert sentence in mistakes[0]


def test_an_unknown_otel_marker_gets_the_nearest_spelling() -> None:
    misspelt = SimpleNamespace(name="otel_flg", args=("a",), kwargs={})  # pytest.mark refuses to make it
    _, mistakes = parse([misspelt])
    assert "did you mean 'otel_flag'?" in mistakes[0]


def test_a_label_that_begins_like_a_marker_is_no_misspelling() -> None:
    names = ("otel_demo_3_0", "otel_flg")
    found, mistakes = parse([SimpleNamespace(name=name, args=(), kwargs={}) for name in names], names[:1])
    assert found == []
    assert [mistake.split()[0] for mistake in mistakes] == ["@pytest.mark.otel_flg"]


def test_registration_lines_show_the_signature() -> None:
    lines = dict(line.split(":", 1) for line in registration_lines() if ":" in line)
    assert len(list(registration_lines())) == len(MARKERS)
    assert any(line.startswith("otel_flag(key, variant=None") for line in registration_lines()), lines


def test_timing_and_expectation_keep_what_was_given() -> None:
    assert OtelTiming(observe_s=3).given() == {"observe_s": 3}
    assert OtelExpect(root_cause=("a", "b")).root_cause == ("a", "b")
