"""Exact laws: against an independent brute force, against the sampler's own frequencies, and against the theorems."""

from __future__ import annotations

import itertools
import math
from typing import ClassVar, final

import attrs
import brute
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mdsample import (
    AboveConfidence,
    Ban,
    BelowEntropy,
    Blocks,
    Budget,
    Cfg,
    Choices,
    Confidence,
    CumulativeConfidence,
    Dilated,
    EarlyExit,
    Ended,
    Entropy,
    EntropyBound,
    ErrorBudget,
    Factor,
    Fixed,
    Frechet,
    Greedy,
    LeftToRight,
    LinearTime,
    Lookahead,
    Margin,
    Policy,
    PositionBiased,
    Random,
    Ranked,
    Revise,
    RightToLeft,
    Selection,
    Stable,
    Steps,
    Temperature,
    Top,
    TvBudget,
    View,
    Whole,
    exact,
    parse,
)
from mdsample.core.template import Template
from mdsample.exact.law import visits
from mdsample.policy.complete import complete
from mdsample.sampling.sampler import Sampler, choose, rank, ranked

ONE = Temperature(1.0)
CALM = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])

seeds = st.integers(0, 10**6)
shapes = st.sampled_from([(2, 2), (3, 2), (2, 3), (4, 2), (3, 3)])


def random_joint(seed: int, shape: tuple[int, int], alpha: float = 0.5) -> exact.Joint:
    length, size = shape
    table = np.random.default_rng(seed).dirichlet(np.full(size**length, alpha))
    return exact.Joint(table.reshape((size,) * length))


joints = st.builds(random_joint, seeds, shapes, st.sampled_from([0.1, 0.5, 2.0]))

#: part, and the brute force's own version of it
WINDOWS = [
    (Whole(), brute.whole),
    (Blocks(2), brute.blocks(2)),
    (Blocks(1), brute.blocks(1)),
    (Dilated(3), brute.dilated(3, 2)),
]
ORDERS = [
    (Confidence(), brute.ORDERS["confidence"], 0.0),
    (Margin(), brute.ORDERS["margin"], 0.0),
    (Entropy(), brute.ORDERS["entropy"], 0.0),
    (PositionBiased(0.4), brute.ORDERS["position-biased"], 0.0),
    (Lookahead(2), brute.Lookahead(2, 1.0), 0.0),
    (Lookahead(3, own=0.0), brute.Lookahead(3, 0.0), 0.0),
    (LeftToRight(), brute.ORDERS["left-to-right"], 0.0),
    (RightToLeft(), brute.ORDERS["right-to-left"], 0.0),
    (Random(), brute.ORDERS["random"], 1.0),
    (Confidence(noise=0.3), brute.ORDERS["noisy-confidence"], 0.3),
    (Margin(noise=0.2), brute.ORDERS["margin"], 0.2),
    (Entropy(noise=0.5), brute.ORDERS["entropy"], 0.5),
]
SELECTIONS = [
    (Top(1), brute.top(1)),
    (Top(2), brute.top(2)),
    (BelowEntropy(0.5), brute.below_entropy(0.5)),
    (BelowEntropy(0.9, k=2), brute.below_entropy(0.9, k=2)),
    (EntropyBound(0.4), brute.entropy_bound(0.4)),
    (AboveConfidence(0.6), brute.above_confidence(0.6)),
    (Factor(0.9), brute.factor(0.9)),
    (Frechet(-0.2), brute.frechet(-0.2)),
    (CumulativeConfidence(0.4), brute.cumulative_confidence(0.4)),
    (ErrorBudget(0.8), brute.error_budget(0.8)),
    (TvBudget(0.4), brute.tv_budget(0.4)),
    (Stable(0.3, shift=0.5, looks=1), brute.Stable(0.3, 0.5, 1)),
    (Stable(0.4, shift=0.2), brute.Stable(0.4, 0.2, 2)),
    (Steps(2), brute.steps(2)),
    (LinearTime(3), brute.linear_time(3)),
]


#: those that decide by what they see alone, without dice, clock or past
MEMORYLESS = [
    rule for rule in SELECTIONS if not isinstance(rule[0], (Steps, LinearTime, ErrorBudget, TvBudget, Stable))
]


