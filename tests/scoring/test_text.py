"""Tables stay aligned for any text."""

from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.scoring.text import cell_width, clip, count, one_line, pad, table, wrapped


@given(st.text(max_size=60), st.integers(1, 30))
def test_clipped_text_fits(text, width):
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


def test_the_widest_column_is_shortened_first():
    lines = table([["short", "x" * 300]], width=30)
    assert lines == ["  short  " + "x" * 10 + "…" + "x" * 10]


def test_headers_are_shortened_last():
    row = ["a" * 40, "b" * 30]
    shown = table([row], header=["first", "a long header"], width=30)
    assert shown == ["  first          a long header", f"  {'a' * 6}…{'a' * 6}  {'b' * 6}…{'b' * 6}"]
    assert table([["1", "x"]], header=["n" * 30, "m"], width=20) == [
        f"  {'n' * 7}…{'n' * 7}  m",
        f"  1{' ' * 14}  x",
    ]
    assert table([["a" * 9] * 8], width=20) == ["  " + "  ".join(["aa…a"] * 8)]  # too narrow for anything


def test_prose_wraps_beside_or_below_its_row_and_is_never_shortened():
    prose = "one two three four five six"
    assert table([["a", prose]], width=20, wrap=True) == ["  a  one two three\n     four five six"]
    rows = [["1", "name-of-a-service", prose], ["2", "x", "short"]]
    assert table(rows, header=["#", "who", "why"], width=30, wrap=True) == [
        "  #  who                why",
        "  1  name-of-a-service\n      one two three four five\n      six",
        "  2  x\n      short",
    ]
    assert table([["a", "b"]], width=20, wrap=True) == ["  a  b"]
    assert table([["a" * 30, ""]], width=20, wrap=True) == [f"  {'a' * 8}…{'a' * 7}"]


@given(st.lists(st.tuples(st.text(max_size=60), st.text(max_size=300)), max_size=5), st.integers(40, 100))
def test_wrapped_prose_is_complete_and_fits(rows, width):
    shown = table([list(row) for row in rows], width=width, wrap=True)
    assert len(shown) == len(rows)
    assert all(cell_width(line) <= width for text in shown for line in text.split("\n"))
    for (_, prose), text in zip(rows, shown, strict=True):
        assert "".join(one_line(prose).split()) in "".join(text.split())


@given(st.text(max_size=200), st.integers(1, 40))
def test_wrapping_keeps_every_character(text, width):
    lines = wrapped(text, width)
    assert "".join(lines).replace(" ", "") == one_line(text).replace(" ", "")
    assert all(cell_width(line) <= max(width, 2) for line in lines)
    assert all(lines) or lines == [""]


def test_counts_of_one_are_singular():
    assert [count(n, "session") for n in (0, 1, 2)] == ["0 sessions", "1 session", "2 sessions"]
    assert [count(n, "query", "queries") for n in (1, 2)] == ["1 query", "2 queries"]
