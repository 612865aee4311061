"""Audit: policies on a toy, by exact numbers; rules against one another at equal expected NFE.

"At equal NFE" takes a policy that tosses a coin, once a run, between two settings of one rule. Its law is the mixture
of their laws, so its NFE is the mean of theirs, and its KL at most the mean (KL is convex in its second argument).
Hence a rule can reach everything on the lower convex hull of its points (NFE, KL), and the hull is what is compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import attrs
import numpy as np
from numpy.typing import ArrayLike

from mdsample.core.arrays import Doubles
from mdsample.core.canvas import Canvas
from mdsample.exact.divergence import kl, tv
from mdsample.exact.law import law, visits
from mdsample.exact.states import pooled
from mdsample.exact.toy import Toy
from mdsample.policy import budget, selection
from mdsample.policy.base import Part, Policy
from mdsample.policy.complete import complete
from mdsample.policy.draw import Temperature
from mdsample.policy.order import Confidence, Entropy, LeftToRight, Lookahead, Margin, Order, Random
from mdsample.policy.parsing import parse
from mdsample.policy.view import Ranked, View, bounds, entropies
from mdsample.policy.window import Whole
from mdsample.sampling.sampler import rank, ranked


@attrs.frozen
class Audit:
    """What a policy costs and how far off it is, all exact; divergences in nats, TV from 0 to 1."""

    policy: str
    kl: float
    tv: float
    expected_nfe: float
    #: `Law.kl_bound`, `Law.tv_bound`
    kl_bound: float
    tv_bound: float


def audit(
    policies: Iterable[Policy | Part | str], toy: Toy, canvas: Canvas | None = None, *, limit: int = 5_000_000
) -> list[Audit]:
    """One row per policy (a value or its text). Raises what `law` and `parse` raise."""
    rows: list[Audit] = []
    for given in policies:
        policy = parse(given) if isinstance(given, str) else Policy() + given
        exact_law = law(policy, toy, canvas, limit=limit)
        text = given if isinstance(given, str) else str(policy)
        bounds = exact_law.kl_bound, exact_law.tv_bound
        rows.append(Audit(text, kl(toy, exact_law), tv(toy, exact_law), exact_law.expected_nfe, *bounds))
    return rows


#: what a selection compares with its setting, for each prefix of the ranking, `[B, N]`
Test = Callable[[View, Ranked], Doubles]


@attrs.frozen
class StudyRule:
    """An order and a selection with one setting. Rules of one name are one family that has further settings."""

    name: str
    order: Order
    selection: Callable[[float], Part]
    #: `None` if it counts
    test: Test | None = None
    #: the settings that there are
    limits: tuple[float, float] = (1e-9, math.inf)

    def policy(self, setting: float) -> Policy:
        """The whole canvas in the rule's order, drawn at temperature 1."""
        return Whole() + self.order + self.selection(setting) + Temperature(1.0)


def _length(ranked: Ranked) -> Doubles:
    return np.arange(1, ranked.position.shape[1] + 1, dtype=np.float64)


def _largest_entropy(view: View, ranked: Ranked) -> Doubles:
    return np.maximum.accumulate(entropies(ranked), 1)


def _bound(view: View, ranked: Ranked) -> Doubles:
    return bounds(ranked)


def _total(view: View, ranked: Ranked) -> Doubles:
    """The budget that pays for a prefix if nothing was spent before."""
    blanks = view.batch.initially_blank.sum(1)[:, None]
    return bounds(ranked) * blanks / np.minimum(blanks - view.batch.blank.sum(1)[:, None] + _length(ranked), blanks)


def _least_confidence(view: View, ranked: Ranked) -> Doubles:
    return np.minimum.accumulate(ranked.confidence, 1).astype(np.float64)


def _factor(view: View, ranked: Ranked) -> Doubles:
    return (_length(ranked) + 1) * (1 - _least_confidence(view, ranked))


def _profile(view: View, ranked: Ranked) -> Doubles:
    c = ranked.confidence.astype(np.float64)
    return np.cumsum(c, 1) - _length(ranked) + _least_confidence(view, ranked)


def _together(view: View, ranked: Ranked) -> Doubles:
    return np.cumprod(ranked.confidence, 1, np.float64).astype(np.float64, copy=False)


def _first(k: float) -> Part:
    return selection.Top(round(k))


#: KLASS's second setting, nats: the published one, a tenth, and one that lets nearly everything pass as still
_SHIFTS = (0.01, 0.1, 10.0)

#: every rule with a setting, in the order that it was published with, and plain counts. MED, EB, threshold, factor,
#: Fréchet and KLASS are those that reviewers of MED (arXiv 2510.19990) asked to see side by side
RULES: tuple[StudyRule, ...] = (
    StudyRule("MED", Entropy(), selection.BelowEntropy, _largest_entropy),
    StudyRule("AR-MED", LeftToRight(), selection.BelowEntropy, _largest_entropy),
    StudyRule("EB", Entropy(), selection.EntropyBound, _bound, (0.0, math.inf)),
    StudyRule("budget", Entropy(), budget.ErrorBudget, _total, (0.0, math.inf)),
    StudyRule("threshold", Confidence(), selection.AboveConfidence, _least_confidence, (1e-9, 1.0)),
    StudyRule("factor", Confidence(), selection.Factor, _factor),
    StudyRule("Fréchet", Confidence(), selection.Frechet, _profile, (-math.inf, math.inf)),
    StudyRule("cumulative", Confidence(), selection.CumulativeConfidence, _together, (1e-9, 1.0)),
    *(
        StudyRule(
            "KLASS", Confidence(), partial(selection.Stable, shift=shift, looks=looks), _least_confidence, (1e-9, 1.0)
        )
        for looks in (1, 2)
        for shift in _SHIFTS
    ),
    StudyRule("top-k", Entropy(), _first),
    StudyRule("margin-k", Margin(), _first),
    StudyRule("random-k", Random(), _first),
    *(StudyRule("lookahead-k", Lookahead(tries), _first) for tries in (2, 4)),
)