def as_dict(joint: exact.Toy) -> dict[tuple[int, ...], float]:
    return {index: float(p) for index, p in np.ndenumerate(joint.table())}


# the law itself


@pytest.mark.slow
@settings(CALM, max_examples=120)
@given(joints, st.sampled_from(WINDOWS), st.sampled_from(ORDERS), st.sampled_from(SELECTIONS))
def test_the_law_is_that_of_brute_force(joint, window, order, selection):
    law = exact.law(window[0] + order[0] + selection[0] + ONE, joint)
    plain = brute.Brute(as_dict(joint), joint.size, window[1], order[1], selection[1], order[2])
    rows, nfe, tv_sum = plain.run((None,) * joint.length)
    assert set(law.outcomes) >= {row for row, p in rows.items() if p > 1e-300}
    for row, p in law.outcomes.items():
        assert p == pytest.approx(rows.get(row, 0.0), abs=1e-9)
    assert law.probability.sum() == pytest.approx(1, abs=1e-12)
    assert law.expected_nfe == pytest.approx(nfe, abs=1e-9)
    dealt = plain.dealt((None,) * joint.length)
    assert law.kl_bound == pytest.approx(dealt, abs=1e-6)
    assert law.tv_bound == pytest.approx(min(1.0, tv_sum, math.sqrt(dealt / 2)), abs=1e-6)


@CALM
@given(joints, st.sampled_from(WINDOWS), st.sampled_from(ORDERS), seeds)
def test_one_at_a_time_is_exact(joint, window, order, seed):
    orders = [order[0], Fixed(np.random.default_rng(seed).permutation(joint.length).tolist())]
    for any_order in orders:
        law = exact.law(window[0] + any_order + Top(1) + ONE, joint)
        assert exact.tv(joint, law) < 1e-9
        assert exact.kl(joint, law) < 1e-9
        if not any_order.needs:
            assert law.expected_nfe == pytest.approx(joint.length, abs=1e-9)
        assert law.kl_bound == law.tv_bound == 0


@settings(CALM, max_examples=80)
@given(joints, st.sampled_from(WINDOWS), st.sampled_from(ORDERS), st.sampled_from(SELECTIONS))
def test_in_parallel_the_error_is_within_both_bounds(joint, window, order, selection):
    law = exact.law(window[0] + order[0] + selection[0] + ONE, joint)
    assert exact.kl(joint, law) <= law.kl_bound + 1e-9
    assert exact.tv(joint, law) <= law.tv_bound + 1e-9


@CALM
@given(joints, st.sampled_from([Entropy(), LeftToRight(), Confidence()]), st.sampled_from(MEMORYLESS))
def test_kl_is_the_sum_of_the_total_correlations(joint, order, selection):
    # without dice of the policy's own the chain rule is an equation: KL = E Σ (ΣH − H(A)), samplers.md 11.2
    by_order = {part: rank for part, rank, _ in ORDERS}
    plain = brute.Brute(as_dict(joint), joint.size, brute.whole, by_order[order], selection[1])

    def go(row: brute.Row) -> float:
        if None not in row:
            return 0.0
        agreeing = {x: p for x, p in plain.joint.items() if all(a in (None, b) for a, b in zip(row, x, strict=True))}
        mass = sum(agreeing.values())
        ((_, chosen),) = plain.sets(row, 0.0, (plain.predict(row),))
        together: dict[tuple[int, ...], float] = {}
        for x, p in agreeing.items():
            key = tuple(x[place.position] for place in chosen)
            together[key] = together.get(key, 0.0) + p
        joint_entropy = -sum(p / mass * math.log(p / mass) for p in together.values() if p > 0)
        correlation = sum(place.entropy for place in chosen) - joint_entropy
        after = (p / mass * go(brute.filled(row, chosen, tokens)) for tokens, p in together.items() if p > 0)
        return correlation + sum(after)

    law = exact.law(Whole() + order + selection[0] + ONE, joint)
    assert exact.kl(joint, law) == pytest.approx(go((None,) * joint.length), abs=1e-9)


# each selection's own promise, at every state it can see


