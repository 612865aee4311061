"""Budgets: selections that spend a stated error over the whole run of a row, however many steps it takes.

With b and d the bounds of a step's commits on KL and on total variation (`mdsample.core.bounds`):

| part | the prefix goes on while |
| --- | --- |
| `error-budget(total)` | Σb of the run <= `total` · share of the blanks filled |
| `tv-budget(total)` | d of the step <= √(share of the blanks left) · (`total` − Σd of the run) |
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from mdsample.core.arrays import Bools, Ints, arange64
from mdsample.core.bounds import parallel_bounds, prefix_tv_bounds
from mdsample.core.tokens import Tokenizer
from mdsample.policy.base import Part, part_text
from mdsample.policy.selection import Selection
from mdsample.policy.settings import part, real
from mdsample.policy.stop import Budget, Converged
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
    """At most `total` of the texts, by default 5 in 100, differ from decoding one at a time, by maximal coupling.

    That is a promise: the run's Σ d, d the bound on a step's total variation, stays within `total` on every path, and
    bounds how far the policy's law is from the model's own (`docs/bounds.md`). A step of n out of the m blanks left
    may spend √(n/m) of what is left, and all that ends it: what a stop rule fills on leaving is paid from the same
    purse, and a row that cannot pay goes on instead. It speaks of temperature 1, and of nothing where tokens are
    masked again. A rule of our own; `benchmarks/tv_budget.py` compares its pacing with others.
    """

    name: ClassVar[str] = "tv-budget"
    remembers: ClassVar[bool] = True
    total: float = real(default=0.05, at_least=0, at_most=1, values=(0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4))

    @property
    def promise(self) -> str:
        """For texts that are drawn."""
        return (
            f"At temperature 1 at most {100 * self.total:g} in 100 texts differ from decoding one at a time: both can "
            "be drawn together so that all others are the same (a maximal coupling). Of slots that hold a weighed "
            "language (regex, integer, number, date, a schema) nothing is promised."
        )

    def conflict(self, other: Part, tokenizer: Tokenizer) -> str:
        """A budget of passes fills at the end whatever that costs, and what has converged is filled as it is."""
        if isinstance(other, Budget | Converged):
            return (
                f"{part_text(other)} fills all that is left at once, {part_text(self)} no more than it can pay for; "
                "leave one of them out"
            )
        return ""

    def count(self, view: View, ranked: Ranked) -> Ints:
        """The longest prefix that can be paid for."""
        batch = view.batch
        d = prefix_tv_bounds(entropies(ranked), ranked.confidence)
        spent, left = batch.tv_sum[:, None], np.maximum(batch.blank.sum(1), 1)[:, None]
        share = np.sqrt(np.minimum((arange64(d.shape[1]) + 1) / left, 1.0))
        # the sum is the one that the state will hold, bit for bit, so the promise is exact
        return ranked.leading((d <= (self.total - spent) * share) & (spent + d <= self.total))

    def affords(self, view: View, row: Ints, position: Ints) -> Bools:
        """Whether what is left pays for it."""
        there = view.marginals.take(row, position)
        d = parallel_bounds(row, there.entropy, there.confidence, len(view.eligible))[1]
        return view.batch.tv_sum + d <= self.total