class Point(NamedTuple):
    """One setting of one rule on one toy."""

    rule: str
    policy: str
    expected_nfe: float
    kl: float
    tv: float


def frontier(
    toy: Toy,
    canvas: Canvas | None = None,
    *,
    rules: Sequence[StudyRule] = RULES,
    values: int = 24,
    limit: int = 5_000_000,
    watch: Callable[[str], None] | None = None,
) -> list[Point]:
    """Points (expected NFE, KL, TV) of each rule at about `values` settings (every one, for a rule that counts).

    A family of m rules gets `values` · √m in all: a search in more directions needs more points. `watch` is told the
    name of each rule before its turn.
    """
    points: list[Point] = []
    family = Counter(rule.name for rule in rules)
    for rule in rules:
        if watch is not None:
            watch(rule.name)
        share = max(2, round(values / math.sqrt(family[rule.name])))
        for setting in settings(rule, toy, canvas, values=share, limit=limit):
            policy = rule.policy(setting)
            exact_law = law(policy, toy, canvas, limit=limit)
            points.append(Point(rule.name, str(policy), exact_law.expected_nfe, kl(toy, exact_law), tv(toy, exact_law)))
    return points


def settings(
    rule: StudyRule, toy: Toy, canvas: Canvas | None = None, *, values: int = 24, limit: int = 5_000_000
) -> list[float]:
    """Settings from one end of a rule to the other, spread evenly over where they matter.

    A setting matters only as it crosses a value of the rule's test in some state. So settings are taken between these
    values, over all states seen when one blank a step is filled in the rule's order: half of them at quantiles weighted
    by how likely a state is, half at plain quantiles, since an unlikely state may hold most of the error.
    """
    if rule.test is None:
        return [float(k) for k in range(1, int((toy.canvas() if canvas is None else canvas).blank.sum()) + 1)]
    one_by_one = Whole() + rule.order + selection.Top(1) + Temperature(1.0)
    tests: list[Doubles] = []
    weights: list[Doubles] = []
    for weight, view in visits(one_by_one, toy, canvas, limit=limit):
        order = ranked(view, rank(complete(one_by_one), view))
        # the first of the ranking is committed whatever its test says
        row, column = np.nonzero(order.position[:, 1:] >= 0)
        tests.append(rule.test(view, order)[row, column + 1])
        weights.append(weight[row])
    if not any(map(len, tests)):
        return [0.5]  # there is never a choice, so every setting is like any other
    value, which = np.unique(np.concatenate(tests).astype(np.float32), return_inverse=True)
    below = np.cumsum(pooled(np.concatenate(weights), which))
    ends = np.concatenate([value[:1] - 0.01, value, value[-1:] + 0.01]).astype(np.float64)
    between = np.clip((ends[:-1] + ends[1:]) / 2, *rule.limits)
    heavy = np.searchsorted(below, np.linspace(0, float(below[-1]), values // 2), side="left")
    light = np.linspace(0, len(value), values - values // 2).astype(np.int64)
    return sorted({float(setting) for setting in between[np.concatenate([heavy, light])]})


def hull(nfe: ArrayLike, error: ArrayLike) -> tuple[Doubles, Doubles]:
    """The lower convex hull of points, by increasing NFE, as far as it falls: more passes never have to hurt.

    Points with an infinite error are left out.
    """
    x, y = np.asarray(nfe, np.float64), np.asarray(error, np.float64)
    points: list[tuple[float, float]] = sorted(zip(x[np.isfinite(y)].tolist(), y[np.isfinite(y)].tolist(), strict=True))
    kept: list[tuple[float, float]] = []
    for x, y in points:
        if kept and y >= kept[-1][1]:
            continue  # dearer and no better
        while len(kept) > 1:
            (x0, y0), (x1, y1) = kept[-2:]
            if (y1 - y0) * (x - x0) < (y - y0) * (x1 - x0):
                break
            kept.pop()
        kept.append((x, y))
    return np.array([x for x, _ in kept]), np.array([y for _, y in kept])


def at_equal_nfe(points: Iterable[Point], nfe: ArrayLike, of: str = "kl") -> dict[str, Doubles]:
    """The KL (or `of="tv"`) that each rule can reach at stated expected NFE, on its hull.

    Below a rule's least NFE, inf; above its greatest, the error it has there.
    """
    wanted = np.asarray(nfe, np.float64)
    rules: dict[str, list[Point]] = {}
    for point in points:
        rules.setdefault(point.rule, []).append(point)
    reached: dict[str, Doubles] = {}
    for rule, curve in rules.items():
        x, y = hull([point.expected_nfe for point in curve], [getattr(point, of) for point in curve])
        reached[rule] = np.interp(wanted, x, y, left=np.inf) if len(x) else np.full_like(wanted, np.inf)
    return reached