#: how a rule compares its test with its setting
PASSES = {
    "MED": np.less,
    "AR-MED": np.less,
    "EB": np.less_equal,
    "threshold": np.greater_equal,
    "factor": np.less,
    "Fréchet": np.greater,
    "cumulative": np.greater_equal,
}


@CALM
@given(joints, st.sampled_from([rule for rule in exact.RULES if rule.name in PASSES]), st.data())
def test_the_prefix_is_the_longest_that_passes(joint, rule, data):
    setting = data.draw(st.sampled_from(exact.settings(rule, joint)))
    policy = complete(rule.policy(setting))
    for _, view in visits(rule.policy(setting), joint):
        ranking = rank(policy, view)
        order = ranked(view, ranking)
        chosen = choose(policy, view, ranking)[0].sum(1)
        passes = PASSES[rule.name](rule.test(view, order), setting)
        for row, number in enumerate(order.number.tolist()):
            assert chosen[row] == max(1, sum(itertools.takewhile(bool, passes[row, :number].tolist())))


@CALM
@given(joints, st.data())
def test_what_was_not_spent_yet_buys_the_longest_prefix_that_the_budget_pays_for(joint, data):
    [rule] = (rule for rule in exact.RULES if rule.name == "budget")
    setting = data.draw(st.sampled_from(exact.settings(rule, joint)))
    _, view = next(visits(rule.policy(setting), joint))
    order = ranked(view, rank(complete(rule.policy(setting)), view))
    passes = rule.test(view, order)[0] <= setting
    law = exact.law(rule.policy(setting), joint)
    chosen = choose(complete(rule.policy(setting)), view, rank(complete(rule.policy(setting)), view))[0]
    assert chosen.sum() == max(1, sum(itertools.takewhile(bool, passes.tolist())))
    assert law.kl_bound <= setting + 2e-6


@CALM
@given(joints, st.floats(0.0, 2.0))
def test_eb_keeps_its_bound_in_every_step_and_med_in_every_token(joint, limit):
    eb = exact.law(Whole() + Entropy() + EntropyBound(limit) + ONE, joint)
    assert exact.kl(joint, eb) <= limit * (joint.length - 1) + 1e-6
    if limit > 0:
        med = exact.law(Whole() + Entropy() + BelowEntropy(limit) + ONE, joint)
        assert exact.kl(joint, med) <= med.kl_bound + 1e-9 <= limit * (joint.length - 1) + 1e-6


@CALM
@given(joints, st.sampled_from(ORDERS), st.floats(0.0, 4.0))
def test_an_error_budget_bounds_the_law(joint, order, total):
    law = exact.law(Whole() + order[0] + ErrorBudget(total) + ONE, joint)
    assert exact.kl(joint, law) <= law.kl_bound + 1e-9 <= total + 2e-6  # its entropies are float32


@CALM
@given(joints, st.sampled_from([o for o, _, noise in ORDERS if not noise]), st.floats(0.4, 1.0))
def test_cumulative_confidence_bounds_the_joint_chance_of_the_most_probable(joint, order, probability):
    policy = Whole() + order + CumulativeConfidence(probability) + ONE
    rows, mass = np.array(list(np.ndindex(joint.table().shape))), joint.table().ravel()
    for _, view in visits(policy, joint):
        chosen = choose(complete(policy), view, rank(complete(policy), view))[0]
        for i in np.flatnonzero(chosen.sum(1) > 1):
            blank = view.batch.blank[i]
            possible = (rows == view.batch.tokens[i])[:, ~blank].all(1)
            top = possible & (rows == view.marginals.token[i])[:, chosen[i]].all(1)
            assert mass[top].sum() >= (1 + math.log(probability) - 1e-5) * mass[possible].sum()


# the law is that of the real loop


def chi_square(counts: np.ndarray, expected: np.ndarray) -> tuple[float, int]:
    order = np.argsort(-expected)
    counts, expected = counts[order], expected[order]
    rare = int(np.argmax(np.append(expected, 0) < 8))
    counts = np.append(counts[:rare], counts[rare:].sum())
    expected = np.append(expected[:rare], expected[rare:].sum())
    kept = expected > 0
    assert not counts[~kept].any()
    return float(((counts - expected)[kept] ** 2 / expected[kept]).sum()), max(1, int(kept.sum()) - 1)


