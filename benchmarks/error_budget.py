"""How should a run's error budget be paced? EB's bound per step against budgets for the whole run, by exact laws.

    python benchmarks/error_budget.py

Prints the tables of docs/exact-study.md. Everything but the joints is exact, and they come from fixed seeds. About two
minutes on one core.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, final

import attrs
import numpy as np
from common import command_line, print_head, print_row, progress

from mdsample import BelowEntropy, EntropyBound, ErrorBudget, Selection, Temperature, Whole
from mdsample.core.arrays import Doubles, Ints, arange64
from mdsample.exact import RULES, TOYS, Law, Point, Toy, at_equal_nfe, coupled, kl, law
from mdsample.exact.audit import settings
from mdsample.policy.order import Entropy
from mdsample.policy.view import Ranked, View, bounds

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
#: joints per strength, five positions of three tokens each
JOINTS = 4
#: where rules are compared, from everything at once (0) to one at a time (1)
SHARES = np.linspace(0.05, 0.95, 19)
#: nats that a run may spend, where the cost of a guarantee is compared
TOTALS = (0.1, 0.3, 1.0)
VALUES = 32


@final
@attrs.frozen
class Paced(Selection):
    """A budget of `total` nats, of which a prefix of n out of `left` blanks may take (n / left)^`power` of the rest."""

    name: ClassVar[str] = "paced"
    remembers: ClassVar[bool] = True
    total: float
    power: float = attrs.field(kw_only=True)

    def count(self, view: View, ranked: Ranked) -> Ints:
        left = np.maximum(view.batch.blank.sum(1), 1)[:, None]
        share = np.minimum((arange64(ranked.entropy.shape[1]) + 1) / left, 1.0) ** self.power
        return ranked.leading(bounds(ranked) <= (self.total - view.batch.error_bound[:, None]) * share)


RULE = Callable[[float], Selection]
BUDGETS: dict[str, RULE] = {
    "error-budget": ErrorBudget,
    "share of the rest": lambda total: Paced(total, power=1.0),
    "root of the share": lambda total: Paced(total, power=0.5),
    "all of the rest": lambda total: Paced(total, power=0.0),
}
STEPWISE = ("entropy-bound", "below-entropy")
NAMES = (*STEPWISE, *BUDGETS)


def exactly(selection: Selection, toy: Toy) -> Law:
    return law(Whole() + Entropy() + selection + Temperature(1.0), toy)


def compared(toy: Toy) -> tuple[Doubles, Doubles]:
    """KL of each rule at equal expected NFE, `[rule, share]`; NFE, KL and Σ b of a guarantee, `[rule, total, 3]`."""
    blanks = int(toy.canvas().blank.sum())
    most = blanks * math.log(toy.size)
    totals = np.concatenate([np.geomspace(0.01, most, VALUES // 3), np.linspace(0.05, most, 2 * VALUES // 3)])
    eb, med = (next(rule for rule in RULES if rule.name == name) for name in ("EB", "MED"))
    swept: dict[str, list[Selection]] = {
        "entropy-bound": [EntropyBound(x) for x in settings(eb, toy, values=VALUES)],
        "below-entropy": [BelowEntropy(x) for x in settings(med, toy, values=VALUES)],
    }
    swept |= {name: [make(float(total)) for total in totals] for name, make in BUDGETS.items()}
    points: list[Point] = []
    for name, selections in swept.items():
        for selection in selections:
            found = exactly(selection, toy)
            points.append(Point(name, str(selection), found.expected_nfe, kl(toy, found), 0.0))
    reached = at_equal_nfe(points, 1 + SHARES * (blanks - 1))
    # a bound per step guarantees a total only if it holds for the most steps of more than one blank that there can be;
    # a bound per blank, only if it holds for all blanks but the one that a step has free
    promises: list[RULE] = [
        lambda total: EntropyBound(total / (blanks // 2)),
        lambda total: BelowEntropy(total / (blanks - 1)),
        *BUDGETS.values(),
    ]
    cost = [[paid(exactly(make(total), toy), toy) for total in TOTALS] for make in promises]
    return np.array([reached[name] for name in NAMES]), np.array(cost)


def paid(found: Law, toy: Toy) -> tuple[float, float, float]:
    """Expected NFE, and in nats KL and its bound, E Σ b over the joint's visits."""
    return found.expected_nfe, kl(toy, found), found.kl_bound


def table(title: str, worlds: list[Toy]) -> None:
    progress(f"laws of {title} …")
    curves, cost = (np.array(found) for found in zip(*map(compared, worlds), strict=True))
    more = 1000 * (curves - curves[:, :1]).mean(2)
    print(f"{title}; at a guarantee of T nats: NFE, and KL of at most Σ b, both mnat\n")
    print_head(("selection", "KL minus EB's, mnat", *(f"T = {total:g}" for total in TOTALS)))
    for i, name in enumerate(NAMES):
        error = f" ± {2 * more[:, i].std(ddof=1) / math.sqrt(len(more)):.1f}" if len(more) > 1 and i else ""
        cells = (f"{n:.2f}: {1000 * e:.1f} of {1000 * b:.1f}" for n, e, b in cost[:, i].mean(0))
        print_row((name, f"{more[:, i].mean():+.1f}{error}", *cells))
    print(flush=True)


def main() -> None:
    """Command line."""
    command_line(__doc__).parse_args()
    joints = [coupled(s, seed=15350 + i, length=5, size=3) for s in STRENGTHS for i in range(JOINTS)]
    table(f"{len(joints)} random joints", list(joints))
    for name in ("mixture", "markov", "hmm", "nae-sat", "reasoning"):
        table(name, [TOYS[name]()])


if __name__ == "__main__":
    main()
