"""The bounds of docs/bounds.md: no joint breaks them, they cannot be smaller, and what is called certain is so."""

from __future__ import annotations

import math
from collections.abc import Callable

import brute
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joints import tables

from mdsample import (
    Ban,
    BelowEntropy,
    Choices,
    Confidence,
    EarlyExit,
    Ended,
    Entropy,
    EntropyBound,
    Factor,
    Fixed,
    Frechet,
    Greedy,
    LeftToRight,
    Policy,
    Row,
    Temperature,
    Top,
    Whole,
    exact,
)
from mdsample.core.arrays import Doubles
from mdsample.core.bounds import certain_sets, coupling_bounds, parallel_bounds
from mdsample.exact.law import visits
from mdsample.policy.complete import complete
from mdsample.sampling.sampler import Sampler, choose, rank, ranked

ONE = Temperature(1.0)
CALM = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
RULES = [Top(2), Top(3), BelowEntropy(0.6), EntropyBound(0.5), Frechet(-0.2)]


def marginals(table: Doubles) -> list[Doubles]:
    return [table.sum(tuple(j for j in range(table.ndim) if j != i)) for i in range(table.ndim)]


def product(table: Doubles) -> Doubles:
    out = np.ones(())
    for marginal in marginals(table):
        out = np.multiply.outer(out, marginal)
    return out


def total_variation(table: Doubles) -> float:
    return float(np.abs(table - product(table)).sum()) / 2


def bounds_of(table: Doubles) -> tuple[float, float]:
    entropies = [-sum(p * math.log(p) for p in marginal.tolist() if p > 0) for marginal in marginals(table)]
    group = np.zeros(table.ndim, np.int32)
    b, d = parallel_bounds(group, np.array(entropies), np.array([m.max() for m in marginals(table)]), 1)
    return float(b[0]), float(d[0])


# one step


@settings(CALM, max_examples=150)
@given(tables)
def test_no_joint_is_further_from_the_product_of_its_marginals(table):
    b, d = bounds_of(table)
    there = table > 0
    assert total_variation(table) <= d + 1e-12
    assert (table[there] * np.log(table[there] / product(table)[there])).sum() <= b + 1e-12
    assert d == pytest.approx(brute.tv_bound([marginal.tolist() for marginal in marginals(table)]), abs=1e-12)
    # no more than the version that is easier to say, DESIGN's
    wrong = [1 - marginal.max() for marginal in marginals(table)]
    assert d <= min(1.0, math.sqrt(b / 2), sum(wrong), 2 * (sum(wrong) - max(wrong))) + 1e-12


def errors_together(sets: dict[tuple[int, ...], float], length: int, tokens: int) -> Doubles:
    """All argmaxes (token 0), but that the positions of a set err together, in any of `tokens` ways of its own."""
    table = np.zeros((len(sets) * tokens + 1,) * length)
    for number, (members, probability) in enumerate(sets.items()):
        for token in range(number * tokens + 1, (number + 1) * tokens + 1):
            table[tuple(token if i in members else 0 for i in range(length))] += probability / tokens
    table[(0,) * length] += 1 - table.sum()
    return table


@pytest.mark.parametrize(
    ("sets", "length"),
    [
        ({(0, 1): 0.2}, 2),
        ({(0, 1): 0.1, (0, 2): 0.05, (1, 2): 0.1}, 3),
        ({(0, 1): 0.1, (0, 2): 0.05, (0,): 0.3}, 3),
        ({(0, 1): 0.3, (0,): 0.6}, 2),
    ],
)
def test_top_probabilities_alone_allow_no_smaller_bound(sets, length):
    table = errors_together(sets, length, 40)
    c = np.array([marginal[0] for marginal in marginals(table)])
    [bound] = coupling_bounds(np.zeros(length, np.int32), c, 1)
    assert 0.95 * bound <= total_variation(table) <= bound


def test_the_tempting_version_is_broken():
    # two bits that err together, one time in ten: 18 % apart, where the sum without the largest says 10 %
    table = np.array([[0.9, 0.0], [0.0, 0.1]])
    assert total_variation(table) == pytest.approx(0.18)
    assert bounds_of(table)[1] == pytest.approx(0.19)


