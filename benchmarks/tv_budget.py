"""What a promise of total variation costs: `tv-budget` against every other rule that can promise as much.

    python benchmarks/tv_budget.py

Prints the tables of docs/bounds.md, for a promise of at most 5 in 100 texts: exact laws of toys and random joints, then
the embedded models on their tasks' first problems. Everything comes from fixed seeds. About 15 minutes on one core, of
which one are the laws (`--limit 0` prints these alone).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, final

import attrs
import numpy as np
from common import bootstrap, command_line, interval, print_head, print_row, progress, resamples
from error_budget import JOINTS, SHARES, STRENGTHS, exactly

import mdsample
from mdsample import (
    AboveConfidence,
    BelowEntropy,
    CumulativeConfidence,
    EarlyExit,
    EntropyBound,
    ErrorBudget,
    Policy,
    Selection,
    Temperature,
    Top,
    TvBudget,
)
from mdsample.core.arrays import Bools, Doubles, Ints, arange64
from mdsample.core.bounds import parallel_bounds, prefix_tv_bounds
from mdsample.exact import RULES, TOYS, Point, Toy, at_equal_nfe, coupled, tv
from mdsample.exact.audit import settings
from mdsample.policy.order import Entropy, LeftToRight
from mdsample.policy.view import Ranked, View, entropies
from mdsample.policy.window import Whole
from mdsample.sampling.engine import fill
from mdsample.sampling.prepared import prepare
from mdsample.sampling.row import Row
from mdsample.sampling.sampler import Sampler
from mdsample.tasks.catalog import TASKS

#: texts of which at most these shares may differ
PROMISES = (0.05, 0.2)
VALUES = 16


@final
@attrs.frozen
class Capped(Selection):
    """The best rule of single steps: d of each at most `total` over the most steps of more than one blank there are."""

    name: ClassVar[str] = "capped"
    total: float

    def _cap(self, view: View) -> Doubles:
        return self.total / np.maximum(view.batch.initially_blank.sum(1) // 2, 1)

    def count(self, view: View, ranked: Ranked) -> Ints:
        return ranked.leading(prefix_tv_bounds(entropies(ranked), ranked.confidence) <= self._cap(view)[:, None])

    def affords(self, view: View, row: Ints, position: Ints) -> Bools:
        there = view.marginals.take(row, position)
        return parallel_bounds(row, there.entropy, there.confidence, len(view.eligible))[1] <= self._cap(view)


@final
@attrs.frozen
class Paced(Selection):
    """A purse of `total`, of which a prefix of n out of `left` blanks may take (n / left)^`power` of the rest.

    With `power` none: as much as the share of blanks filled has not yet taken, as `error-budget` does.
    """

    name: ClassVar[str] = "paced"
    remembers: ClassVar[bool] = True
    total: float
    power: float | None = attrs.field(kw_only=True)

    def count(self, view: View, ranked: Ranked) -> Ints:
        batch, d = view.batch, prefix_tv_bounds(entropies(ranked), ranked.confidence)
        left, n = np.maximum(batch.blank.sum(1), 1)[:, None], arange64(d.shape[1]) + 1
        spent, blanks = batch.tv_sum[:, None], np.maximum(batch.initially_blank.sum(1), 1)[:, None]
        if self.power is None:
            return ranked.leading(spent + d <= self.total * np.minimum((blanks - left + n) / blanks, 1.0))
        return ranked.leading(d <= (self.total - spent) * np.minimum(n / left, 1.0) ** self.power)


#: a rule with the setting that can promise `total` for rows of m blanks
RULE = Callable[[float, int], Selection]
PROMISED: dict[str, RULE] = {
    "`top(1)`": lambda total, m: Top(1),
    # Pinsker's inequality on the whole run, whose Σ b is at most so much
    "`below-entropy`": lambda total, m: BelowEntropy(2 * total**2 / (m - 1)),
    "`entropy-bound`": lambda total, m: EntropyBound(2 * total**2 / (m // 2)),
    "`error-budget`": lambda total, m: ErrorBudget(2 * total**2),
    # 1 − Πc of a step, and its sum over all blanks
    "`above-confidence`": lambda total, m: AboveConfidence(1 - total / m),
    "`cumulative-confidence`": lambda total, m: CumulativeConfidence(1 - total / (m // 2)),
    "d of a step": lambda total, m: Capped(total),
    "`tv-budget`": lambda total, m: TvBudget(total),
    "as blanks are filled": lambda total, m: Paced(total, power=None),
    "share of the rest": lambda total, m: Paced(total, power=1.0),
    "all of the rest": lambda total, m: Paced(total, power=0.0),
}
#: the worlds of one column
Worlds = dict[str, list[Toy]]


def worlds() -> Worlds:
    """Random joints of growing coupling, and toys."""
    joints = [coupled(s, seed=15350 + i, length=5, size=3) for s in STRENGTHS for i in range(JOINTS)]
    loose: list[Toy] = [toy for i, toy in enumerate(joints) if STRENGTHS[i // JOINTS] < 1]
    tight: list[Toy] = [toy for i, toy in enumerate(joints) if STRENGTHS[i // JOINTS] >= 1]
    names = ("product", "mixture", "markov", "hmm", "sudoku4", "nae-sat", "reasoning")
    return {"weak joints": loose, "strong joints": tight, **{name: [TOYS[name]()] for name in names}}


def equal_promise(on: Worlds) -> None:
    """Passes of every rule at one promise, and of it how much is true."""
    for total in PROMISES:
        print(f"\nA promise of {total:g}: passes, exact total variation\n")
        print_head(("rule", *on))
        for name, make in PROMISED.items():
            progress(f"{name} at {total:g} …")
            cells: list[str] = []
            for toys in on.values():
                laws = [exactly(make(total, int(toy.canvas().blank.sum())), toy) for toy in toys]
                distance = [tv(toy, found) for toy, found in zip(toys, laws, strict=True)]
                assert max(distance) <= total  # what is printed is a promise
                cells.append(f"{np.mean([found.expected_nfe for found in laws]):.2f}, {np.mean(distance):.3f}")
            print_row((name, *cells))


def equal_passes(on: Worlds) -> None:
    """Total variation at equal passes, against `entropy-bound`."""
    print("\nAt equal passes: total variation minus `entropy-bound`'s, hundredths\n")
    print_head(("rule", *on))
    published = {rule.name: rule for rule in RULES}
    sums = np.concatenate([np.geomspace(0.003, 0.3, VALUES // 2), np.linspace(0.35, 1.0, VALUES // 2)])
    rows: dict[str, list[str]] = {}
    for toys in on.values():
        progress("at equal passes …")
        found: list[dict[str, Doubles]] = []
        for toy in toys:
            nats = np.concatenate([np.geomspace(0.001, 1, VALUES // 2), np.linspace(1.5, 8, VALUES // 2)])
            swept: dict[str, list[Selection]] = {
                "`entropy-bound`": [EntropyBound(x) for x in settings(published["EB"], toy, values=VALUES)],
                "`below-entropy`": [BelowEntropy(x) for x in settings(published["MED"], toy, values=VALUES)],
                "`error-budget`": [ErrorBudget(float(x)) for x in nats],
                "`tv-budget`": [TvBudget(float(x)) for x in sums],
            }
            points: list[Point] = []
            for name, selections in swept.items():
                for selection in selections:
                    law = exactly(selection, toy)
                    points.append(Point(name, "", law.expected_nfe, 0.0, tv(toy, law)))
            blanks = int(toy.canvas().blank.sum())
            fewest = max(min(p.expected_nfe for p in points if p.rule == name) for name in swept)
            found.append(at_equal_nfe(points, np.maximum(fewest, 1 + SHARES * (blanks - 1)), of="tv"))
        for name in found[0]:
            more = 100 * np.array([np.mean(one[name] - one["`entropy-bound`"]) for one in found])
            rows.setdefault(name, []).append(f"{more.mean():+.1f}")
    for name, cells in rows.items():
        print_row((name, *cells))


def on_models(limit: int) -> None:
    """Passes, Σ d and accuracy on the embedded models, at temperature 1, of which the promise speaks."""
    total = PROMISES[0]
    print(f"\nA promise of {total:g} on models, the first {limit} problems at temperature 1\n")
    heads = ("passes", "times `tv-budget`'s", "Σ d, mean", "Σ d, most", "solved, %")
    print_head(("model", "order", "rule", *heads), text=3)
    free, exits = Policy.of(Entropy()), Entropy() + EarlyExit()
    per_step, purses = (
        ("`cumulative-confidence`", "d of a step"),
        ("`tv-budget`", "share of the rest", "all of the rest"),
    )
    rows = (
        ("tiny-gsm", "tiny-gsm", "entropy", free, (*purses, "as blanks are filled", *per_step, "`above-confidence`")),
        ("tiny-gsm", "tiny-gsm", "left to right", Policy.of(LeftToRight()), (purses[0], *per_step)),
        ("tiny-gsm", "tiny-gsm", "entropy, early exit", exits, (purses[0], per_step[1])),
        ("tiny-sudoku", "sudoku", "entropy, whole", Whole() + Entropy(), tuple(PROMISED)[1:]),
    )
    for name, task, words, order, rules in rows:
        model, problems = mdsample.load(name, backend="reference"), TASKS[task].read()[:limit]
        template = mdsample.Template.parse(TASKS[task].template)
        prepared = [prepare(model, template, p.id, p.texts, p.given) for p in problems]
        blanks = max(sum(one.blank) for one in prepared)
        base: Doubles | None = None
        for rule in dict.fromkeys(("`tv-budget`", *rules)):
            progress(f"{rule}, {words}, on {name} …")
            policy = order + PROMISED[rule](total, blanks) + Temperature(1.0)
            found: dict[int | str, Row] = {
                row.id: row for row in fill(Sampler(policy), model, template.slots, prepared, batch_size=64)
            }
            done = [found[problem.id] for problem in problems]
            passes, spent = np.array([float(row.nfe) for row in done]), np.array([row.tv_bound for row in done])
            base = passes if base is None else base
            draw = resamples(limit)
            ratio = interval(passes.mean() / base.mean(), passes[draw].mean(1) / base[draw].mean(1))
            right = bootstrap(100 * np.array([TASKS[task].correct(*pair) for pair in zip(done, problems, strict=True)]))
            cells = (f"{passes.mean():.1f}", f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]")
            solved = f"{right.value:.0f} [{right.low:.0f}, {right.high:.0f}]"
            print_row((name, words, rule, *cells, f"{spent.mean():.3f}", f"{spent.max():.3f}", solved))


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--limit", type=int, default=24, help="problems of each task")
    options = parser.parse_args()
    on = worlds()
    equal_promise(on)
    equal_passes(on)
    if options.limit:
        on_models(options.limit)


if __name__ == "__main__":
    main()
