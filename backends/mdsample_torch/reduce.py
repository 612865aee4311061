"""The vocabulary reduced away: top token, its log-probability, the second's and the entropy, in float32.

The same formulas and rules as `reduce` of the reference backend, in as few passes over the logits as torch can.
Columns are taken in blocks: a maximum is quick to find and its place is not, so it is looked for in one block only.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from mdsample_torch.weights import BLOCK

#: stands for −inf: its exponential is 0 and, unlike −inf, so is its product with 0
FLOOR = -1e30


@attrs.frozen(eq=False)
class Reduced:
    """Statistics of the conditional at n places, nats; all `[n]`."""

    #: the most probable token, the lowest id among equals, int64
    token: Tensor
    #: its log-probability; where the highest score is not finite, that score
    log_probability: Tensor
    #: the second most probable token's, −inf if only one is possible
    second: Tensor
    entropy: Tensor
    #: log of the sum of exp(below)
    log_total: Tensor

    def at(self, below: Tensor, token: Tensor) -> Tensor:
        """Log-probabilities of one token at each place; `below` as `reduce_` leaves it."""
        return below.gather(1, token[:, None])[:, 0] - self.log_total


def first(where: Tensor) -> Tensor:
    """The first true column of every row of `where [n, k]`, `[n]` int64; the last column if there is none."""
    last = where.shape[1] - 1
    # not argmax: among equals it may give any on some devices
    columns = torch.arange(last + 1, dtype=torch.int32, device=where.device)
    return torch.where(where, columns, last).amin(1).to(torch.int64)


def reduce_(scores: Tensor, scratch: Tensor) -> Reduced:
    """Statistics of `scores [n, W]` float32, −inf where forbidden; leaves in it how far each is below the highest.

    The most probable token is left out of the sum and log1p puts it back, so that a log-probability of −1e-12 and an
    entropy of 1e-11 are told from 0. W is a multiple of `BLOCK`. Forbidden tokens are left at `FLOOR`. `scratch`,
    at least as large as `scores`, is overwritten: on a CPU fresh memory costs more than what is computed in it. What is
    left in `scores` may be reduced again, also with more tokens forbidden.
    """
    place = torch.arange(len(scores), device=scores.device)
    blocks = scores.view(len(scores), -1, BLOCK)
    highest = blocks.amax(2)
    peak = highest.amax(1)
    block = first(highest == peak[:, None])
    inside = first(blocks[place, block] == peak[:, None])
    top = block * BLOCK + inside
    scores.sub_(peak[:, None]).clamp_(min=FLOOR)
    scores[place, top] = FLOOR
    highest = (highest - peak[:, None]).clamp_(min=FLOOR)
    highest[place, block] = blocks[place, block].amax(1)
    second = highest.amax(1)
    weight = torch.exp(scores, out=scratch[: len(scores)])
    rest = weight.sum(1)
    log_total = rest.log1p()
    mean = weight.mul_(scores).sum(1) / (1 + rest)
    scores[place, top] = 0
    highest[place, block] = 0
    # tokens whose scores differ may round to one log-probability, and equals are equals: hence once more
    best = -log_total[:, None]
    block = first(highest + best == best)
    token = block * BLOCK + first(blocks[place, block] + best == best)
    usable = peak.isfinite() & (peak > FLOOR)
    return Reduced(
        token,
        torch.where(usable, -log_total, torch.where(peak == FLOOR, -torch.inf, peak)),
        torch.where(second <= FLOOR, -torch.inf, second - log_total),
        log_total - mean,
        log_total,
    )


def divergence_(scores: Tensor, scratch: Tensor, before: Tensor, spare: Tensor) -> Tensor:
    """KL(softmax of `scores` ‖ softmax of `before`) `[n]`, nats; arguments as two of `reduce_`, all overwritten.

    +inf where a token is possible that was forbidden before.
    """
    now, old = reduce_(scores, scratch), reduce_(before, spare)
    widened = ((scores > FLOOR) & (before <= FLOOR)).any(1)
    weight = torch.exp(scores, out=scratch[: len(scores)])
    weight.mul_(scores.sub_(before))
    gap = weight.sum(1) * (-now.log_total).exp() - now.log_total + old.log_total
    return torch.where(widened, torch.inf, gap.clamp(min=0))
