"""Lines about a session that takes minutes."""

from pytest_otel_diag.cli.progress import phase_lines
from pytest_otel_diag.model.events import ImpactMeasured, PhaseStarted, SessionStarted, SessionWaiting
from pytest_otel_diag.model.session import Impact, ImpactReason, Phase

SECOND_NS = 1_000_000_000


def test_a_long_session_gets_lines_and_a_short_one_none() -> None:
    said: list[str] = []
    take = phase_lines("pay", said.append)

    def at(seconds: float) -> dict[str, object]:
        return {"session_id": "s", "at_ns": 1, "wall_ns": int(seconds * SECOND_NS)}

    take(SessionStarted(**at(100), scenario_id="pay", target="live", analyzer="none"))
    take(PhaseStarted(**at(101), phase=Phase.PREFLIGHT))
    take(SessionWaiting(**at(102), reason="the lease"))
    take(SessionWaiting(**at(103), reason=""))
    take(PhaseStarted(**at(120), phase=Phase.IMPACT))
    rare = Impact(reason=ImpactReason.TOO_RARE, detail="3 of 9\ncalls")
    for seconds in (121, 149, 150, 160):
        take(ImpactMeasured(**at(seconds), impact=rare))
    assert said == [
        "pay: waiting: the lease (2 s)",
        "pay: impact (20 s)",
        "pay: impact TOO_RARE 3 of 9 calls (50 s)",
    ]
