"""Token classes on the device: log-masses and best tokens of each, and weights added to their tokens' scores."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import attrs
import numpy as np
import torch
from torch import Tensor

from mdsample.backend.fixed_point import float32_temperature
from mdsample.backend.folds import WIDTH, plan
from mdsample.backend.languages import Weights
from mdsample.core.arrays import Longs
from mdsample.core.language import Automaton
from mdsample_torch.device import upload


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

    def masses(self, scores: Tensor, t: float) -> Tensor:
        """Log Σ exp(score / t) of each class, `[n, C]`, up to a constant a place; `scores [n, W]`."""
        columns = self._columns(scores)
        if t != 1 and columns.shape[1]:
            columns = (columns - _finite(columns.amax(1, keepdim=True))) / float32_temperature(t)
        return self._spread(self._folded(columns, -torch.inf, _log_sums), -torch.inf)

    def tops(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest of each class's tokens with the highest score, and that score, `[n, C]`; `scores [n, W]`."""
        columns = self._columns(scores)
        best = self._spread(self._folded(columns, -torch.inf, lambda x: x.amax(2)), -torch.inf)
        last = len(self.classes)
        alike = _blocks(columns) == best.index_select(1, self.owner)[:, :, None]
        token = torch.where(alike, self.folds[0][0].view(-1, WIDTH), last).flatten(1)
        token.index_fill_(1, self.folds[0][1], last)
        return self._spread(self._folded(token, last, lambda x: x.amin(2)), 0), best

    def _columns(self, scores: Tensor) -> Tensor:
        """The scores of live tokens, class by class, in whole blocks."""
        take, empty = self.folds[0]
        return scores.index_select(1, take).index_fill_(1, empty, -torch.inf)

    def _folded(self, columns: Tensor, nothing: float, fold: Callable[[Tensor], Tensor]) -> Tensor:
        """One column for each class that has tokens; `fold` makes `[n, k]` of `[n, k, WIDTH]`."""
        columns = fold(_blocks(columns))
        for take, empty in self.folds[1:]:
            columns = columns.index_select(1, take).index_fill_(1, empty, nothing)
            columns = fold(_blocks(columns))
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


def _log_sums(blocks: Tensor) -> Tensor:
    """Log-sum-exp of each block, −inf of nothing."""
    peak = _finite(blocks.amax(2))
    return (blocks - peak[:, :, None]).exp_().sum(2).log_().add_(peak)


def _finite(peak: Tensor) -> Tensor:
    return torch.where(peak == -torch.inf, 0.0, peak)
