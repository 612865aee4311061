"""Token classes on the device: log-masses and best tokens of each, and weights added to their tokens' scores.

Lazy, like all that MLX computes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import attrs
import mlx.core as mx
import numpy as np

from mdsample.backend.fixed_point import float32_temperature
from mdsample.backend.folds import WIDTH, plan
from mdsample.backend.languages import Weights
from mdsample.core.arrays import Longs
from mdsample.core.language import Automaton
from mdsample_mlx.device import upload


@attrs.frozen(eq=False)
class ClassTable:
    """A language's classes on the device; see `mdsample.backend.folds`."""

    #: of each of W columns, `[W]` int32; those beyond the vocabulary are of class 0
    classes: mx.array
    #: of each step the columns that are taken, and which of these stand for nothing, bool
    folds: tuple[tuple[mx.array, mx.array], ...]
    #: where each class is among those that have tokens, behind them if it is not, `[C]` int32
    spread: mx.array
    owner: mx.array

    def masses(self, scores: mx.array, t: float) -> mx.array:
        """Log Σ exp(score / t) of each class, `[n, C]`, up to a constant a place; `scores [n, W]`."""
        columns = self._columns(scores)
        if t != 1 and columns.shape[1]:
            columns = (columns - _finite(columns.max(1, keepdims=True))) / float32_temperature(t)
        return self._spread(self._folded(columns, -mx.inf, _log_sums), -mx.inf)

    def tops(self, scores: mx.array) -> tuple[mx.array, mx.array]:
        """The lowest of each class's tokens with the highest score, and that score, `[n, C]`; `scores [n, W]`."""
        columns = self._columns(scores)
        best = self._spread(self._folded(columns, -mx.inf, lambda x: x.max(2)), -mx.inf)
        last = len(self.classes)
        take, empty = self.folds[0]
        alike = mx.unflatten(columns, 1, (-1, WIDTH)) == best[:, self.owner][:, :, None]
        token = mx.flatten(mx.where(alike, mx.unflatten(take, 0, (-1, WIDTH)), last), 1)
        token = mx.where(empty, last, token)
        return self._spread(self._folded(token, last, lambda x: x.min(2)), 0), best

    def _columns(self, scores: mx.array) -> mx.array:
        """The scores of live tokens, class by class, in whole blocks."""
        take, empty = self.folds[0]
        return mx.where(empty, -mx.inf, mx.take(scores, take, axis=1))

    def _folded(self, columns: mx.array, nothing: float, fold: Callable[[mx.array], mx.array]) -> mx.array:
        """One column for each class that has tokens; `fold` makes `[n, k]` of `[n, k, WIDTH]`."""
        columns = fold(mx.unflatten(columns, 1, (-1, WIDTH)))
        for take, empty in self.folds[1:]:
            columns = mx.where(empty, nothing, mx.take(columns, take, axis=1))
            columns = fold(mx.unflatten(columns, 1, (-1, WIDTH)))
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
    return ClassTable(upload(classes), tuple(folds), upload(spread), upload(steps.owner))


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


def _log_sums(blocks: mx.array) -> mx.array:
    """Log-sum-exp of each block, −inf of nothing."""
    peak = _finite(blocks.max(2))
    return mx.log(mx.exp(blocks - peak[:, :, None]).sum(2)) + peak


def _finite(peak: mx.array) -> mx.array:
    return mx.where(mx.isneginf(peak), 0.0, peak)