def test_sets_do_not_mix_and_a_set_of_one_is_free():
    c, group = np.array([0.9, 0.2, 0.8, 0.7, 1.0]), np.array([2, 0, 2, 3, 3], np.int32)
    b, d = parallel_bounds(group, np.array([0.4, 1.0, 0.6, 0.5, 0.0]), c, 5)
    np.testing.assert_allclose(b, [0, 0, 0.4, 0, 0], atol=1e-15)
    np.testing.assert_allclose(d, [0, 0, 1 - 0.9 * 0.9, 0, 0], atol=1e-15)
    assert certain_sets(group, c, 4).tolist() == [True, True, True, True]
    assert not certain_sets(group, np.array([0.9, 0.2, 0.8, 0.7, 0.6]), 4)[3]


# whole runs


def spent(policy: Policy, toy: exact.Toy) -> float:
    """E Σ d over the sampler's visits, whatever the law itself promises."""
    total, whole = 0.0, complete(policy)
    for weight, view in visits(policy, toy):
        row, position = np.nonzero(choose(whole, view, rank(whole, view))[0])
        there = view.marginals.take(row, position)
        total += float((weight * parallel_bounds(row, there.entropy, there.confidence, len(weight))[1]).sum())
    return total


@CALM
@given(tables, st.sampled_from([Entropy(), Confidence(), LeftToRight()]), st.sampled_from(RULES), st.data())
def test_a_run_in_its_language_is_within_what_its_steps_cost(table, order, rule, data):
    # constraints that take nothing from the joint: it is the law of decoding one at a time under them too
    rows = [row for row in np.ndindex(table.shape) if row[-1] > 0]
    texts = data.draw(st.lists(st.sampled_from(rows), min_size=2, max_size=6, unique=True))
    inside = np.zeros_like(table)
    for row in texts:
        inside[row] = table[row] + 1e-3
    toy = exact.Joint(inside / inside.sum())
    choices = Choices(tuple("".join(map(str, row)) for row in texts), slot="text")
    constraint = data.draw(st.sampled_from([choices, Ban((0,))]))
    if isinstance(constraint, Ban):
        toy = exact.Joint(toy.table()[(slice(1, None),) * table.ndim] + 1e-3)
        toy = exact.Joint(np.pad(toy.table(), [(1, 0)] * table.ndim))
    policy = Whole() + order + rule + ONE + constraint
    law = exact.law(policy, toy)
    assert exact.tv(toy, law) <= spent(policy, toy) + 1e-6
    assert exact.tv(toy, exact.law(Whole() + order + Top(1) + ONE + constraint, toy)) < 1e-9


@CALM
@given(st.integers(0, 10**6), st.floats(0.05, 2.0), st.sampled_from(RULES))
def test_what_is_filled_on_leaving_is_a_step_like_others(seed, limit, rule):
    toy = exact.reasoning(3, 3, seed=seed)
    policy = Whole() + Entropy() + rule + ONE + EarlyExit(limit)
    law = exact.law(policy, toy)
    assert law.tv_bound == pytest.approx(min(1.0, math.sqrt(law.kl_bound / 2), spent(policy, toy)), abs=1e-5)
    assert exact.tv(toy, law) <= law.tv_bound + 1e-9


def test_neither_a_root_nor_1_may_be_taken_row_by_row():
    # a pair that is almost always equal; then, if it is, three pairs of fair bits, and if not, nothing more to tell
    table = np.zeros((2,) * 8)
    pairs = np.eye(2) / 2
    rest = np.einsum("ab,cd,ef->abcdef", pairs, pairs, pairs)
    table[0, 0], table[1, 1] = 0.75 * rest, 0.25 * rest
    table[0, 1, 0, 0, 0, 0, 0, 0] = table[1, 0, 0, 0, 0, 0, 0, 0] = 1e-9
    toy = exact.Joint(table)
    policy = Whole() + Fixed(list(range(8))) + Top(2) + ONE
    law, rows = exact.law(policy, toy), Sampler(policy).run(toy, toy.canvas(40)).rows
    distance = exact.tv(toy, law)
    assert distance == pytest.approx(1 - 0.625 / 8, abs=1e-6)

    def mean(cost: Callable[[Row], float]) -> float:
        # all rows that begin with equal bits cost the same, and so do all others
        equal, other = (next(row for row in rows if (row.tokens[0] == row.tokens[1]) == same) for same in (True, False))
        return 0.625 * cost(equal) + 0.375 * cost(other)

    assert mean(lambda row: min(1.0, row.tv_bound)) < distance - 0.1
    assert mean(lambda row: math.sqrt(row.error_bound / 2)) < distance - 0.004
    assert distance <= law.tv_bound == min(1.0, mean(lambda row: row.tv_bound))


