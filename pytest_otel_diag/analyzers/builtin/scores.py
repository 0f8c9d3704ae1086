"""Scores the deviation of each key of each feature from quiet time, for all slots at once.

``z`` is the signed number of spreads (see :func:`robust_statistics.spread`). ``reference`` selects the quiet
columns. With columns 1.. as the reference, the incident is scored against quiet time; with all columns, all
slots including the incident are treated equally, so that the incident can be compared with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pytest_otel_diag.analyzers.builtin import robust_statistics
from pytest_otel_diag.analyzers.builtin.evidence.observations import Matrix, Metrics, pauses
from pytest_otel_diag.analyzers.builtin.robust_statistics import Floats
from pytest_otel_diag.analyzers.builtin.vocabulary import GOOD, meaning
from pytest_otel_diag.model.diagnosis import Signal

MIN_HERE, MIN_REFERENCE = 3, 10
"""Minimal numbers of observations in a slot and in the reference."""

TIME_FLOOR_MS = 1.0
"""One millisecond, less than the cost of a scheduler tick or a log line."""

SHARE_FLOOR, ERROR_FLOOR = 0.02, 0.01
"""Changes in the number of calls below 2 %, or of errors below 1 %, have no practical meaning."""

RATE_FLOOR = math.log(2.0) / robust_statistics.Z_FLOOR
"""Unit of the logarithm of traffic: twice the usual traffic is an ordinary peak hour and no deviation."""

METRIC_OWN, METRIC_PEERS = 0.25, 0.05
"""A metric must change by a quarter of its level and by 5 % of the largest value of all services: a pod that
idles at 0.1 % CPU may reach 0.5 %."""

PAUSED = {"s": 0.01, "ms": 10.0, "us": 1e4, "µs": 1e4, "ns": 1e7}
"""Pauses below 1 % of the time are irrelevant, by unit of the pauses."""

SURPRISE = 1.5
"""Factor from the likelihood-ratio root to spreads, so that rare events need a large change and a sufficient
number (z = 3 needs G at two standard deviations)."""


@dataclass(frozen=True)
class Scores:
    """Deviations of one kind by key (rows) and slot (columns); ``tested`` marks rows that could deviate."""

    z: Floats
    value: Floats
    centre: Floats
    unit: Floats
    freedom: int
    tested: NDArray[np.bool_]


def times(matrix: Matrix, reference: list[int], services: Sequence[str]) -> Scores:
    """Score medians of durations: (median here - median of quiet medians) / max(IQR + 1 ms, spread).

    The interquartile range within a slot measures effect size: a shift within the usual range of requests is
    not a finding, even if it is significant. Medians of few spans prove little, however far they are: if the
    rows of a service that deviate have fewer than about five spans together, z is at most 1.5 times the
    likelihood-ratio root of half of them (three quarters if the lower quartile deviates too), and none of the
    quiet ones, being that far. *services* are those of the rows.
    """
    between = robust_statistics.spread(matrix.mid[:, reference])
    within = matrix.high - matrix.low
    inner = robust_statistics.sorted_quantile(
        np.sort(within[:, reference], axis=1),
        np.isfinite(within[:, reference]).sum(axis=1).astype(float),
        0.5,
    )
    unit = np.fmax(np.nan_to_num(inner) + TIME_FLOOR_MS, between.unit)
    centre = between.centre[:, None]
    with np.errstate(invalid="ignore"):
        change = np.nan_to_num((matrix.mid - centre) / unit[:, None])
        lowest = np.nan_to_num((matrix.low - centre) / unit[:, None])
    far = np.abs(change) > robust_statistics.Z_FLOOR
    least = np.where(lowest > robust_statistics.Z_FLOOR, 0.75, 0.5) * matrix.counts
    hits = _by_service(np.where(far, least, 0.0), services)
    spans = _by_service(np.where(far, matrix.counts, 0.0), services)
    rest = _by_service(np.where(far, _elsewhere(matrix.counts, reference), 0.0), services)
    most = SURPRISE * robust_statistics.rate_deviance(hits, spans, np.zeros_like(rest), rest)
    few = most < robust_statistics.ALARM_SPREADS
    z = np.where(few, np.sign(change) * np.minimum(np.abs(change), most), change)
    enough = matrix.counts[:, reference].sum(axis=1) >= MIN_REFERENCE
    z = np.where((matrix.counts >= MIN_HERE) & enough[:, None], z, 0.0)
    return Scores(z, matrix.mid, between.centre, unit, len(reference) - 1, enough)


def _by_service(counts: Floats, services: Sequence[str]) -> Floats:
    """Return for each row the sum over the rows of its service."""
    _, index = np.unique(np.array(services, dtype=np.str_), return_inverse=True)
    sums = np.zeros_like(counts)
    np.add.at(sums, index, counts)
    result: Floats = sums[index]
    return result


def ratios(hits: Floats, trials: Floats, reference: list[int], floor: float = SHARE_FLOOR) -> Scores:
    """Score mean counts per trial (child calls per span, errors per span, next events per event).

    z = ±min(|x - median| / unit, 1.5 · |G| / √φ), 0 if the two differ in direction, with
    unit = max(spread, floor), G the likelihood-ratio root against all quiet slots and φ their overdispersion.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(trials > 0, hits / trials, np.nan)
    quiet = robust_statistics.spread(share[:, reference])
    unit = np.fmax(quiet.unit, floor)
    surprise = _surprise(hits, trials, reference)
    change = np.nan_to_num((share - np.nan_to_num(quiet.centre)[:, None]) / unit[:, None])
    z = _confirmed(change, surprise)
    enough = trials[:, reference].sum(axis=1) >= MIN_REFERENCE
    z = np.where((trials >= MIN_HERE) & (_elsewhere(trials, reference) >= MIN_REFERENCE), z, 0.0)
    return Scores(z, share, np.nan_to_num(quiet.centre), unit, len(reference) - 1, enough)


