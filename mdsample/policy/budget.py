"""Budgets: selections that spend a stated error over the whole run of a row, however many steps it takes.

With b and d the bounds of a step's commits on KL and on total variation (`mdsample.core.bounds`):

| part | the prefix goes on while |
| --- | --- |
| `error-budget(total)` | Σb of the run <= `total` · share of the blanks filled |
| `tv-budget(total)` | d of the step <= |
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from mdsample.core.arrays import Bools, Ints, arange64
from mdsample.core.bounds import parallel_bounds, prefix_tv_bounds
from mdsample.core.tokens import Tokenizer
from mdsample.policy.base import Part
from mdsample.policy.selection import Selection
from mdsample.policy.settings import part, real
from mdsample.policy.stop import Budget
from mdsample.policy.view import Ranked, View, bounds, entropies


@final
@part
class ErrorBudget(Selection):
    """While the run's Σ b, b = ΣH − max H of a step, stays within `total` nats times the share of the blanks filled.

    So a run's `error_bound` is at most `total`, however many steps it takes: the error that is asked for is the error
    that is paid. What a step leaves unspent, later ones may spend. A stop rule that fills blanks from one look spends
    on top (`early-exit(γ)` at most γ). A rule of our own; `benchmarks/error_budget.py` compares its pacing with others.
    """

    name: ClassVar[str] = "error-budget"
    remembers: ClassVar[bool] = True
    total: float = real(at_least=0, values=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0))

    def count(self, view: View, ranked: Ranked) -> Ints:
        """The longest prefix that can be paid for."""
        batch = view.batch
        blanks = np.maximum(batch.initially_blank.sum(1), 1)[:, None]
        filled = blanks - batch.blank.sum(1)[:, None] + arange64(ranked.entropy.shape[1]) + 1
        # the sum is the one that the state will hold, bit for bit, so the promise is exact
        return ranked.leading(batch.error_bound[:, None] + bounds(ranked) <= self.total * (filled / blanks))


@final
@part
class TvBudget(Selection):
    """x."""

    name: ClassVar[str] = "tv-budget"
    remembers: ClassVar[bool] = True
    total: float = real(default=0.05, at_least=0, at_most=1, values=(0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.3))

    def count(self, view: View, ranked: Ranked) -> Ints:
        """The longest prefix that can be paid for."""
        batch = view.batch
        d = prefix_tv_bounds(entropies(ranked), ranked.confidence)
        left = np.maximum(batch.blank.sum(1), 1)[:, None]
        share = np.minimum((arange64(d.shape[1]) + 1) / left, 1.0)
        return ranked.leading(d <= (self.total - batch.tv_sum[:, None]) * share)

    def affords(self, view: View, row: Ints, position: Ints) -> Bools:
        """Whether what is left pays for it."""
        there = view.marginals.take(row, position)
        d = parallel_bounds(row, there.entropy, there.confidence, len(view.eligible))[1]
        return view.batch.tv_sum + d <= self.total
