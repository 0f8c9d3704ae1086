"""The same seed is the same incident, in every process."""

from __future__ import annotations

import os
import subprocess
import sys

from pytest_otel_diag.shop.flag_provider import NoFlags
from pytest_otel_diag.shop.simulation import Shop
from pytest_otel_diag.shop.variation import Variation

_RUN = """
import hashlib, sys
from pytest_otel_diag.shop.flag_provider import NoFlags
from pytest_otel_diag.shop.simulation import Shop
from pytest_otel_diag.shop.variation import Variation
shop = Shop(Variation(seed=int(sys.argv[1])), NoFlags(), 0)
shop.advance(60 * 10**9)
spans = shop.take(60 * 10**9).spans
found = [f"{s.start_ns} {s.duration_ns} {s.trace_id} {s.span_id} {s.parent_id} {s.name}" for s in spans]
print(len(spans), hashlib.sha256("\\n".join(found).encode()).hexdigest())
"""


def _process(seed: int, hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(seed)], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_two_processes_with_one_seed_make_the_same_spans_with_the_same_ids():
    first = _process(7, "1")
    assert int(first.split()[0]) > 500
    assert _process(7, "2") == first
    assert _process(8, "1") != first


def test_a_shop_is_not_changed_by_one_that_ran_before_it_in_the_process():
    def spans() -> list[tuple[str, str, int]]:
        shop = Shop(Variation(seed=7), NoFlags(), 0)
        shop.advance(30 * 10**9)
        return [(each.trace_id, each.span_id, each.start_ns) for each in shop.take(30 * 10**9).spans]

    assert spans() == spans()
