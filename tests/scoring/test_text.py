"""Tables that stay aligned whatever the text."""

from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.scoring.text import cell_width, clip, one_line, pad, table


@given(st.text(max_size=60), st.integers(1, 30))
def test_clipped_text_fits_and_keeps_its_ends(text, width):
    found = clip(text, width)
    line = one_line(text)
    assert cell_width(found) <= width
    if cell_width(line) <= width:
        assert found == line
        return
    if "…" not in line:
        ends = found.split("…")
        assert line.startswith(ends[0])
        assert line.endswith(ends[1])
        assert " " not in line or ends[1] == ""


def test_names_lose_their_middle_and_prose_its_end():
    assert clip("control-boutique-20220822T0542", 13) == "contro…2T0542"
    assert clip("the queue of payment is full", 13) == "the queue of…"
    assert clip("ab", 1) == "…"


@given(st.text(max_size=60))
def test_one_line_has_no_control_characters(text):
    found = one_line(text)
    assert len(found.splitlines()) <= 1
    assert found.isprintable()
    assert found == one_line(found)


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(st.lists(st.text(max_size=80), min_size=n, max_size=n), max_size=8)
    ),
    st.integers(60, 120),
)
def test_tables_fit_the_width(rows, width):
    lines = table(rows, width=width)
    assert len(lines) == len(rows)
    assert all(cell_width(line) <= width for line in lines)


def test_columns_line_up_in_terminal_columns():
    assert table([["界", "1"], ["e\u0301", "20"]], header=["name", "n"], right=[1]) == [
        "  name   n",
        "  界     1",
        "  e\u0301     20",
    ]
    assert pad("ab", 4, right=True) == "  ab"
    assert table([]) == []


def test_the_widest_column_is_cut_first():
    lines = table([["short", "x" * 300]], width=30)
    assert lines == ["  short  " + "x" * 10 + "…" + "x" * 10]


def test_kept_columns_are_cut_last():
    row = ["a" * 40, "b" * 30]
    assert table([row], width=60, keep=[0]) == [f"  {'a' * 40}  {'b' * 8}…{'b' * 7}"]
    assert table([row], width=30, keep=[0]) == [f"  {'a' * 11}…{'a' * 10}  bb…b"]
    assert table([["a" * 9] * 8], width=20) == ["  " + "  ".join(["aa…a"] * 8)]  # too narrow for anything