def loads(entries: Floats, seconds: Floats, reference: list[int]) -> Floats:
    """Return the relative traffic of each service: (k + 10) / (E + 10).

    k requests in the slot, E expected by the mean rate of the quiet slots; the 10 shrinks the ratio towards
    one for few requests.
    """
    rate = entries[:, reference].sum(axis=1) / np.maximum(seconds[reference].sum(), 1e-9)
    expected = rate[:, None] * seconds[None, :]
    ratio: Floats = (entries + MIN_REFERENCE) / (expected + MIN_REFERENCE)
    return ratio


def _confirmed(change: Floats, surprise: Floats) -> Floats:
    """Return the change in spreads as far as the surprise confirms it, 0 if that has the other direction.

    They differ in direction if quiet time has a sick stretch, which moves its mean but not its median.
    """
    direction = np.sign(change)
    limit = np.maximum(SURPRISE * surprise * direction, 0.0)
    confirmed: Floats = direction * np.minimum(np.abs(change), limit)
    return confirmed


def _elsewhere(counts: Floats, reference: list[int]) -> Floats:
    """Return the sum over the quiet slots except the slot itself."""
    own = np.zeros(counts.shape[1])
    own[reference] = 1.0
    rest: Floats = counts[:, reference].sum(axis=1)[:, None] - counts * own
    return rest