@final
@attrs.frozen
class SecondThoughts(Revise):
    """Masks what holds token 0 again, at most `times` positions in all."""

    name: ClassVar[str] = "second-thoughts"
    times: int

    @property
    def budget(self):
        return self.times

    def remask(self, view: View):
        return view.batch.tokens == 0


SPLIT = {"reasoning": 2, "answer": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [
        Random() + BelowEntropy(0.9) + ONE,
        Entropy(noise=0.4) + EntropyBound(0.5) + ONE,
        Entropy() + ErrorBudget(1.5) + ONE,
        LeftToRight() + ErrorBudget(0.9) + ONE + SecondThoughts(2),
        Confidence() + CumulativeConfidence(0.2) + ONE,
        Random() + LinearTime(3) + ONE,
        Lookahead(2) + BelowEntropy(0.9) + ONE,
        Lookahead(3, own=0.0) + Top(2) + ONE + Choices(("02", "11", "20"), slot="answer"),
        Confidence() + Stable(0.4, shift=0.3, looks=1) + ONE,
        Random() + Stable(0.3, shift=0.6, looks=1) + ONE + SecondThoughts(2),
        Entropy() + Stable(0.3, shift=2.0, looks=1) + ONE + Choices(("02", "11", "20"), slot="answer"),
        Confidence() + Top(2) + Temperature(0.7, top_p=0.9),
        Margin() + Factor(1.2) + Temperature(1.3, top_k=2),
        Entropy() + Top(1) + ONE + EarlyExit(1.5, slot="answer"),
        Random() + Top(1) + ONE + Budget(2),
        LeftToRight() + Top(1) + ONE + Ended("1"),
        Entropy() + Top(2) + ONE + Choices(("02", "11", "20"), slot="answer"),
        Random() + Top(3) + ONE + Choices(("02", "00", "20", "21"), slot="answer"),
        Entropy() + Top(2) + ONE + Ban((1,)),
        Blocks(2) + Random() + Steps(3) + ONE,
        Entropy() + Top(2) + ONE + SecondThoughts(2),
    ],
    ids=str,
)
def test_the_sampler_runs_at_the_law(policy):
    joint = random_joint(7, (4, 3))
    rows = 4000
    law = exact.law(policy, joint, joint.canvas(slots=SPLIT))
    result = Sampler(policy, seed=3).run(joint, joint.canvas(rows, SPLIT))
    seen: dict[tuple[int, ...], int] = {}
    for row in result.state.tokens.tolist():
        seen[tuple(row)] = seen.get(tuple(row), 0) + 1
    assert set(seen) <= set(law.outcomes)
    counts = np.array([seen.get(row, 0) for row in law.outcomes])
    statistic, freedom = chi_square(counts, rows * law.probability)
    assert statistic < freedom + 5 * math.sqrt(2 * freedom)
    nfe = result.state.nfe
    assert abs(nfe.mean() - law.expected_nfe) <= 5 * nfe.std() / math.sqrt(rows) + 1e-12
    if law.tv_bound < min(1.0, math.sqrt(law.kl_bound / 2)):  # each run's own Σ d is an unbiased estimate of it
        estimates = result.state.tv_sum
        assert abs(estimates.mean() - law.tv_bound) <= 5 * estimates.std() / math.sqrt(rows) + 1e-6
    for name, p in law.left.items():
        share = np.mean([row.outcome.name == name for row in result.rows])
        assert abs(share - p) <= 5 * math.sqrt(p * max(0.0, 1 - p) / rows) + 1e-9


@pytest.mark.parametrize("orders", [Random(), LeftToRight(), RightToLeft(), Fixed((1, 0))], ids=str)
def test_choices_are_drawn_in_rank_order(orders):
    joint = random_joint(4, (2, 3))
    texts = [(0, 2), (0, 0), (1, 0)]
    law = exact.law(Whole() + orders + Top(2) + ONE + Choices(("02", "00", "10"), slot="text"), joint, joint.canvas())
    margins = joint.table().sum(1), joint.table().sum(0)

    def along(first: int, text: tuple[int, int]) -> float:
        # one place from its marginal over the texts, the other one from its own over the texts still possible
        def share(place: int, left: list[tuple[int, int]]) -> float:
            return margins[place][text[place]] / sum(margins[place][token] for token in {t[place] for t in left})

        return share(first, texts) * share(1 - first, [t for t in texts if t[first] == text[first]])

    weights = {Random: (0.5, 0.5), LeftToRight: (1, 0), RightToLeft: (0, 1), Fixed: (0, 1)}[type(orders)]
    for text in texts:
        expected = sum(weight * along(first, text) for first, weight in enumerate(weights))
        assert law.outcomes[text] == pytest.approx(expected, abs=1e-9)
    assert len(law.outcomes) == 3


