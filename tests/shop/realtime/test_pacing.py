from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.shop.realtime.pacing import Pacer
from pytest_otel_diag.shop.records import Batch
from tests.support.shop_batches import SteadyModel

SECOND = 1_000_000_000


class Wall:
    """A wall clock that advances when a test waits on it, and by a fixed cost per reading."""

    def __init__(self, look_s: float = 0.0) -> None:
        self.now_s = 100.0
        self.look_s = look_s

    def __call__(self) -> float:
        self.now_s += self.look_s
        return self.now_s


class Stop(threading.Event):
    """An event whose waits advance only the fake wall clock; set once *stop_at_s* is reached."""

    def __init__(self, wall: Wall, stop_at_s: float | None = None) -> None:
        super().__init__()
        self.wall = wall
        self.stop_at_s = stop_at_s

    def wait(self, timeout: float | None = None) -> bool:
        self.wall.now_s += timeout or 0.0
        if self.stop_at_s is not None and self.wall.now_s >= self.stop_at_s:
            self.set()
        return self.is_set()


def ids(batches: list[Batch]) -> list[int]:
    return [int(span.span_id, 16) - 1 for batch in batches for span in batch.spans]


@given(
    st.floats(0.1, 50), st.floats(0.05, 20), st.sampled_from([0, SECOND // 2, 90 * SECOND]), st.floats(0, 0.3)
)
def test_the_model_is_never_ahead_and_each_record_is_taken_once(
    speed: float, duration_s: float, lag_ns: int, look_s: float
) -> None:
    wall = Wall(look_s)
    model = SteadyModel(start_ns=1_000 * SECOND, gap_ns=SECOND // 10, lag_ns=lag_ns)
    got: list[Batch] = []
    pacer = Pacer(model, got.append, monotonic=wall, stop=Stop(wall), speed=speed)

    def not_ahead() -> None:
        assert model.now_ns <= 1_000 * SECOND + (wall.now_s - 100.0) * speed * SECOND + 1

    pacer.run(duration_s, not_ahead)
    assert model.now_ns == 1_000 * SECOND + round(duration_s * SECOND)
    assert pacer.passed_s == pytest.approx(duration_s)
    assert ids(got) == list(range(len(ids(got))))
    assert len(ids(got)) == -(-round(duration_s * SECOND) // (SECOND // 10))
    assert all(
        step <= speed * SECOND // 10 + 1 for step in map(int.__sub__, model.advanced[1:], model.advanced[:-1])
    )


def test_only_visible_records_are_taken_before_the_end() -> None:
    wall = Wall()
    model = SteadyModel(start_ns=0, gap_ns=SECOND, lag_ns=2 * SECOND)
    at_each: list[tuple[float, int]] = []
    Pacer(
        model,
        lambda batch: at_each.extend((model.now_ns, record.exported_ns) for record in batch.spans),
        monotonic=wall,
        stop=Stop(wall),
    ).run(5)
    early = [(now, exported) for now, exported in at_each if exported > now]
    assert len(at_each) == 5
    assert [exported for _, exported in early] == [6 * SECOND]  # in flight at the end: flushed


def test_a_stop_ends_an_endless_run_with_everything_flushed() -> None:
    wall = Wall()
    model = SteadyModel(start_ns=0, gap_ns=SECOND, lag_ns=600 * SECOND)
    got: list[Batch] = []
    Pacer(model, got.append, monotonic=wall, stop=Stop(wall, stop_at_s=110.0)).run(None)
    assert 9 * SECOND <= model.now_ns <= 10 * SECOND
    assert len(ids(got)) == 10


def test_a_model_too_slow_for_its_speed_reports_its_lag() -> None:
    wall = Wall()

    class Slow(SteadyModel):
        def advance(self, until_ns: int) -> None:
            wall.now_s += 2 * (until_ns - self.now_ns) / SECOND  # two wall seconds per model second
            super().advance(until_ns)

    late: list[float] = []
    pacer = Pacer(Slow(0, SECOND), lambda _: None, monotonic=wall, stop=Stop(wall))
    pacer.run(10, lambda: late.append(pacer.behind_s))
    assert late[-1] == pytest.approx(10, abs=0.5)
    assert late == sorted(late)


def test_a_model_that_keeps_up_is_not_late() -> None:
    wall = Wall()
    pacer = Pacer(SteadyModel(0, SECOND), lambda _: None, monotonic=wall, stop=Stop(wall), speed=20)
    late: list[float] = []
    pacer.run(100, lambda: late.append(pacer.behind_s))
    assert max(late) <= 0.1 + 1e-9


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_an_invalid_speed_is_rejected(speed: float) -> None:
    with pytest.raises(ConfigurationError, match="is not a valid speed; give a number above 0"):
        Pacer(SteadyModel(0, 1), lambda _: None, monotonic=Wall(), stop=threading.Event(), speed=speed)
