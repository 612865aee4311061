"""`tv-budget`: no law is further from the joint than it promises, no row spends more, no stop rule spends on top."""

from __future__ import annotations

import itertools
from typing import ClassVar, final

import attrs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joints import random_table, tables

import mdsample
from mdsample import (
    AfterPass,
    Ban,
    BeforePass,
    Budget,
    Choices,
    Confidence,
    Converged,
    EarlyExit,
    Ended,
    Entropy,
    LeftToRight,
    Policy,
    Random,
    Stop,
    Temperature,
    TvBudget,
    Whole,
    exact,
    parse,
    testing,
)
from mdsample.core.bounds import parallel_bounds, prefix_tv_bounds
from mdsample.core.canvas import Canvas
from mdsample.errors import PolicyError
from mdsample.exact.law import visits
from mdsample.policy.catalog import PARTS
from mdsample.policy.complete import complete
from mdsample.policy.language import Language
from mdsample.policy.menu import explain
from mdsample.sampling.sampler import choose, rank
from mdsample.testing import ScriptedDenoiser
from mdsample.testing.worlds import LETTERS, TEXTS, canvases, denoisers

ONE = Temperature(1.0)
CALM = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
ORDERS = [Entropy(), Confidence(), LeftToRight(), Random(), Entropy(noise=0.3)]
totals = st.sampled_from([0.0, 0.01, 0.05, 0.3, 1.0]) | st.floats(0.0, 1.0)


@final
@attrs.frozen
class Impatient(Stop):
    """Wants to fill everything at once, or the first `number` blanks, once there were `after` steps."""

    name: ClassVar[str] = "impatient"
    number: int = 99
    after: int = attrs.field(default=0, kw_only=True)

    @property
    def sentence(self):
        return "It was time."

    def before_pass(self, batch):
        nothing = np.full(batch.blank.shape, -1, np.int32)
        return BeforePass(batch.blank, np.zeros(len(batch.blank), np.bool_), nothing)

    def after_pass(self, view):
        blank = view.batch.blank
        return AfterPass(view.batch.step >= self.after, blank & (np.cumsum(blank, 1) <= self.number))


STOPS = [EarlyExit(0.3), EarlyExit(2.0), Impatient(), Impatient(2)]


# the law


@CALM
@given(tables, st.sampled_from(ORDERS), totals)
def test_no_law_is_further_from_the_joint_than_it_promises(table, order, total):
    toy = exact.Joint(table)
    law = exact.law(Whole() + order + TvBudget(total) + ONE, toy)
    assert exact.tv(toy, law) <= law.tv_bound + 1e-9 <= total + 1e-6  # its statistics are float32


@CALM
@given(st.integers(0, 10**6), totals, st.lists(st.sampled_from(STOPS), min_size=1, max_size=2, unique=True))
def test_nor_is_one_that_leaves_early(seed, total, stops):
    toy = exact.reasoning(3, 3, seed=seed)
    law = exact.law(Whole() + Entropy() + TvBudget(total) + ONE + Policy(stops), toy)
    assert exact.tv(toy, law) <= law.tv_bound + 1e-9 <= total + 1e-6


@CALM
@given(st.integers(0, 10**6), st.sampled_from(ORDERS[:3]), totals, st.data())
def test_nor_is_one_in_its_language(seed, order, total, data):
    table = random_table(seed)
    rows = [row for row in np.ndindex(table.shape) if row[-1] > 0]
    texts = data.draw(st.lists(st.sampled_from(rows), min_size=2, max_size=6, unique=True))
    inside = np.zeros_like(table)
    for row in texts:
        inside[row] = table[row] + 1e-3
    choices = Choices(tuple("".join(map(str, row)) for row in texts), slot="text")
    toy, constraint = exact.Joint(inside / inside.sum()), data.draw(st.sampled_from([choices, Ban((0,))]))
    if isinstance(constraint, Ban):
        toy = exact.Joint(np.pad(toy.table()[(slice(1, None),) * table.ndim] + 1e-3, [(1, 0)] * table.ndim))
    stops = data.draw(st.sampled_from([[], [Impatient()], [Impatient(2)]]))
    law = exact.law(Whole() + order + TvBudget(total) + ONE + constraint + Policy(stops), toy)
    assert exact.tv(toy, law) <= total + 1e-6


@pytest.mark.parametrize("name", sorted(exact.TOYS))
def test_nor_is_that_of_any_toy(name):
    toy = exact.TOYS[name]()
    for order in (Entropy(), LeftToRight()):
        law = exact.law(Whole() + order + TvBudget() + ONE, toy)
        assert exact.tv(toy, law) <= law.tv_bound + 1e-9 <= 0.05 + 1e-6


# a row


POLICIES = testing.policies(("reasoning", "answer"), vocab=LETTERS, texts=TEXTS)


@pytest.mark.slow
@settings(CALM)
@given(denoisers(), canvases(least=3), totals, POLICIES, st.sampled_from([*STOPS, None]))
def test_no_row_spends_more(model: ScriptedDenoiser, canvas: Canvas, total, policy: Policy, stop) -> None:
    rest = policy.without("selection", "revise") + Policy([stop] if stop else [])
    policy = Policy(part for part in rest.parts if not isinstance(part, Budget | Converged)) + TvBudget(total)
    result = testing.run(policy, model, canvas)
    assert (result.state.tv_sum <= total).all()
    for row in result.rows:
        # a language that weighs the rest of its text leaves a row without a bound
        assert row.tv_bound <= total or np.isinf(row.tv_bound)
        assert row.unfilled == 0 or row.outcome.name in ("early-exit", "impatient")