def test_guidance_counts_double_and_follows_the_formula():
    joint = random_joint(1, (3, 3))
    canvas = joint.canvas(slots={"x": 3}, given={0: 2})
    canvas = attrs.evolve(canvas, slot=np.array([[-1, 0, 0]], np.int32))
    law = exact.law(Whole() + LeftToRight() + Top(1) + ONE + Cfg(1.0), joint, canvas)
    assert law.expected_nfe == 4
    assert math.isinf(law.kl_bound) and law.tv_bound == 1
    table = joint.table()
    conditional, unconditional = table[2].sum(1) / table[2].sum(), table.sum((0, 2))
    weight = unconditional * (conditional / unconditional) ** 2
    np.testing.assert_allclose(law.marginal([1]), weight / weight.sum(), atol=1e-9)


# parts that would make a law wrong are stopped


@final
@attrs.frozen
class Secretive(Selection):
    """One place a step in the first two; after that one if position 0 came first, else all."""

    name: ClassVar[str] = "secretive"

    def count(self, view: View, ranked: Ranked):
        slow = (view.batch.step < 2) | (view.batch.written[:, 0] == 0)
        return np.where(slow, 1, 9).astype(np.int32)


@final
@attrs.frozen
class Remembering(Selection):
    """The same, and says that it looks back."""

    name: ClassVar[str] = "remembering"
    remembers: ClassVar[bool] = True

    def count(self, view: View, ranked: Ranked):
        return Secretive.count(self, view, ranked)


@final
@attrs.frozen
class Gambler(Selection):
    name: ClassVar[str] = "gambler"

    def count(self, view: View, ranked: Ranked):
        return (1 + 2 * view.uniforms.per_row("count")).astype(np.int32)


def test_a_part_that_looks_back_must_say_so():
    joint = random_joint(2, (4, 2))
    with pytest.raises(ValueError, match=r"batch.written.*remembers = True"):
        exact.law(Whole() + Random() + Secretive() + ONE, joint)
    policy = Whole() + Random() + Remembering() + ONE
    law = exact.law(policy, joint)
    # position 0 comes first in a quarter of all runs, which then take four steps instead of three
    assert law.expected_nfe == pytest.approx(3.25)
    result = Sampler(policy, seed=0).run(joint, joint.canvas(3000))
    seen = np.zeros_like(law.table)
    np.add.at(seen, tuple(result.state.tokens.T), 1)
    statistic, freedom = chi_square(seen.ravel(), 3000 * law.table.ravel())
    assert statistic < freedom + 5 * math.sqrt(2 * freedom)


def test_a_part_that_throws_its_own_dice_is_stopped():
    with pytest.raises(ValueError, match=r"RandomSelection\.chances"):
        exact.law(Whole() + Entropy() + Gambler() + ONE, random_joint(0, (3, 2)))


def test_a_law_that_is_too_large_says_so():
    with pytest.raises(exact.LawTooLarge, match="more than 50 branches"):
        exact.law(Random() + Top(2) + ONE, random_joint(0, (4, 3)), limit=50)


def test_a_law_is_of_one_row():
    joint = random_joint(0, (2, 2))
    with pytest.raises(ValueError, match=r"canvas has 2.*take\(\[0\]\)"):
        exact.law(Top(1) + ONE, joint, joint.canvas(2))


# toys


def enumerated(toy: exact.Toy) -> exact.Joint:
    return exact.Joint(toy.table())


