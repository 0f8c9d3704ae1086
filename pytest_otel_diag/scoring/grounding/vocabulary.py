"""The English words by which figures in texts are recognised."""

from __future__ import annotations

from pytest_otel_diag.model.diagnosis import Measure
from pytest_otel_diag.scoring.grounding.sentences import TIME
from pytest_otel_diag.scoring.grounding.written import Bound


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TO_MS = {
    **dict.fromkeys(_words("ns nanoseconds"), 1e-6),
    **dict.fromkeys(_words("us µs μs microseconds"), 1e-3),
    **dict.fromkeys(_words("ms msec millisecond milliseconds"), 1.0),
    **dict.fromkeys(_words("s sec secs second seconds"), 1e3),
}
"""Unit of a duration → milliseconds."""

PERCENT = _words("% percent")
UNITS = frozenset(TO_MS) | PERCENT
QUANTILES: dict[str, Measure] = {"p50": "p50_ms", "median": "p50_ms", "p95": "p95_ms", "p99": "p99_ms"}
CALLS = _words("call calls request requests span spans invocation invocations rpcs")
PLAIN = _words(
    """of the its all in to by server client incoming outgoing inbound outbound total rpc grpc http service
    - – . / '"""
)
"""Words before ``calls`` that leave it all of them."""

LINES = _words("line lines records entries messages")
FAIL = _words("fail fails failed failing failure failures error errors errored erroring")
NOT_FAIL = _words(
    """success successful successfully succeed succeeded succeeds succeeding available availability not no
    without never neither nor cpu memory heap disk latency confidence confident probability likely
    likelihood sure certain certainty traffic budget slo retried retries recovered"""
)
"""Words that make it another share than that of failed calls."""

RESTRICTING = _words(
    """since after between last first per each every minute minutes hour hours second bucket buckets slot
    slots pod instance user users when while until sampled among unique distinct these those peak
    peaks peaked peaking max maximum spike spiked worst average mean avg min minimum trace example sample"""
) | {TIME}
"""Words with which a statement may be about some of the calls only."""

RESTRICTING_AFTER = _words("where with whose that which because by at for from via through like such itself")
"""Words with which it may be, where they stand behind the number."""

CHANGED = _words(
    """more less higher lower increase decrease faster slower drop points point fewer times growth reduction
    above below"""
)
MOVES = _words("to up down rose rise rises increased fell dropped went jumped climbed grew changed moved")
BOUNDS: dict[str, Bound] = {
    **dict.fromkeys(_words("about around approximately roughly circa nearly almost approx ~ ≈"), "about"),
    **dict.fromkeys(_words("over above exceeding exceeds exceeded > ≥"), "least"),
    **dict.fromkeys(_words("under below < ≤"), "most"),
}
BOUNDS_OF_TWO: dict[tuple[str, str], Bound] = {
    ("more", "than"): "least",
    ("higher", "than"): "least",
    ("greater", "than"): "least",
    ("at", "least"): "least",
    ("less", "than"): "most",
    ("fewer", "than"): "most",
    ("lower", "than"): "most",
    ("at", "most"): "most",
    ("up", "to"): "most",
}
BASELINE = _words("baseline")
QUIET = _words("before normal normally usual usually previously earlier quiet healthy prior reference")
INCIDENT = _words("incident now")
CONNECTIVES = _words("against vs versus than compared instead from to → and but while whereas , ( ) :")
