"""Runs proofs in parallel processes, each with its own target, and yields the results in order."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import repeat
from multiprocessing.util import Finalize

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.ports import Target
from pytest_otel_diag.runs.runner import Runner, seeded_environment
from pytest_otel_diag.secret import SecretText
from pytest_otel_diag.selftest.proof import Proof, prove
from pytest_otel_diag.selftest.subjects import Subject


def proofs(subjects: Sequence[Subject], settings: Settings, workers: int) -> Iterator[Proof]:
    """Yield the proof of each subject, in their order; *workers* processes, none beside this one for 1.

    Raises ConfigurationError when the target of the settings cannot be opened.
    """
    if workers < 2 or len(subjects) < 2:
        with Runner(settings, worker="self-test") as runner:
            for subject in subjects:
                yield _proven(subject, runner.target, settings.seed)
        return
    context = multiprocessing.get_context("spawn")  # a store does not survive a fork
    with ProcessPoolExecutor(min(workers, len(subjects)), mp_context=context) as pool:
        yield from pool.map(_prove, subjects, repeat(replace(settings, sources={})))


def _proven(subject: Subject, target: Target, seed: int) -> Proof:
    scenario = subject.scenario
    if target.seeded:
        environment = seeded_environment(scenario, seed)
        scenario = scenario.model_copy(update={"environment": environment})
    return asyncio.run(prove(scenario, target, subject.residue))


def _prove(subject: Subject, settings: Settings) -> Proof:
    """Run in a process of the pool, on the one target it has."""
    return _proven(subject, _target(settings.target, settings.store, settings.cache), settings.seed)


@cache
def _target(spec: str, store: SecretText, cache_dir: str) -> Target:
    name = multiprocessing.current_process().name
    runner = Runner(Settings(target=spec, store=store, cache=cache_dir), worker=f"self-test-{name}")
    Finalize(None, runner.close, exitpriority=1)  # processes of a pool skip atexit
    return runner.target
