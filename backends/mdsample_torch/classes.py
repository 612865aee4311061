"""Token classes on the device: their sums and log-masses, and weights added to their tokens' scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import attrs
import numpy as np
import torch
from torch import Tensor

from mdsample.backend.fixed_point import float32_temperature
from mdsample.backend.folds import NARROW, WIDTH, plan
from mdsample.backend.languages import Weights
from mdsample.core.arrays import Longs
from mdsample.core.language import Automaton
from mdsample_torch.device import upload
from mdsample_torch.reduce import FLOOR

_LOG2E = math.log2(math.e)


@attrs.frozen(eq=False)
class ClassTable:
    """A language's classes on a device; see `mdsample.backend.folds`."""

    symbols: int
    #: of each of W columns, `[W]` int32; those beyond the vocabulary are of class 0
    classes: Tensor
    #: of each step the columns that are taken, and which of these stand for nothing
    folds: tuple[tuple[Tensor, Tensor], ...]
    present: Tensor
    owner: Tensor
    begin: Tensor

    def masses(self, scores: Tensor, t: float) -> Tensor:
        """Log Σ exp(score / t) of each class, `[n, C]`, up to a constant a place; `scores [n, W]`."""
        columns = self._columns(scores)
        if t != 1 and columns.shape[1]:
            columns = (columns - _finite(columns.amax(1, keepdim=True))) / float32_temperature(t)
        return self._spread(self._over_blocks(_log_sums(_blocks(columns)), -torch.inf, _log_sums), -torch.inf)

    def sums(self, scores: Tensor) -> Tensor:
        """What `mdsample.backend.sums` asks of `scores [n, W]`, `[n, 5, P]` int32 (token, and bits of float32).

        Of the P classes that have tokens, in the order of `present`.
        """
        columns = self._columns(scores)
        blocks = _blocks(columns)
        highest = blocks.amax(2)
        top = self._over_blocks(highest, -torch.inf, _most)
        # a class of which nothing may stand has no distances: −inf − −inf
        peak = _finite(top).index_select(1, self.owner)
        # not in place: where a class has one block only, that is its highest
        highest = (highest - peak).clamp_(min=FLOOR)
        blocks.sub_(peak[:, :, None])
        columns.clamp_(min=FLOOR)
        block = self._best_block(highest)
        own = _in_blocks(blocks, block)
        lane = torch.arange(WIDTH, dtype=torch.float32, device=columns.device)
        best = block * WIDTH + torch.where(own == 0, lane, WIDTH - 1.0).amin(2).to(torch.int64)
        columns.scatter_(1, best, FLOOR)
        second = self._over_blocks(highest.scatter(1, block, _in_blocks(blocks, block).amax(2)), FLOOR, _most)
        # on a CPU exp takes twice as long where numbers are this far apart, exp2 does not, and a third of the time
        weight = torch.mul(columns, _LOG2E).exp2_()
        rest = self._over_blocks(_blocks(weight).sum(2), 0.0, _total)
        mean = self._over_blocks(_blocks(weight.mul_(columns)).sum(2), 0.0, _total)
        token = self.folds[0][0].index_select(0, best.flatten()).view_as(best)
        second = torch.where(second <= FLOOR, -torch.inf, second)
        return torch.stack([token, *(x.view(torch.int32) for x in (top, second, rest, mean))], 1)

    def _best_block(self, highest: Tensor) -> Tensor:
        """The first block of each class that has its highest score, `[n, P]` int64; `highest [n, k]`: 0 in these."""
        count = highest.shape[1]
        # float32: a CPU takes whole numbers ten times as slowly, and these are small
        number = torch.arange(count, dtype=torch.float32, device=highest.device)
        block = self._over_blocks(torch.where(highest == 0, number, float(count)), float(count), _least)
        # of which nothing may stand: one of its own
        return torch.where(block == count, self.begin, block).to(torch.int64)

    def _columns(self, scores: Tensor) -> Tensor:
        """The scores of live tokens, class by class, in whole blocks."""
        take, empty = self.folds[0]
        return scores.index_select(1, take).index_fill_(1, empty, -torch.inf)

    def _over_blocks(self, columns: Tensor, nothing: float, fold: Callable[[Tensor], Tensor]) -> Tensor:
        """A column for each class with tokens, from one for each block; `fold` makes `[n, k]` of `[n, k, NARROW]`."""
        for take, empty in self.folds[1:]:
            columns = columns.index_select(1, take).index_fill_(1, empty, nothing)
            columns = fold(columns.view(len(columns), -1, NARROW))
        return columns

    def _spread(self, columns: Tensor, nothing: float) -> Tensor:
        """`[n, C]`."""
        out = torch.full((len(columns), self.symbols), nothing, dtype=columns.dtype, device=columns.device)
        return out.index_copy_(1, self.present, columns)


# a run has few languages, and a step asks for the same ones again
@lru_cache(maxsize=16)
def class_table(language: Automaton, width: int, device: torch.device) -> ClassTable:
    """A language's table for scores of `width` columns."""
    steps = plan(language)
    classes = np.zeros(width, np.int32)
    classes[: len(language.classes)] = language.classes
    return ClassTable(
        language.symbols,
        upload(classes, device),
        tuple((upload(fold.take, device), upload(fold.empty.astype(np.int64), device)) for fold in steps.folds),
        upload(steps.present.astype(np.int64), device),
        upload(steps.owner, device),
        upload(steps.begin, device),
    )


def weigh_(scores: Tensor, scratch: Tensor, weights: Weights, numbers: Longs) -> None:
    """Adds the weights at places `numbers [n]` to `scores [n, W]`; as much of `scratch` is overwritten."""
    for language, where, weight in weights.at(numbers):
        table = class_table(language, scores.shape[1], scores.device)
        own = scratch[: len(where)]
        torch.index_select(upload(weight.astype(np.float32), scores.device), 1, table.classes, out=own)
        if len(where) == len(scores):
            scores.add_(own)
        else:
            scores.index_add_(0, upload(where, scores.device), own)


def _blocks(columns: Tensor) -> Tensor:
    """`[n, k, WIDTH]`."""
    return columns.view(len(columns), -1, WIDTH)


def _in_blocks(blocks: Tensor, block: Tensor) -> Tensor:
    """One block for each class, `[n, P, WIDTH]`."""
    first = torch.arange(len(blocks), device=blocks.device)[:, None] * blocks.shape[1]
    found = blocks.flatten(0, 1).index_select(0, (first + block).flatten())
    return found.view(*block.shape, WIDTH)


def _most(blocks: Tensor) -> Tensor:
    return blocks.amax(2)


def _least(blocks: Tensor) -> Tensor:
    return blocks.amin(2)


def _total(blocks: Tensor) -> Tensor:
    return blocks.sum(2)


def _log_sums(blocks: Tensor) -> Tensor:
    """Log-sum-exp of each block, −inf of nothing."""
    peak = _finite(blocks.amax(2))
    return (blocks - peak[:, :, None]).exp_().sum(2).log_().add_(peak)


def _finite(peak: Tensor) -> Tensor:
    return torch.where(peak == -torch.inf, 0.0, peak)
