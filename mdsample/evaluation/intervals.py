"""Intervals: means, shares and paired differences with 95 % confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Longs

#: two-sided 95 % of the normal distribution
Z = 1.959963984540054


@attrs.frozen
class Interval:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def share(successes: int, trials: int) -> Interval:
    """A proportion with Wilson's score interval."""
    return _wilson(successes / trials, trials)


def clustered_share(solved: Bools) -> Interval:
    """A proportion of `[problems, runs]`, several runs on the same problems, which are no independent trials.

    Wilson's interval with the effective number of trials: that of independent ones with the variance that is seen
    between problems, at least the problems and at most all runs (Dean and Pagano, Journal of Survey Statistics and
    Methodology 3, 2015). Of a single run it is `share`.
    """
    rates = solved.mean(1)
    p, variance = float(rates.mean()), float(rates.var())
    # problems that are all solved, or none, say nothing of how alike their runs are
    trials = len(rates) if p in (0, 1) else p * (1 - p) * len(rates) / max(variance, 1e-300)
    return _wilson(p, min(trials, solved.size))


def clustered_difference(solved: Bools, base: Bools) -> Interval:
    """A proportion minus another, both `[problems, runs]` on the same problems.

    Of a single run it is `paired_difference`; of several the same squares are added, with the correlation between the
    problems' shares (Zou and Donner, Statistics in Medicine 27, 2008).
    """
    if solved.shape[1] == base.shape[1] == 1:
        return paired_difference(solved[:, 0].tolist(), base[:, 0].tolist())
    a, b = solved.mean(1), base.mean(1)
    spread = float(a.std() * b.std())
    r = float(((a - a.mean()) * (b - b.mean())).mean()) / spread if spread else 0.0
    return _squares_added(clustered_share(solved), clustered_share(base), r)


def resamples(count: int, draws: int = 2000) -> Longs:
    """Which of `count` items each bootstrap draw takes, `[draws, count]`; the same ones at every call."""
    return np.random.default_rng(0).integers(0, count, (draws, count))


def _wilson(p: float, trials: float) -> Interval:
    z = Z * Z / trials
    centre, half = p + z / 2, math.sqrt(z * (p * (1 - p) + z / 4))
    # at the ends rounding must not push the limit past the proportion itself
    return Interval(p, min(p, max(0.0, (centre - half) / (1 + z))), max(p, min(1.0, (centre + half) / (1 + z))))


def mean(values: Sequence[float]) -> Interval:
    """A mean with its normal interval; of a single value the interval is the value."""
    x = np.asarray(values, np.float64)
    half = Z * float(x.std(ddof=1)) / math.sqrt(len(x)) if len(x) > 1 else 0.0
    return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half)


def paired_difference(solved: Sequence[bool], base: Sequence[bool]) -> Interval:
    """Share of `solved` minus share of `base`, item by item the same problems, with Newcombe's interval (method 10)."""
    a, b = np.asarray(solved, np.bool_), np.asarray(base, np.bool_)
    n = len(a)
    both, only_a, only_b, neither = (int(x.sum()) for x in (a & b, a & ~b, ~a & b, ~a & ~b))
    p, q = share(both + only_a, n), share(both + only_b, n)
    denominator = math.sqrt((both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither))
    odds = both * neither - only_a * only_b
    # the correlation of the two answers, corrected for continuity where it is positive
    phi = (max(0.0, odds - n / 2) if odds > 0 else odds) / denominator if denominator else 0.0
    return _squares_added(p, q, phi)


def _squares_added(p: Interval, q: Interval, correlation: float) -> Interval:
    """`p` minus `q` from the limits of each and how they vary together."""

    def reach(left: float, right: float) -> float:
        return math.sqrt(max(0.0, left * left - 2 * correlation * left * right + right * right))

    d = p.value - q.value
    return Interval(
        d,
        max(-1.0, d - reach(p.value - p.low, q.high - q.value)),
        min(1.0, d + reach(p.high - p.value, q.value - q.low)),
    )