def test_a_step_takes_what_the_root_of_its_share_of_the_rest_pays_for():
    policy, counts = Whole() + LeftToRight() + TvBudget(0.6) + ONE, set[tuple[int, int]]()
    worlds = [exact.coupled(1.0, seed=seed, length=6, size=2) for seed in range(12)]
    for _, view in itertools.chain.from_iterable(visits(policy, toy) for toy in worlds):
        batch, chosen = view.batch, choose(complete(policy), view, rank(complete(policy), view))[0].sum(1)
        for i in range(len(chosen)):
            blanks = np.flatnonzero(batch.blank[i])
            seen = view.marginals.take(np.full(len(blanks), i), blanks)
            h, c = seen.entropy.astype(np.float64), seen.confidence
            d = [parallel_bounds(np.zeros(n, np.int32), h[:n], c[:n], 1)[1][0] for n in range(1, len(blanks) + 1)]
            np.testing.assert_array_equal(prefix_tv_bounds(h[None], c[None])[0], d)
            share = np.sqrt(np.arange(1, len(blanks) + 1) / len(blanks))
            assert chosen[i] == np.cumprod(np.array(d) <= (0.6 - batch.tv_sum[i]) * share).sum()
            counts.add((batch.step[i], chosen[i]))
    assert len(counts) > 2


#: two pairs of bits that err together, one time in ten: each costs 0.19
PAIR = np.array([[0.9, 0.0], [0.0, 0.1]])


def test_what_was_spent_is_spent():
    # the first pair goes together, and for the second not enough is left, whoever asks
    toy = exact.Joint(np.einsum("ab,cd->abcd", PAIR, PAIR))
    for stop in (Policy(), Policy.of(Impatient(after=1))):
        policy = Whole() + LeftToRight() + TvBudget(0.3) + ONE + stop
        assert exact.law(policy, toy).expected_nfe == pytest.approx(3)
        for row in mdsample.Sampler(policy).run(toy, toy.canvas(20)).rows:
            assert (row.nfe, row.tv_bound) == (3, pytest.approx(0.19))


def test_a_row_that_cannot_pay_for_leaving_goes_on_and_leaves_once_it_can():
    # two fair bits that are equal, for which d is √(ln(2)/2) = 0.59, then two that are settled
    table = np.zeros((2,) * 4)
    table[0, 0, 0, 0] = table[1, 1, 0, 0] = 0.5
    toy = exact.Joint(table)
    for total, passes, distance in ((0.55, 2, 0.0), (0.6, 1, 0.5)):
        policy = Whole() + LeftToRight() + TvBudget(total) + ONE + Impatient()
        for row in mdsample.Sampler(policy).run(toy, toy.canvas(20)).rows:
            assert (row.nfe, row.unfilled, row.outcome.name) == (passes, 0, "impatient")
        law = exact.law(policy, toy)
        assert law.expected_nfe == passes and exact.tv(toy, law) == pytest.approx(distance)


def test_two_rules_that_leave_together_pay_together():
    # each fills a pair; together they cost 1 - 0.9^4, more than 0.3
    toy = exact.Joint(np.einsum("ab,cd->abcd", PAIR, PAIR))
    canvas = toy.canvas(slots={"reasoning": 2, "answer": 2})
    both = EarlyExit(9.0, slot="reasoning") + EarlyExit(9.0, slot="answer")
    for total, filled in ((0.3, 2), (0.4, 4)):
        [row] = mdsample.Sampler(Whole() + TvBudget(total) + ONE + both).run(toy, canvas).rows
        assert (row.nfe, row.filled) == (1, filled) and row.tv_bound <= total


def test_what_a_rule_writes_is_free():
    toy = exact.Joint(np.random.default_rng(1).dirichlet(np.full(81, 0.2)).reshape((3,) * 4))
    policy = Whole() + LeftToRight() + TvBudget(0.0) + ONE + Ended("1")
    rows = mdsample.Sampler(policy).run(toy, toy.canvas(40)).rows
    assert any(commit.by_rule for row in rows for commit in row.commits)
    assert all(row.tv_bound == 0 and row.unfilled == 0 for row in rows)


# what people are told


def test_a_budget_of_passes_is_refused():
    toy = exact.TOYS["markov"]()
    with pytest.raises(PolicyError, match=r"budget\(3\) fills all that is left at once, tv-budget no more than"):
        mdsample.Sampler(parse("tv-budget+budget(3)")).plan(toy, toy.canvas())


def test_the_promise_is_explained():
    [told] = [seat.about for seat in explain(parse("tv-budget(0.02)")) if seat.part == "tv-budget(0.02)"]
    assert "by default 5 in 100, differ from decoding one at a time, by maximal coupling" in told
    assert told.splitlines()[-1].startswith(
        "At temperature 1 at most 2 in 100 texts differ from decoding one at a time"
    )
    # what `test_a_language_that_weighs_has_no_bound` shows
    assert told.endswith(
        "Of slots that hold a weighed language (regex, integer, number, date, a schema) nothing is promised."
    )
    for part in PARTS.values():
        if issubclass(part, Language):
            assert part.weighed == (part.name in told)
