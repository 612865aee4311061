"""Revision by a look at what stands: laws against plain recursion, P2 against its paper, runs against promises."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from brute import ORDERS, Brute, Place, Row, above_confidence, filled, linear_time, top, whole
from hypothesis import given, settings
from hypothesis import strategies as st

import mdsample
from mdsample.core.rows import Rows
from mdsample.exact import HiddenMarkov, Joint, Listed, law
from mdsample.exact.law import visits
from mdsample.models.denoiser import Query
from mdsample.policy.base import Policy
from mdsample.policy.evidence import WrittenLogProb
from mdsample.policy.guide import NoGuide
from mdsample.policy.p2 import planned
from mdsample.sampling.sampler import Sampler
from mdsample.testing import ScriptedDenoiser, Symbols, policies, promises

RUNS = [
    (mdsample.Confidence(), mdsample.Top(2), "confidence", 0.0, top(2)),
    (mdsample.Entropy(), mdsample.AboveConfidence(0.55), "entropy", 0.0, above_confidence(0.55)),
    (mdsample.Random(), mdsample.LinearTime(2), "random", 1.0, linear_time(2)),
    (mdsample.LeftToRight(), mdsample.Top(3), "left-to-right", 0.0, top(3)),
    (mdsample.Margin(noise=0.3), mdsample.Top(2), "margin", 0.3, top(2)),
]


def left_out(brute: Brute, row: Row, position: int) -> Place:
    """What could stand at a written position, given the others."""
    return brute.places((*row[:position], None, *row[position + 1 :]))[position]


def stands(brute: Brute, row: Row) -> dict[int, np.float32]:
    """Log-probability of every token that stands."""
    there = [(i, token) for i, token in enumerate(row) if token is not None]
    return {i: np.float32(math.log(left_out(brute, row, i).p[token])) for i, token in there}


#: which positions are masked: of the row, the step in which each was written, and the step
Again = Callable[[Row, tuple[int, ...], int], list[int]]


#: sets of places that may be filled in a step, with their probabilities
Sets = Callable[[Row, int], Iterable[tuple[float, list[Place]]]]


def brute_law(size: int, length: int, sets: Sets, again: Again, budget: int) -> tuple[dict[Row, float], float]:
    """Plain recursion: the law of the final row, and the expected number of steps."""
    out: dict[Row, float] = defaultdict(float)
    steps = [0.0]

    def go(row: Row, written: tuple[int, ...], step: int, spent: int, weight: float) -> None:
        if None not in row:
            out[row] += weight
            return
        steps[0] += weight
        masked = sorted(again(row, written, step))[: budget - spent]
        for chance, chosen in sets(row, step):
            for tokens in itertools.product(range(size), repeat=len(chosen)):
                drawn = math.prod(place.p[token] for place, token in zip(chosen, tokens, strict=True))
                after, when = list(filled(row, chosen, tokens)), list(written)
                for place in chosen:
                    when[place.position] = step
                for i in masked:
                    after[i] = None
                if chance * drawn > 0:
                    go(tuple(after), tuple(when), step + 1, spent + len(masked), weight * chance * drawn)

    go((None,) * length, (-1,) * length, 0, 0, 1.0)
    return out, steps[0]


def same_law(policy: Policy, toy: Joint, expected: tuple[dict[Row, float], float]) -> None:
    found = law(policy, toy)
    assert set(found.outcomes) == {row for row, p in expected[0].items() if p > 0}
    for row, p in found.outcomes.items():
        assert p == pytest.approx(expected[0][row], abs=1e-9)
    assert found.expected_nfe == pytest.approx(expected[1], abs=1e-9)
    assert sum(found.outcomes.values()) == pytest.approx(1)
    assert math.isinf(found.kl_bound) and found.tv_bound == 1


def random_joint(seed: int, shape: tuple[int, int]) -> tuple[Joint, dict[tuple[int, ...], float]]:
    length, size = shape
    table = np.random.default_rng(seed).dirichlet(np.full(size**length, 0.7)).reshape((size,) * length)
    return Joint(table), {x: float(p) for x, p in np.ndenumerate(table)}


shapes = st.sampled_from([(3, 2), (4, 2), (3, 3)])


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.sampled_from(RUNS), st.integers(0, 999), shapes, st.floats(0.2, 1.0), st.integers(1, 5))
def test_below_confidence_is_followed_exactly(
    run: Any, seed: int, shape: tuple[int, int], limit: float, budget: int
) -> None:
    order, selection, name, noise, rule = run
    toy, joint = random_joint(seed, shape)
    plain = Brute(joint, toy.size, whole, ORDERS[name], rule, noise)

    def again(row: Row, written: tuple[int, ...], step: int) -> list[int]:
        said = stands(plain, row)
        before = sum(written[i] == step - 1 for i in said)
        doubtful = sorted((logged, i) for i, logged in said.items() if np.exp(logged) < np.float32(limit))
        return [i for _, i in doubtful[: max(0, before - 1)]]

    def sets(row: Row, step: int) -> Iterable[tuple[float, list[Place]]]:
        return plain.sets(row, 0.0, (*({},) * step, plain.predict(row)))

    policy = mdsample.Whole() + order + selection + mdsample.Temperature(1.0)
    expected = brute_law(toy.size, toy.length, sets, again, budget)
    same_law(policy + mdsample.BelowConfidence(limit, limit=budget), toy, expected)


def best(brute: Brute, row: Row, eta: float, steps: int, step: int) -> list[int]:
    """The positions that P2 keeps or fills, by the definition."""
    places, said = brute.places(row), stands(brute, row)
    scores = {i: eta * float(said[i]) if i in said else float(places[i].log_c) for i in range(len(row))}
    number = max(len(said), math.ceil(len(row) * min(1, (step + 1) / steps) - 1e-9))
    return sorted(scores, key=lambda i: (-scores[i], i not in said, i))[:number]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), shapes, st.sampled_from([0.0, 0.5, 1.0, 3.0]), st.integers(1, 16), st.integers(1, 5))
def test_p2_is_followed_exactly(seed: int, shape: tuple[int, int], eta: float, steps: int, budget: int) -> None:
    toy, joint = random_joint(seed, shape)
    plain = Brute(joint, toy.size, whole, ORDERS["confidence"], top(1))

    def sets(row: Row, step: int) -> Iterable[tuple[float, list[Place]]]:
        count = sum(row[i] is None for i in best(plain, row, eta, steps, step))
        return replace(plain, selection=top(count)).sets(row, 0.0, (plain.predict(row),))

    def again(row: Row, written: tuple[int, ...], step: int) -> list[int]:
        kept = best(plain, row, eta, steps, step)
        return [i for i, token in enumerate(row) if token is not None and i not in kept]

    policy = mdsample.p2(eta, steps=steps) + mdsample.Temperature(1.0)
    expected = brute_law(toy.size, toy.length, sets, again, budget)
    same_law(policy.replace(mdsample.P2Remask(eta, steps=steps, limit=budget)), toy, expected)


def query(model: ScriptedDenoiser, plan: Any, tokens: Any, wanted: Any) -> Any:
    """A look at one row without fixed text."""
    every = np.ones(tokens.shape, np.bool_)
    return model.predict(
        Query(tokens, every, wanted, ~every, plan.restriction, NoGuide(), Rows([(0, 0)], np.zeros(1, np.int32)))
    )


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99), st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_p2_at_temperature_0_is_the_papers_algorithm(seed: int, length: int, steps: int, eta: float) -> None:
    steps = min(steps, length)
    model = ScriptedDenoiser(Symbols(5), seed, 2.0)
    mask = model.tokenizer.mask_id
    canvas = mdsample.Template.parse(f"{{text:{length}}}").canvas(model.tokenizer, [{}])
    sampler = Sampler(mdsample.p2(eta, steps=steps))
    plan = sampler.plan(model, canvas)
    found = [state.tokens[0].tolist() for state, _ in sampler.steps(model, canvas)]
    assert len(found) == steps
    x = np.full(length, mask, np.int32)
    for i in range(1, steps + 1):
        prediction = query(model, plan, x[None], np.ones((1, length), np.bool_))
        masked = x == mask
        best = prediction.marginals.token[0]
        proposed = np.where(masked, best, x).astype(np.int32)
        here = np.arange(length, dtype=np.int32)
        score = prediction.log_probabilities(np.zeros_like(here), here, proposed).astype(np.float64)
        score[~masked] *= eta
        again = np.argsort(score + np.where(masked, 0, 1e-12), kind="stable")[
            : math.floor(length * (1 - i / steps) + 1e-9)
        ]
        x = np.where(masked, best, x).astype(np.int32)
        x[again] = mask
        assert found[i - 1] == x.tolist()


@pytest.mark.parametrize("steps", [9, 30])
def test_p2_with_more_steps_than_blanks_ends_in_time(steps: int) -> None:
    model = ScriptedDenoiser(Symbols(5), 1, 2.0)
    canvas = mdsample.Template.parse("{text:8}").canvas(model.tokenizer, [{}] * 6)
    result = promises.run(mdsample.p2(2.0, steps=steps) + mdsample.Temperature(1.0), model, canvas)
    assert result.state.remasked.any()
    assert all(row.steps <= steps and row.unfilled == 0 for row in result.rows)


@pytest.mark.slow
@settings(deadline=None)
@given(policies(("text",), vocab=5, blanks=9), st.integers(0, 9), st.floats(0.05, 1.0))
def test_below_confidence_takes_no_more_steps_than_blanks(policy: Policy, seed: int, limit: float) -> None:
    model = ScriptedDenoiser(Symbols(5), seed, 2.0)
    canvas = mdsample.Template.parse("{text:9}").canvas(model.tokenizer, [{}] * 3)
    whole = policy.replace(mdsample.BelowConfidence(limit))
    result = promises.run(whole, model, canvas)
    assert all(row.steps <= 9 for row in result.rows)
    one = promises.run(whole.replace(mdsample.Top(1)), model, canvas)
    assert not one.state.remasked.any() or any(c.by_rule for row in one.rows for c in row.commits)


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [
        mdsample.Whole() + mdsample.Top(2) + mdsample.Temperature(1.0) + mdsample.BelowConfidence(0.6),
        mdsample.p2(1.5, steps=3) + mdsample.Temperature(1.0),
    ],
)
def test_runs_follow_the_law_and_say_that_no_bound_holds(policy: Policy) -> None:
    toy, _ = random_joint(1, (4, 2))
    result = promises.run(policy, toy, toy.canvas(4000), 3)
    counts = defaultdict[tuple[int, ...], int](int)
    for i, row in enumerate(result.rows):
        counts[tuple(row.tokens.tolist())] += 1
        again = result.state.remasked[i] > 0
        assert math.isinf(row.error_bound) == math.isinf(row.tv_bound) == again
        assert len(row.commits) == 4 + result.state.remasked[i]
    assert (result.state.remasked > 0).sum() > 200
    promises.a_trace_replays(result, toy)
    expected = law(policy, toy).outcomes
    assert sum(abs(counts[row] / 4000 - p) for row, p in expected.items()) / 2 < 0.04


def toys() -> list[Any]:
    rng = np.random.default_rng(3)
    table = rng.dirichlet(np.ones(27)).reshape(3, 3, 3)
    rows = np.array(list(np.ndindex(3, 3, 3)), np.int32)
    markov = HiddenMarkov(rng.dirichlet(np.ones(2)), rng.dirichlet(np.ones(2), 2), rng.dirichlet(np.ones(3), 2), 3)
    return [Joint(table), Listed(rows, 3, table.reshape(-1)), markov]


@pytest.mark.parametrize("number", range(3))
def test_a_toy_leaves_out_the_token_that_stands(number: int) -> None:
    toy = toys()[number]
    plain = Brute({x: float(p) for x, p in np.ndenumerate(toy.table())}, 3, whole, ORDERS["confidence"], top(1))
    seen = 0
    for _, view in visits(mdsample.Whole() + mdsample.Temperature(1.0) + mdsample.BelowConfidence(), toy):
        for tokens, said in zip(view.batch.tokens.tolist(), view.get(WrittenLogProb()).tolist(), strict=True):
            row = tuple(None if token == 3 else token for token in tokens)
            expected = stands(plain, row)
            seen += len(expected)
            for i, value in enumerate(said):
                assert value == pytest.approx(expected[i], abs=1e-6) if i in expected else math.isnan(value)
    assert seen > 20
    for _, view in visits(mdsample.Whole() + mdsample.Temperature(1.0), toy):
        with pytest.raises(ValueError, match="without declaring it; add it to the part's `needs`"):
            view.get(WrittenLogProb())


def test_what_stands_is_seen_under_constraints() -> None:
    model = ScriptedDenoiser(Symbols(6), 2, 2.0)
    canvas = mdsample.Template.parse("{text:4}{answer:3}").canvas(model.tokenizer, [{}] * 4)
    policy = mdsample.Whole() + mdsample.Top(3) + mdsample.BelowConfidence(1.0) + mdsample.Choices(("abc", "fed"))
    sampler = Sampler(policy)
    sought = 0
    for state, event in sampler.steps(model, canvas):
        there = canvas.slot[event.remasked_row, event.remasked_position]
        assert (there == 0).all()  # a choice's tokens are the only ones possible
        sought += len(there)
        assert not (state.blank & ~canvas.blank).any()
    assert sought


def test_the_plan_of_p2() -> None:
    toy, _ = random_joint(5, (4, 2))
    policy = mdsample.p2(0.0, steps=4) + mdsample.Temperature(1.0)
    for _, view in visits(policy, toy):
        kept = planned(view, 0.0, 4, "own")
        assert (kept | view.batch.blank).all()  # at 0 all that stands stays
        assert (kept.sum(1) == view.batch.step + 1).all()
    # then it is highest confidence first, an even split
    other = law(mdsample.Whole() + mdsample.llada(4) + mdsample.Temperature(1.0), toy)
    assert law(policy, toy).outcomes == pytest.approx(other.outcomes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mdsample.BelowConfidence(0), "above 0"),
        (lambda: mdsample.BelowConfidence(1.5), "at most 1"),
        (lambda: mdsample.BelowConfidence(limit=0), "at least 1"),
        (lambda: mdsample.P2Remask(-1), "at least 0"),
        (lambda: mdsample.P2Reveal(steps=0), "at least 1"),
        (lambda: mdsample.P2Remask(limit=0), "at least 1"),
    ],
)
def test_wrong_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p2-remask", r"p2-remask plans together with p2-reveal, not with top; take the preset p2"),
        ("med+p2-remask(2)", r"p2-remask\(2\) plans together with p2-reveal\(2\), not with below-entropy"),
        ("confidence+p2-reveal(steps=9)+p2-remask", r"together with p2-reveal, not with p2-reveal\(steps=9\)"),
    ],
)
def test_half_of_p2_is_refused(text: str, message: str) -> None:
    model = ScriptedDenoiser(Symbols(5), 1, 2.0)
    canvas = mdsample.Template.parse("{text:4}").canvas(model.tokenizer, [{}])
    with pytest.raises(mdsample.PolicyError, match=message):
        Sampler(mdsample.parse(text)).plan(model, canvas)


def test_among_equals_p2_keeps_what_stands() -> None:
    model = ScriptedDenoiser(Symbols(5), 1, 1e4)  # certain of every blank, so with eta 0 all scores are 0
    canvas = mdsample.Template.parse("{text:6}").canvas(model.tokenizer, [{}])
    result = promises.run(mdsample.p2(0.0, steps=6), model, canvas)
    assert result.rows[0].steps == 6 and not result.state.remasked.any()


def test_the_preset_as_text() -> None:
    text = "p2(2,steps=32)"
    assert mdsample.parse(text) == mdsample.p2(2.0, steps=32)
    assert [p.name for p in mdsample.parse(text).parts] == ["whole", "confidence", "p2-reveal", "p2-remask"]
    assert mdsample.parse(str(mdsample.parse(text))) == mdsample.parse(text)
