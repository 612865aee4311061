"""Token classes on the device: their sums and log-masses, and weights added to their tokens' scores.

Lazy, like all that MLX computes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import attrs
import mlx.core as mx
import numpy as np

from mdsample.backend.fixed_point import float32_temperature
from mdsample.backend.folds import NARROW, WIDTH, plan
from mdsample.backend.languages import Weights
from mdsample.core.arrays import Longs
from mdsample.core.language import Automaton
from mdsample_mlx.device import upload
from mdsample_mlx.reduce import FLOOR


@attrs.frozen(eq=False)
class ClassTable:
    """A language's classes on the device; see `mdsample.backend.folds`."""

    #: of each of W columns, `[W]` int32; those beyond the vocabulary are of class 0
    classes: mx.array
    #: of each step the columns that are taken, and which of these stand for nothing, bool
    folds: tuple[tuple[mx.array, mx.array], ...]
    #: where each class is among those that have tokens, behind them if it is not, `[C]` int32
    spread: mx.array
    #: of each block, which of these classes it belongs to; of each of these its first block
    owner: mx.array
    begin: mx.array

    def masses(self, scores: mx.array, t: float) -> mx.array:
        """Log Σ exp(score / t) of each class, `[n, C]`, up to a constant a place; `scores [n, W]`."""
        columns = self._columns(scores)
        if t != 1 and columns.shape[1]:
            columns = (columns - _finite(columns.max(1, keepdims=True))) / float32_temperature(t)
        return self._spread(self._over_blocks(_log_sums(_blocks(columns)), -mx.inf, _log_sums), -mx.inf)

    def sums(self, scores: mx.array) -> mx.array:
        """What `mdsample.backend.sums` asks of `scores [n, W]`, `[n, 5, P]` int32 (token, and bits of float32).

        Of the P classes that have tokens, ascending.
        """
        blocks = _blocks(self._columns(scores))
        highest = blocks.max(2)
        top = self._over_blocks(highest, -mx.inf, _most)
        # a class of which nothing may stand has no distances: −inf − −inf
        peak = _finite(top)[:, self.owner]
        highest = mx.maximum(highest - peak, FLOOR)
        below = mx.maximum(blocks - peak[:, :, None], FLOOR)
        best = self._first(below, highest)
        column = mx.unflatten(mx.arange(below.shape[1] * WIDTH), 0, (-1, WIDTH))
        others = mx.where(column == best[:, self.owner][:, :, None], FLOOR, below)
        second = self._over_blocks(others.max(2), FLOOR, _most)
        weight = mx.exp(others)
        rest = self._over_blocks(weight.sum(2), 0.0, _total)
        mean = self._over_blocks((weight * others).sum(2), 0.0, _total)
        token = mx.take(self.folds[0][0], best)
        second = mx.where(second <= FLOOR, -mx.inf, second)
        return mx.stack([token, *(x.view(mx.int32) for x in (top, second, rest, mean))], axis=1)

    def _first(self, blocks: mx.array, highest: mx.array) -> mx.array:
        """The first column of each class that is 0, `[n, P]` int32; `highest [n, k]` of the `blocks [n, k, WIDTH]`."""
        count = highest.shape[1]
        block = self._over_blocks(mx.where(highest == 0, mx.arange(count), count), count, _least)
        # of which nothing may stand: one of its own
        block = mx.where(block == count, self.begin, block)
        own = mx.take_along_axis(blocks, block[:, :, None], axis=1)
        return block * WIDTH + mx.where(own == 0, mx.arange(WIDTH), WIDTH - 1).min(2)

    def _columns(self, scores: mx.array) -> mx.array:
        """The scores of live tokens, class by class, in whole blocks."""
        take, empty = self.folds[0]
        return mx.where(empty, -mx.inf, mx.take(scores, take, axis=1))

    def _over_blocks(self, columns: mx.array, nothing: float, fold: Callable[[mx.array], mx.array]) -> mx.array:
        """A column for each class with tokens, from one for each block; `fold` makes `[n, k]` of `[n, k, NARROW]`."""
        for take, empty in self.folds[1:]:
            columns = mx.where(empty, nothing, mx.take(columns, take, axis=1))
            columns = fold(mx.unflatten(columns, 1, (-1, NARROW)))
        return columns

    def _spread(self, columns: mx.array, nothing: float) -> mx.array:
        """`[n, C]`."""
        nowhere = mx.full((len(columns), 1), nothing, columns.dtype)
        return mx.take(mx.concatenate([columns, nowhere], axis=1), self.spread, axis=1)


# a run has few languages, and a step asks for the same ones again
@lru_cache(maxsize=16)
def class_table(language: Automaton, width: int) -> ClassTable:
    """A language's table for scores of `width` columns."""
    steps = plan(language)
    classes = np.zeros(width, np.int32)
    classes[: len(language.classes)] = language.classes
    spread = np.full(language.symbols, len(steps.present), np.int32)
    spread[steps.present] = np.arange(len(steps.present))
    folds: list[tuple[mx.array, mx.array]] = []
    for fold in steps.folds:
        empty = np.zeros(len(fold.take), np.bool_)
        empty[fold.empty] = True
        folds.append((upload(fold.take), upload(empty)))
    return ClassTable(upload(classes), tuple(folds), upload(spread), upload(steps.owner), upload(steps.begin))


def weighed(scores: mx.array, weights: Weights, numbers: Longs) -> mx.array:
    """`scores [n, W]` with the weights at places `numbers [n]` added."""
    for language, where, weight in weights.at(numbers):
        table = class_table(language, scores.shape[1])
        added = mx.take(upload(weight.astype(np.float32)), table.classes, axis=1)
        if len(where) < len(scores):
            line = np.full(len(scores), len(where), np.int32)
            line[where] = np.arange(len(where))
            added = mx.concatenate([added, mx.zeros((1, added.shape[1]))])[upload(line)]
        scores = scores + added
    return scores


def _blocks(columns: mx.array) -> mx.array:
    """`[n, k, WIDTH]`."""
    return mx.unflatten(columns, 1, (-1, WIDTH))


def _most(blocks: mx.array) -> mx.array:
    return blocks.max(2)


def _least(blocks: mx.array) -> mx.array:
    return blocks.min(2)


def _total(blocks: mx.array) -> mx.array:
    return blocks.sum(2)


def _log_sums(blocks: mx.array) -> mx.array:
    """Log-sum-exp of each block, −inf of nothing."""
    peak = _finite(blocks.max(2))
    return mx.log(mx.exp(blocks - peak[:, :, None]).sum(2)) + peak


def _finite(peak: mx.array) -> mx.array:
    return mx.where(mx.isneginf(peak), 0.0, peak)
