"""Proofs in parallel processes: each has a target of its own, and the results come back in order."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache

from pytest_otel_diag import composition
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.ports import Target
from pytest_otel_diag.selftest.proof import Proof, prove
from pytest_otel_diag.selftest.subjects import Subject


def proofs(subjects: Sequence[Subject], settings: Settings, workers: int) -> Iterator[Proof]:
    """Yield the proof of each subject, in their order; *workers* processes, none beside this one for 1.

    Raises ConfigurationError when the target of the settings cannot be opened.
    """
    jobs = [_Job(subject, settings) for subject in subjects]
    if workers < 2 or len(jobs) < 2:
        yield from map(_prove, jobs)
        return
    context = multiprocessing.get_context("spawn")  # a store does not survive a fork
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        yield from pool.map(_prove, jobs)


class _Job:
    """What travels to a process; everything in it can be pickled."""

    def __init__(self, subject: Subject, settings: Settings) -> None:
        self.subject = subject
        self.target = settings.target
        self.seed = settings.seed
        self.store = settings.store
        self.cache = settings.cache


def _prove(job: _Job) -> Proof:
    target = _target(job.target, job.store, job.cache)
    scenario = job.subject.scenario
    if target.seeded:
        environment = composition.environment_of(scenario, job.seed)
        scenario = scenario.model_copy(update={"environment": environment})
    return asyncio.run(prove(scenario, target, job.subject.residue))


@cache
def _target(spec: str, store: str, cache_dir: str) -> Target:
    name = multiprocessing.current_process().name
    return composition.open_target(Settings(target=spec, store=store, cache=cache_dir), f"self-test-{name}")