HMM = exact.HiddenMarkov(
    [0.7, 0.3, 0.0], np.eye(3) + [[0.1, 0.4, 0.2]] * 3, [[0.5, 0.5, 0.0], [0.1, 0.2, 0.7], [1.0, 0.0, 0.0]], 5
)
CHAIN = exact.MarkovChain([0.2, 0.5, 0.3], [[0.0, 0.5, 0.5], [0.9, 0.1, 0.0], [0.3, 0.3, 0.4]], 5)


@pytest.mark.parametrize(
    "toy",
    [HMM, CHAIN, exact.nae_sat(4, 3, seed=2), exact.same_word(3, 4), exact.reasoning(3, 3)],
    ids=lambda toy: toy.name,
)
def test_conditionals_agree_with_enumeration(toy):
    joint = enumerated(toy)
    assert toy.table().sum() == pytest.approx(1)
    tokens = np.array(list(itertools.product(range(toy.size + 1), repeat=toy.length)), np.int32)[:: 1 + toy.size]
    tokens = np.concatenate([tokens, np.random.default_rng(0).integers(0, toy.size + 1, (300, toy.length), np.int32)])
    blank = tokens == toy.size
    np.testing.assert_allclose(toy.conditionals(tokens)[blank], joint.conditionals(tokens)[blank], atol=1e-12)
    np.testing.assert_allclose(np.exp(toy.log_prob(tokens)), np.exp(joint.log_prob(tokens)), atol=1e-14)


def test_a_joint_agrees_with_summing_its_table():
    joint = random_joint(5, (3, 3))
    table = joint.table()
    got = joint.conditionals(np.array([[3, 1, 3]], np.int32))[0]
    np.testing.assert_allclose(got[0], table[:, 1].sum(1) / table[:, 1].sum(), atol=1e-15)
    np.testing.assert_allclose(got[2], table[:, 1].sum(0) / table[:, 1].sum(), atol=1e-15)
    assert joint.log_prob(np.array([[3, 1, 3]], np.int32))[0] == pytest.approx(math.log(table[:, 1].sum()))


def test_what_cannot_be_is_uniform():
    toy = exact.same_word(4, 3)
    np.testing.assert_allclose(toy.conditionals(np.array([[0, 1, 4]], np.int32))[0, 2], 0.25)
    np.testing.assert_allclose(CHAIN.conditionals(np.array([[0, 0, 3, 3, 3]], np.int32))[0, 3], 1 / 3)


def test_chains_are_stable_over_hundreds_of_positions():
    draw = np.random.default_rng(0)
    transition = draw.dirichlet(np.full(3, 0.3), 3)
    toy = exact.MarkovChain(np.ones(3), transition, 700)
    tokens = np.full((2, 700), 3, np.int32)
    tokens[:, 0], tokens[1, 2::4] = 1, 2
    found = toy.conditionals(tokens)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0, 4], np.linalg.matrix_power(transition, 4)[1], atol=1e-12)
    between = transition[1] * transition[:, 2]
    np.testing.assert_allclose(found[1, 1], between / between.sum(), atol=1e-12)
    assert np.isfinite(toy.log_prob(tokens)).all()


def test_sudoku_has_288_grids():
    toy = exact.sudoku4()
    blank = np.full((1, 16), 4, np.int32)
    np.testing.assert_allclose(toy.conditionals(blank), 0.25)
    row = blank.copy()
    row[0, :4] = range(4)
    assert math.exp(toy.log_prob(row)[0]) == pytest.approx(1 / 24)  # each of the 24 first rows is as likely
    # the box of the first cell holds 0 and 1 already, so below them stand 2 and 3
    np.testing.assert_allclose(toy.conditionals(row)[0, 4], [0, 0, 0.5, 0.5])
    law = exact.law(Whole() + Entropy() + Top(1) + ONE, exact.TOYS["sudoku4"]())
    assert exact.tv(exact.TOYS["sudoku4"](), law) < 1e-9
    assert len(law.outcomes) == 3


@pytest.mark.parametrize("name", exact.TOYS)
def test_every_toy_is_sound_and_quick(name):
    toy = exact.TOYS[name]()
    law = exact.law(Whole() + Entropy() + Top(1) + ONE, toy)
    assert exact.tv(toy, law) < 1e-9
    assert law.expected_nfe == pytest.approx(toy.canvas().blank.sum())
    canvas = Template.parse(toy.template).canvas(toy.tokenizer, [{}])
    assert canvas.tokens.shape == toy.canvas().tokens.shape
    assert toy.tokenizer.encode(toy.tokenizer.decode(range(toy.size))) == list(range(toy.size))


