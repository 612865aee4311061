"""Continuations: on toys the joint's own log-probabilities; greedy as brute force has it; the same masks for all."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mdsample
from mdsample import exact
from mdsample.errors import ScoreError
from mdsample.scoring.continuations import Asked, continuations
from mdsample.scoring.methods import ChainRule, MarginalProduct, MonteCarloBound
from mdsample.testing import ScriptedDenoiser, Symbols

V, N = 3, 5


def toy(seed: int) -> exact.Joint:
    rng = np.random.default_rng(seed)
    return exact.Joint(rng.dirichlet(np.full(V**N, 0.3)).reshape((V,) * N))


texts = st.lists(st.integers(0, V - 1), min_size=N, max_size=N).map(tuple)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.lists(st.tuples(texts, st.integers(0, N - 1)), min_size=1, max_size=7), st.integers(1, 4))
def test_the_chain_rule_is_the_joints_own(seed: int, pairs: list[tuple[tuple[int, ...], int]], batch_size: int) -> None:
    model = toy(seed)
    table = model.table()
    asked = [Asked(text[:cut], text[cut:], n) for n, (text, cut) in enumerate(pairs)]
    found = continuations(model, asked, ChainRule(), batch_size=batch_size)
    for (text, cut), one in zip(pairs, found, strict=True):
        inside = table[text[:cut]]
        assert one.log_probability == pytest.approx(np.log(inside[text[cut:]] / inside.sum()), abs=2e-5)
        assert one.nfe == N - cut
        greedy: list[int] = []
        for place in range(cut, N):
            known = table[(*text[:cut], *greedy)]
            greedy.append(int(known.sum(tuple(range(1, N - place))).argmax()))
        assert one.greedy == (tuple(greedy) == text[cut:])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), texts)
def test_one_token_is_exact_by_the_product_too(seed: int, text: tuple[int, ...]) -> None:
    asked = [Asked(text[:-1], text[-1:], "q")]
    (chain,), (product,) = (continuations(toy(seed), asked, how) for how in (ChainRule(), MarginalProduct()))
    assert product.log_probability == pytest.approx(chain.log_probability, abs=1e-6)
    assert product.nfe == 1 and product.greedy is None


def test_choices_of_one_question_see_the_same_masks_as_far_as_they_go() -> None:
    """Differences within a question vary less than with masks of their own; so do those between unequal lengths."""
    model = ScriptedDenoiser(Symbols(12), 3, 2.0)
    pairs = list(itertools.combinations([(1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 3), (6, 2, 3)], 2))

    def spread(shared: bool) -> list[float]:
        found: list[list[float]] = []
        for seed in range(40):
            how = MonteCarloBound(8, seed=seed)
            for first, second in pairs:
                asked = [Asked((0,), first, "q"), Asked((0,), second, "q" if shared else "other")]
                one, other = continuations(model, asked, how)
                found.append([one.log_probability - other.log_probability])
        return np.array(found).reshape(40, len(pairs)).std(0).tolist()

    same, apart = spread(True), spread(False)
    assert np.mean(same) < 0.8 * np.mean(apart)


def test_results_do_not_depend_on_neighbours() -> None:
    model = mdsample.load("tiny-gsm")
    encode = model.tokenizer.encode
    asked = [Asked(tuple(encode("1 + 2 = ")), tuple(encode(text)), "q") for text in ("3", "12", "4. Then")]
    for how in (ChainRule(), MarginalProduct(), MonteCarloBound(4)):
        together = continuations(model, asked, how)
        for one, alone in zip(asked, together, strict=True):
            (again,) = continuations(model, [one], how, batch_size=1)
            assert again.log_probability == pytest.approx(alone.log_probability, abs=1e-4)


def test_what_cannot_be_scored_is_refused_first() -> None:
    model = mdsample.load("tiny-gsm")
    assert continuations(model, [], ChainRule()) == []
    with pytest.raises(ScoreError, match="has no tokens"):
        continuations(model, [Asked((1,), (), "q")], ChainRule())
    with pytest.raises(ScoreError, match=f"takes at most {model.max_length}"):
        continuations(model, [Asked((1,) * model.max_length, (1,), "q")], ChainRule())
