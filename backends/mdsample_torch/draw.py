"""Draws by inverse CDF in whole numbers; see `mdsample.backend.fixed_point`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mdsample.backend.fixed_point import UNIT, float32_temperature, share_of, split
from mdsample.policy.draw import Temperature
from mdsample_torch.device import upload
from mdsample_torch.reduce import first
from mdsample_torch.weights import BLOCK

#: so many of the highest scores are ranked first; if they do not decide what top_p leaves, eight times as many
_PEEK = 256


def inverse_cdf(below: Tensor, uniforms: Tensor, how: Temperature, scratch: Tensor) -> Tensor:
    """The first token v with CDF(v) > u · CDF(last) at each of n places, `[n]` int64.

    `below [n, W]`: how far each score is below the highest, as `reduce_` leaves it; `uniforms [2, n]` as `split` gives
    them; `scratch`, at least as large as `below`, is overwritten.
    """
    place = torch.arange(len(below), device=below.device)
    scaled = torch.div(below, float32_temperature(how.t), out=scratch[: len(below)])
    # nothing but a cut looks at them again
    weight = scaled.exp() if how.min_p or how.top_k or how.top_p < 1 else scaled.exp_()
    blocks = _amounts(weight, scaled, how).view(len(below), -1, BLOCK)
    sums = blocks.sum(2)
    cdf = sums.cumsum(1)
    goal = share_of(uniforms, cdf[:, -1])
    block = first(cdf > goal[:, None])
    goal = goal - (cdf[place, block] - sums[place, block])
    return block * BLOCK + first(blocks[place, block].cumsum(1) > goal[:, None])


def cooled(scores: Tensor, how: Temperature) -> Tensor:
    """Scores `[n, W]` of the law that `how` draws from: divided by its temperature, −inf for what it cuts."""
    scaled = (scores - scores.amax(1, keepdim=True)) / float32_temperature(how.t)
    scaled = torch.where(scores.isneginf(), -torch.inf, scaled)
    if how.min_p:
        scaled.masked_fill_(scaled.exp() < how.min_p, -torch.inf)
    if how.top_k or how.top_p < 1:
        scaled.masked_fill_(
            ~_kept(scaled, _amounts(scaled.exp(), scaled, Temperature(1.0, min_p=how.min_p)), how), -torch.inf
        )
    return scaled


def _amounts(weight: Tensor, scaled: Tensor, how: Temperature) -> Tensor:
    """Probabilities in units of 2⁻⁴⁰ of the highest, `[n, W]` int64, after top_k, min_p and top_p in this order.

    `weight`: of the highest, the exponential of `scaled`; it is overwritten.
    """
    if how.min_p:
        # relative to the highest, which top_k keeps, so it may come first
        weight.masked_fill_(weight < how.min_p, 0)
    amount = weight.mul_(UNIT).to(torch.int64)
    if how.top_k or how.top_p < 1:
        amount.masked_fill_(~_kept(scaled, amount, how), 0)
    return amount


def _kept(scaled: Tensor, amount: Tensor, how: Temperature) -> Tensor:
    """What top_k and top_p leave of `scaled [n, W]`, bool: the highest scores, among equals the lowest ids."""
    width = scaled.shape[1]
    # a CPU takes 20 times as long for all of them; elsewhere to ask whether a few were enough would wait for the device
    few = min(how.top_k or _PEEK, width) if scaled.device.type == "cpu" else width
    best, kept = _ranked(scaled, amount, how, few)
    while few < width and how.top_k == 0 and bool(kept[:, -1].any()):
        few = min(8 * few, width)
        best, kept = _ranked(scaled, amount, how, few)
    edge = best.gather(1, kept.sum(1, keepdim=True) - 1)
    room = ((best == edge) & kept).sum(1, keepdim=True)
    equal = scaled == edge
    return (scaled > edge) | (equal & (equal.cumsum(1) <= room))


def _ranked(scaled: Tensor, amount: Tensor, how: Temperature, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest scores, highest first, and whether each is kept as far as they tell, `[n, count]`."""
    best, order = scaled.topk(count) if count < scaled.shape[1] else scaled.sort(dim=1, descending=True)
    ranked = amount.gather(1, order)
    kept = torch.ones_like(ranked, dtype=torch.bool)
    if how.top_k:
        kept[:, how.top_k :] = False
        ranked = torch.where(kept, ranked, 0)
    if how.top_p < 1:
        total = ranked.sum(1) if how.top_k else amount.sum(1)
        share = upload(split(np.full(1, how.top_p)), scaled.device)
        goal = share_of(share.expand(-1, len(scaled)), total)
        kept[:, 1:] &= ranked.cumsum(1)[:, :-1] < goal[:, None]
    return best, kept