def test_a_shorter_canvas_is_the_law_of_the_first_positions():
    law = exact.law(Whole() + Random() + Top(1) + ONE, CHAIN, CHAIN.canvas(slots={"text": 3}))
    np.testing.assert_allclose(law.table, CHAIN.table().sum((3, 4)), atol=1e-12)
    assert exact.tv(CHAIN, law) < 1e-9


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: exact.Joint([[1, 2, 3], [1, 2, 3]]), "all equally long"),
        (lambda: exact.Joint([1.0, -1.0]), "at least 0"),
        (lambda: exact.Joint([1.0, math.nan]), "finite"),
        (lambda: exact.Joint([[0.0, 0.0], [0.0, 0.0]]), "sums to 0"),
        (lambda: exact.MarkovChain([1, 1], [[1, 0], [0, 0]], 3), "transition sums to 0"),
        (lambda: exact.Listed([[0, 5]], 3), r"tokens 0 … 2"),
        (lambda: exact.nae_sat(17, 1), "3 to 16 latents"),
        (lambda: exact.sudoku4("1"), "16 characters"),
        (lambda: exact.Joint([1, 1]).canvas(slots={"a": 2}), "has 1 positions"),
        (
            lambda: exact.law(Top(1), exact.Joint(np.eye(2)), exact.Joint(np.eye(2)).canvas(given={0: 0, 1: 1})),
            "probability zero",
        ),
    ],
)
def test_nonsense_is_refused_with_a_sentence(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# divergences, marginals, blanks


@CALM
@given(joints, st.sampled_from(SELECTIONS))
def test_divergences_are_the_textbook_formulas(joint, selection):
    law = exact.law(Whole() + Entropy() + selection[0] + ONE, joint)
    p, q = joint.table().ravel(), law.table.ravel()
    assert exact.tv(joint, law) == pytest.approx(np.abs(p - q).sum() / 2, abs=1e-12)
    assert exact.kl(joint, law) == pytest.approx(
        sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0), abs=1e-9
    )
    assert exact.tv(joint, law) <= math.sqrt(exact.kl(joint, law) / 2) + 1e-9  # Pinsker


def test_greedy_misses_mass():
    joint = random_joint(3, (3, 2))
    law = exact.law(Whole() + Entropy() + Top(1) + Greedy(), joint)
    assert len(law.outcomes) == 1
    assert math.isinf(exact.kl(joint, law)) and math.isinf(law.kl_bound) and law.tv_bound == 1
    assert exact.tv(joint, law) == pytest.approx(1 - joint.table()[next(iter(law.outcomes))])


@CALM
@given(seeds, st.floats(0.05, 2.0), st.sampled_from([Top(1), BelowEntropy(0.4)]))
def test_early_exit_is_judged_by_what_is_always_filled(seed, limit, selection):
    toy = exact.reasoning(3, 3, seed=seed)
    law = exact.law(Whole() + Entropy() + selection + ONE + EarlyExit(limit), toy)
    assert law.filled[3]
    answer = law.marginal("answer")
    truth = toy.table().sum((0, 1, 2))
    if not law.filled[:3].any():
        assert exact.tv(toy, law) == pytest.approx(np.abs(answer - truth).sum() / 2, abs=1e-9)
    assert exact.kl(toy, law) <= law.kl_bound + 1e-9
    assert exact.tv(toy, law) <= law.tv_bound + 1e-9
    assert sum(law.left.values()) == pytest.approx(1)
    if "early-exit" in law.left and not law.filled.all():
        with pytest.raises(ValueError, match="leave blanks"):
            _ = law.table


