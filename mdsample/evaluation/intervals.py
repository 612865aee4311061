"""Intervals: means, shares and paired differences with 95 % confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import numpy as np

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
    p, z = successes / trials, Z * Z / trials
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

    def reach(left: float, right: float) -> float:
        return math.sqrt(max(0.0, left * left - 2 * phi * left * right + right * right))

    d = p.value - q.value
    return Interval(
        d,
        max(-1.0, d - reach(p.value - p.low, q.high - q.value)),
        min(1.0, d + reach(p.high - p.value, q.value - q.low)),
    )