def _surprise(hits: Floats, trials: Floats, reference: list[int], *, bunched: bool = False) -> Floats:
    """Return the likelihood-ratio root of each slot against the other quiet slots, over its dispersion.

    *bunched* events occur several at a time (the items of an order): quantiles over rare bunches see only
    empty slots, so the mean of (k - E)² / E is used.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.nan_to_num(hits[:, reference].sum(axis=1) / trials[:, reference].sum(axis=1))
    expected = mean[:, None] * trials[:, reference]
    phi = robust_statistics.overdispersion(hits[:, reference], expected)
    if bunched:
        phi = np.maximum(phi, robust_statistics.dispersion(hits[:, reference], expected))
    deviance = robust_statistics.rate_deviance(
        hits, trials, _elsewhere(hits, reference), _elsewhere(trials, reference)
    )
    surprise: Floats = deviance / np.sqrt(phi)[:, None]
    return surprise


def rates(hits: Floats, seconds: Floats, reference: list[int]) -> Scores:
    """Score rates per second on a logarithmic scale, since traffic changes by factors.

    The spread of ln rate over quiet slots includes the sampling error of a slot (variance 1/k), which is
    smaller for a longer incident: unit² = max(0, spread² - 1.96²/k of a quiet slot) + 1.96²/k here, at least
    (ln 2 / 3)².
    """
    value = hits / np.maximum(seconds, 1e-9)[None, :]
    logs = np.log((hits + 0.5) / np.maximum(seconds, 1e-9)[None, :])
    logs[:, hits.sum(axis=0) == 0] = np.nan  # no data in these slots
    quiet = robust_statistics.spread(logs[:, reference])
    usual = hits[:, reference].mean(axis=1) if reference else np.zeros(len(hits))
    excess = np.maximum(quiet.unit**2 - 1.96**2 / (usual + 0.5), 0.0)
    unit = np.fmax(np.sqrt(excess[:, None] + 1.96**2 / (hits + 1.0)), RATE_FLOOR)
    enough = hits[:, reference].sum(axis=1) >= MIN_REFERENCE
    z = np.where(enough[:, None], np.nan_to_num((logs - quiet.centre[:, None]) / unit), 0.0)
    return Scores(z, value, np.exp(quiet.centre), unit[:, 0], len(reference) - 1, enough)


def levels(metrics: Metrics, reference: list[int], load: Floats | None = None) -> Scores:
    """Score metric series.

    z = (value - median of quiet slots) / unit, unit = max(spread, 25 % of the level, 5 % of the largest value
    of all services), larger with few quiet slots. Shares of success have a unit of 1 %, like errors; latency
    is not compared between services. Series that count events must also be significant, like other counts
    (see :func:`ratios`): one event instead of none is not a deviation. Whole-number levels that are usually
    zero have the unit 1, pauses a hundredth of the time.

    *load* is the relative traffic of each series (rows) in each slot (columns): the traffic explains values
    between the median and *load* times the median, so they are not deviations.
    """
    values, series = metrics.levels, metrics.keys
    quiet = robust_statistics.spread(values[:, reference])
    peaks = np.nan_to_num(np.abs(values[:, reference])).max(axis=1, initial=0.0)
    largest: dict[tuple[str, str], float] = {}
    for key, peak in zip(series, peaks, strict=True):
        largest[key.metric, key.attributes] = max(largest.get((key.metric, key.attributes), 0.0), float(peak))
    alone = [
        meaning(key.metric, key.unit)[0] is Signal.LATENCY or bool(GOOD.search(key.metric)) for key in series
    ]
    own = np.array([ERROR_FLOOR if GOOD.search(key.metric) else METRIC_OWN for key in series])
    peers = np.array([
        0.0 if own_scale else METRIC_PEERS * largest[key.metric, key.attributes]
        for key, own_scale in zip(series, alone, strict=True)
    ])  # fmt: skip
    unit = np.fmax(np.fmax(quiet.unit, own * np.abs(quiet.centre)), peers)
    unit = np.fmax(unit, [PAUSED.get(key.unit, 0.0) if pauses(key) else 0.0 for key in series])
    unit = np.fmax(unit, np.where(metrics.whole & (np.abs(quiet.centre) < 1.0), 1.0, 0.0))
    unit = unit * robust_statistics.few_slots(quiet.count)
    enough = quiet.count >= MIN_HERE
    centre = quiet.centre[:, None]
    moved = centre * load if load is not None else centre
    usual = np.clip(values, np.minimum(centre, moved), np.maximum(centre, moved))
    with np.errstate(invalid="ignore"):
        z = (values - usual) / np.maximum(np.nan_to_num(unit), 1e-9)[:, None]
    z = np.where(enough[:, None], np.nan_to_num(z), 0.0)
    counted: NDArray[np.bool_] = np.asarray(np.isfinite(metrics.hits).any(axis=1))
    exposure = np.nan_to_num(metrics.seconds) * (1.0 if load is None else load)
    surprise = _surprise(np.nan_to_num(metrics.hits), exposure, reference, bunched=True)
    z = np.where(counted[:, None], _confirmed(z, surprise), z)
    freedom = max(1, int(np.median(quiet.count)) - 1) if len(series) else 1
    return Scores(z, values, quiet.centre, unit, freedom, enough)