# greedy


@settings(CALM, max_examples=150)
@given(tables, st.integers(0, 3))
def test_what_is_called_certain_is_the_argmax_of_every_joint(table, crowd):
    if crowd:  # the hardest: no two positions err together, and one rival has all errors of its position
        n, errors = table.ndim, np.array([marginal[1] for marginal in marginals(table)]) / crowd
        table = np.zeros((2,) * n)
        for i, error in enumerate(errors):
            table[tuple(int(i == j) for j in range(n))] = error
        table[(0,) * n] = max(0.0, 1 - errors.sum())
        table /= table.sum()
    c = np.array([marginal.max() for marginal in marginals(table)])
    n = len(c)
    [certain] = certain_sets(np.zeros(n, np.int32), c, 1)
    if certain:
        best = tuple(int(marginal.argmax()) for marginal in marginals(table))
        assert table[best] == table.max()
    assert certain or (n + 1) * (1 - c.min()) >= 1 - 1e-9  # Fast-dLLM's condition is not wider


@CALM
@given(tables, st.sampled_from([Entropy(), Confidence(), LeftToRight()]))
def test_frechet_without_a_margin_takes_the_longest_certain_prefix(table, order):
    policy = complete(Whole() + order + Frechet(0.0) + Greedy())
    for _, view in visits(Whole() + order + Frechet(0.0) + Greedy(), exact.Joint(table)):
        ranking = rank(policy, view)
        found, chosen = ranked(view, ranking), choose(policy, view, ranking)[0].sum(1)
        for row, number in enumerate(found.number.tolist()):
            c = found.confidence[row, :number].astype(np.float64)
            sure = [certain_sets(np.zeros(n, np.int32), c[:n], 1)[0] for n in range(1, number + 1)]
            assert chosen[row] == max(n for n in range(1, number + 1) if sure[n - 1])


def test_a_row_says_which_share_of_its_tokens_was_certain():
    toy = exact.Joint(errors_together({(0, 1): 0.1, (2,): 0.42}, 3, 1))
    for rule, share in ((Frechet(0.0), 1), (Top(3), 0), (Top(2), 1), (Top(1), 1)):
        [row] = Sampler(Whole() + LeftToRight() + rule + Greedy()).run(toy, toy.canvas()).rows
        assert row.certain == row.to_dict()["certain"] == share
    drawn = Sampler(Whole() + LeftToRight() + Top(2) + ONE).run(toy, toy.canvas(400)).rows
    for row in drawn:  # the two that go together may be drawn wrong, and so may the third
        third = row.written[2]
        best = third.probability > third.confidence - 1e-6
        assert row.certain == pytest.approx((2 * (row.tokens[:2].tolist() == [0, 0]) + best) / 3)
    assert len({row.certain for row in drawn}) > 2


def test_what_a_rule_writes_is_no_part_of_a_set():
    toy = exact.Joint(np.random.default_rng(1).dirichlet(np.full(81, 0.2)).reshape((3,) * 4))
    rows = Sampler(Whole() + LeftToRight() + Top(2) + ONE + Ended("1")).run(toy, toy.canvas(40)).rows
    written = 0
    for row in rows:
        asked = [commit for commit in row.commits if not commit.by_rule]
        step, h, c = (np.array([getattr(x, name) for x in asked]) for name in ("step", "entropy", "confidence"))
        assert row.tv_bound == pytest.approx(parallel_bounds(step, h, c, row.steps)[1].sum())
        best = [x.probability > x.confidence - 1e-6 for x in asked]
        sure = certain_sets(step, c, row.steps)[step] & [all(np.array(best)[step == one]) for one in step]
        assert row.certain == pytest.approx(sure.mean())
        written += len(asked) < len(row.commits)
    assert 5 < written < 40


@CALM
@given(tables)
def test_factor_1_stays_within_what_is_certain(table):
    toy = exact.Joint(table)
    result = Sampler(Whole() + Confidence() + Factor(1.0) + Greedy()).run(toy, toy.canvas())
    assert result.rows[0].certain == 1
