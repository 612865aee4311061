"""Draws by inverse CDF in whole numbers; see `mdsample.backend.fixed_point`."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from mdsample.backend.fixed_point import UNIT, float32_temperature, share_of, split
from mdsample.policy.draw import Temperature
from mdsample_mlx.device import upload
from mdsample_mlx.reduce import first
from mdsample_mlx.weights import BLOCK


def inverse_cdf(below: mx.array, uniforms: mx.array, how: Temperature) -> mx.array:
    """The first token v with CDF(v) > u · CDF(last) at each of n places, `[n]` int32.

    `below [n, W]`: how far each score is below the highest, as `reduce` gives it; `uniforms [2, n]` int64 as `split`
    gives them.
    """
    place = mx.arange(len(below))
    scaled = below / float32_temperature(how.t)
    blocks = mx.unflatten(_amounts(scaled, how), 1, (-1, BLOCK))
    sums = blocks.sum(2)
    cdf = mx.cumsum(sums, axis=1)
    goal = share_of(uniforms, cdf[:, -1])
    block = first(cdf > goal[:, None])
    goal = goal - (cdf[place, block] - sums[place, block])
    return block * BLOCK + first(mx.cumsum(blocks[place, block], axis=1) > goal[:, None])


def cooled(scores: mx.array, how: Temperature) -> mx.array:
    """Scores `[n, W]` of the law that `how` draws from: divided by its temperature, −inf for what it cuts."""
    scaled = (scores - scores.max(1, keepdims=True)) / float32_temperature(how.t)
    scaled = mx.where(mx.isneginf(scores), -mx.inf, scaled)
    if how.min_p:
        scaled = mx.where(mx.exp(scaled) < how.min_p, -mx.inf, scaled)
    if how.top_k or how.top_p < 1:
        scaled = mx.where(_kept(scaled, _whole(scaled, Temperature(1.0)), how), scaled, -mx.inf)
    return scaled


def _amounts(scaled: mx.array, how: Temperature) -> mx.array:
    """Probabilities in units of 2⁻⁴⁰ of the highest, `[n, W]` int64, after top_k, min_p and top_p in this order."""
    amount = _whole(scaled, how)
    if how.top_k or how.top_p < 1:
        amount = mx.where(_kept(scaled, amount, how), amount, 0)
    return amount


def _whole(scaled: mx.array, how: Temperature) -> mx.array:
    weight = mx.exp(scaled)
    amount = (weight * UNIT).astype(mx.int64)
    # relative to the highest, which top_k keeps, so min_p may come first
    return mx.where(weight < how.min_p, 0, amount) if how.min_p else amount


def _kept(scaled: mx.array, amount: mx.array, how: Temperature) -> mx.array:
    """What top_k and top_p leave of `scaled [n, W]`, bool: the highest scores, among equals the lowest ids."""
    best = -mx.sort(-scaled, axis=1)
    ranked = _whole(best, how)
    kept = mx.ones(ranked.shape, mx.bool_)
    if how.top_k:
        kept = mx.broadcast_to(mx.arange(ranked.shape[1]) < how.top_k, ranked.shape)
        ranked = mx.where(kept, ranked, 0)
    if how.top_p < 1:
        total = ranked.sum(1) if how.top_k else amount.sum(1)
        goal = share_of(upload(split(np.full(1, how.top_p))), total)
        before = mx.cumsum(ranked, axis=1) - ranked
        # the highest is kept whatever the share
        kept = kept & ((before < goal[:, None]) | (mx.arange(ranked.shape[1]) == 0))
    edge = mx.take_along_axis(best, kept.sum(1, keepdims=True) - 1, axis=1)
    room = ((best == edge) & kept).sum(1, keepdims=True)
    equal = scaled == edge
    return (scaled > edge) | (equal & (mx.cumsum(equal.astype(mx.int32), axis=1) <= room))