def test_observations_of_nae_sat_are_those_of_its_triples():
    toy, triples = exact.nae_sat(5, 7, seed=3), exact.nae_triples(5, 7, seed=3)
    assert triples.shape == (7, 3) and all(len(set(triple)) == 3 for triple in triples.tolist())
    latent = np.array([[0, 0, 0, 0, 0], [1, 0, 1, 1, 0], [0, 1, 1, 0, 1]], np.int32)
    observed = exact.not_all_equal(latent, triples)
    assert observed.tolist() == [
        [int(len({row[i] for i in t}) > 1) for t in triples.tolist()] for row in latent.tolist()
    ]
    assert np.exp(toy.log_prob(np.concatenate([latent, observed], 1))) == pytest.approx(1 / 32)
    assert np.isneginf(toy.log_prob(np.concatenate([latent, 1 - observed], 1))).all()
    assert exact.nae_triples(4, 0).shape == (0, 3)


# audit and frontier


def test_an_audit_reads_text_and_values():
    toy = exact.coupled(1.0, 0, length=4)
    rows = exact.audit(["eb(0.3)+temperature", Entropy() + EntropyBound(0.3) + ONE, Policy() + Top(1) + ONE], toy)
    assert rows[0].policy == "eb(0.3)+temperature"
    assert attrs.astuple(rows[0])[1:] == attrs.astuple(rows[1])[1:]
    assert 0 < rows[0].kl <= rows[0].kl_bound and 0 < rows[0].tv <= rows[0].tv_bound
    assert rows[2].expected_nfe == 4 and rows[2].tv < 1e-9


@pytest.mark.slow
@settings(deadline=None, max_examples=8)
@given(st.floats(0.0, 3.0), seeds)
def test_frontiers_go_from_one_at_a_time_to_everything_at_once(strength, seed):
    toy = exact.coupled(strength, seed, length=3)
    points = exact.frontier(toy, values=10)
    together = exact.law(Whole() + Top(3) + ONE, toy)
    # one look to compare with, two tries a step
    least = {"KLASS": 2, "lookahead-k": 3}
    for rule in exact.RULES:
        curve = [point for point in points if point.rule == rule.name]
        nfe = sorted(point.expected_nfe for point in curve)
        assert nfe[0] == pytest.approx(least.get(rule.name, 1)) and nfe[-1] > 1.5
        assert len({point.policy for point in curve}) == len(curve)
        assert all(str(parse(point.policy)) == point.policy for point in curve)
    reached = exact.at_equal_nfe(points, [1, 2, 3])
    for name, curve in reached.items():
        if name in least:
            assert np.isinf(curve[0])
            continue
        assert curve[0] == pytest.approx(exact.kl(toy, together), abs=1e-9)
        assert curve[2] == pytest.approx(0, abs=1e-9)
        assert curve[1] <= (curve[0] + curve[2]) / 2 + 1e-12


def test_a_frontier_of_one_blank_is_a_point():
    toy = exact.coupled(1.0, 0, length=3)
    points = exact.frontier(toy, toy.canvas(given={0: 1, 2: 0}))
    passes: dict[str, set[float]] = {}  # nothing is tried where one is left
    for point in points:
        assert point.expected_nfe in passes.get(point.rule, {1.0}) and point.kl < 1e-12
    assert {point.rule for point in points} == {rule.name for rule in exact.RULES}


@CALM
@given(st.lists(st.tuples(st.floats(1, 9), st.floats(0, 5)), min_size=1, max_size=12))
def test_the_hull_lies_under_all_points_and_is_convex(points):
    x, y = exact.hull(*zip(*points, strict=True))
    for a, b in points:
        assert a < x[0] or np.interp(a, x, y) <= b + 1e-9
    assert all((a, b) in points for a, b in zip(x, y, strict=True))
    slopes = np.diff(y) / np.diff(x)
    assert (slopes < 0).all() and (np.diff(slopes) >= -1e-9).all()


def test_the_mixture_of_two_settings_is_no_worse_than_the_hull_says():
    toy = exact.coupled(2.0, 4, length=4)
    slow, fast = (exact.law(Whole() + Entropy() + EntropyBound(g) + ONE, toy) for g in (0.1, 0.8))
    mixed = attrs.evolve(
        slow,
        tokens=np.concatenate([slow.tokens, fast.tokens]),
        probability=np.concatenate([slow.probability, fast.probability]) / 2,
    )
    assert exact.kl(toy, mixed) <= (exact.kl(toy, slow) + exact.kl(toy, fast)) / 2 + 1e-12
