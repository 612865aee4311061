"""The vocabulary reduced away: top token, its log-probability, the second's and the entropy, in float32.

The same formulas and rules as `mdsample.backend.reference.prediction.reduce`. Lazy, like all that MLX computes.
"""

from __future__ import annotations

import attrs
import mlx.core as mx

from mdsample_mlx.weights import BLOCK

#: stands for −inf: its exponential is 0 and, unlike −inf, so is its product with 0
FLOOR = -1e30


@attrs.frozen(eq=False)
class Reduced:
    """Statistics of the conditional at n places, nats; all `[n]`."""

    #: the most probable token, the lowest id among equals, int32
    token: mx.array
    #: its log-probability; where the highest score is not finite, that score
    log_probability: mx.array
    #: the second most probable token's, −inf if only one is possible
    second: mx.array
    entropy: mx.array
    #: log of the sum of exp(below)
    log_total: mx.array
    #: how far each score is below the highest, `FLOOR` for what is forbidden, `[n, W]`
    below: mx.array

    def at(self, token: mx.array) -> mx.array:
        """Log-probabilities of one token at each place."""
        return mx.take_along_axis(self.below, token[:, None], axis=1)[:, 0] - self.log_total


def first(where: mx.array) -> mx.array:
    """The first true column of every row of `where [n, k]`, `[n]` int32; the last column if there is none."""
    last = where.shape[1] - 1
    # not argmax: that the lowest index wins among equals is promised nowhere
    return mx.where(where, mx.arange(last + 1), last).min(1)


def reduce(scores: mx.array) -> Reduced:
    """Statistics of `scores [n, W]` float32, −inf where forbidden; W is a multiple of `BLOCK`.

    The most probable token is left out of the sum and log1p puts it back, so that a log-probability of −1e−12 and an
    entropy of 1e−11 are told from 0.
    """
    peak = scores.max(1)
    # of equals any may be left out
    top = mx.argmax(scores, axis=1).astype(mx.int32)
    below = mx.maximum(scores - peak[:, None], FLOOR)
    others = mx.where(mx.arange(scores.shape[1]) == top[:, None], FLOOR, below)
    second = others.max(1)
    weight = mx.exp(others)
    rest = _sum(weight)
    log_total = mx.log1p(rest)
    mean = _sum(weight * others) / (1 + rest)
    # tokens whose scores differ may round to one log-probability, and equals are equals
    best = -log_total[:, None]
    return Reduced(
        first(below + best == best),
        mx.where(mx.isfinite(peak), -log_total, peak),
        mx.where(second <= FLOOR, -mx.inf, second - log_total),
        log_total - mean,
        log_total,
        below,
    )


def divergence(now: Reduced, before: Reduced) -> mx.array:
    """KL(now ‖ before) `[n]`, nats; +inf where a token is possible that was forbidden before."""
    widened = ((now.below > FLOOR) & (before.below <= FLOOR)).any(1)
    gap = _sum(mx.exp(now.below) * (now.below - before.below)) * mx.exp(-now.log_total)
    return mx.where(widened, mx.inf, mx.maximum(gap - now.log_total + before.log_total, 0))


def _sum(x: mx.array) -> mx.array:
    """Row sums of `x [n, W]`, `[n]`, block by block: one after the other, 100,000 float32 lose two digits."""
    return mx.unflatten(x, 1, (-1, BLOCK)).sum(2).sum(1)
