"""Looks and draws of every backend against NumPy in float64, against brute force, and at the size of a vocabulary."""

from __future__ import annotations

import math
import sys
from typing import ClassVar, final

import attrs
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from looks import (
    BLOCK,
    BOUNDARIES,
    DRAWS,
    REAL,
    LookAt,
    few,
    looks,
    off_edges,
    places,
    questions,
    reference,
)

from mdsample.errors import ModelError
from mdsample.policy.draw import Draw, Greedy, Temperature


@settings(max_examples=80, deadline=None)
@given(st.data())
@looks
def test_statistics_equal_the_reference(look_at: LookAt, data: st.DataObject) -> None:
    scores, allowed = data.draw(questions())
    found, expected = look_at(scores, allowed).marginals, reference(scores, allowed).marginals
    for name in ("log_probability", "second", "entropy"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6, err_msg=name)
    # where two tokens are as good as equal the lower id may win here and not there
    clear = found.log_probability - found.second > 1e-5
    clear |= (scores == np.round(scores)).all()  # whole numbers: ties are exact
    assert (found.token == expected.token)[clear].all() and found.token.dtype == np.int32


@looks
def test_equals_are_equals_even_in_other_blocks(look_at: LookAt) -> None:
    scores = np.full((3, 2 * BLOCK), -50.0)
    scores[0, [BLOCK + 3, BLOCK + 7]] = 4  # a tie inside a block
    scores[1, [10, BLOCK + 1]] = 4  # and across blocks
    scores[2, 20], scores[2, BLOCK + 2] = 1e-9, 2e-9  # not equal, but their log-probabilities are
    assert look_at(scores).marginals.token.tolist() == [[BLOCK + 3, 10, 20]]


@looks
def test_near_certainty_is_told_from_certainty(look_at: LookAt) -> None:
    found = look_at([[0.0, -25.0, -30.0], [5.0, -math.inf, -math.inf]]).marginals
    rest = math.exp(-25) + math.exp(-30)
    assert found.log_probability[0, 0] == pytest.approx(-math.log1p(rest), rel=1e-5)
    expected = math.log1p(rest) + 25 * math.exp(-25) + 30 * math.exp(-30)
    assert found.entropy[0, 0] == pytest.approx(expected, rel=1e-5)
    assert (found.log_probability[0, 1], found.second[0, 1], found.entropy[0, 1]) == (0, -math.inf, 0)


@looks
def test_looks_scatter_and_the_rest_is_unseen(look_at: LookAt) -> None:
    wanted = np.array([[False, True, False], [True, False, True]])
    found = look_at(np.log([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25]]), wanted=wanted).marginals
    assert found.token.tolist() == [[0, 0, 0], [2, 0, 1]]
    np.testing.assert_allclose(found.confidence[wanted], [0.7, 0.8, 0.5], rtol=1e-6)
    assert (found.log_probability[~wanted] == -math.inf).all() and (found.entropy[~wanted] == math.inf).all()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([0.0, math.nan, 1.0], "row 0, position 1 no usable scores: the highest is nan; its weights are damaged"),
        ([0.0, math.inf, 1.0], "row 0, position 1 no usable scores: the highest is inf"),
        ([-math.inf] * 3, "row 0, position 1 no usable scores: every token .* probability zero; loosen"),
    ],
)
@looks
def test_broken_scores_are_an_error(look_at: LookAt, scores: list[float], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        look_at([[0, 0, 0], scores])


@looks
def test_refusals(look_at: LookAt) -> None:
    wanted = np.array([[True, False]])
    prediction = look_at(np.zeros((1, 3)), wanted=wanted)
    with pytest.raises(ValueError, match="row 0, position 1 was not looked at"):
        prediction.draw(*places(1, 1), np.array([0.5]), Greedy())
    with pytest.raises(ValueError, match="uniforms must lie in"):
        prediction.draw(*places(1), np.array([1.0]), Greedy())
    with pytest.raises(ValueError, match="no token may stand at row 0, position 1"):
        look_at(np.zeros((2, 3)), [[True] * 3, [False] * 3])
    with pytest.raises(ModelError, match="row 0, position 0 no usable scores: every token"):
        look_at([[0, -math.inf]], [[False, True]])

    @final
    @attrs.frozen
    class Dice(Draw):
        name: ClassVar[str] = "dice"

    with pytest.raises(ValueError, match="the draw Dice is not known here; known: greedy, temperature"):
        prediction.draw(*places(1), np.array([0.5]), Dice())


@looks
def test_nothing_looked_at(look_at: LookAt) -> None:
    prediction = look_at(np.zeros((0, 3)), wanted=np.zeros((2, 2), np.bool_))
    assert (prediction.marginals.entropy == math.inf).all()
    tokens, probability = prediction.draw(*places(0), np.zeros(0), Temperature(top_p=0.5))
    assert tokens.shape == probability.shape == (0,)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(st.data())
@looks
def test_draws_equal_the_reference(look_at: LookAt, data: st.DataObject) -> None:
    (scores, allowed), how = data.draw(questions()), data.draw(DRAWS)
    at, n = data.draw(st.integers(0, len(scores) - 1)), 40
    ours, theirs = look_at(scores, allowed), reference(scores, allowed)
    law = theirs.probabilities(*places(1, at), how)
    one = theirs.probabilities(*places(1, at), Temperature())[0]
    # thresholds that rounding could put on either side
    if how.min_p or how.top_p < 1:
        plain = theirs.probabilities(*places(1, at), Temperature(how.t, top_k=how.top_k))[0]
        assume((np.abs(plain / plain.max() - how.min_p) > 1e-5).all())
        cut = theirs.probabilities(*places(1, at), Temperature(how.t, top_k=how.top_k, min_p=how.min_p))[0]
        assume((np.abs(np.cumsum(np.sort(cut)[::-1]) - how.top_p) > 1e-5).all())
        assume(len(np.unique(scores)) == scores.size or how.top_p == 1)
    uniforms = np.random.default_rng(data.draw(st.integers(0, 9))).random(n)
    tokens, probability = ours.draw(*places(n, at), uniforms, how)
    assert tokens.dtype == np.int32 and probability.dtype == np.float32
    assert off_edges(np.repeat(law, n, 0), tokens, uniforms).max() < 1e-6 and (law[0, tokens] > 0).all()
    np.testing.assert_allclose(probability, one[tokens], rtol=1e-4)


@few
@given(st.data())
@looks
def test_draws_under_a_restriction_equal_the_reference(look_at: LookAt, data: st.DataObject) -> None:
    scores, narrow = data.draw(questions())
    n, u = len(scores), np.full(len(scores), 0.7)
    for how in (Greedy(), Temperature(0.8)):
        expected = reference(scores, narrow).draw(*places(n), u, how)
        found = look_at(scores, narrow).draw(*places(n), u, how)
        law = reference(scores, narrow).probabilities(*places(n), how)
        if isinstance(how, Greedy):
            ranked = np.sort(
                scores if narrow is None else np.where(narrow[np.arange(n) % len(narrow)], scores, -1e9), 1
            )
            clear = np.ones(n, np.bool_) if n == 0 or scores.shape[1] == 1 else ranked[:, -1] - ranked[:, -2] > 1e-5
            assert (found[0] == expected[0])[clear].all()
        else:
            assert off_edges(law, found[0], u).max() < 1e-6
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-4) if (found[0] == expected[0]).all() else None


@few
@given(
    st.lists(st.one_of(st.floats(-800, 30, width=32), st.just(-math.inf)), min_size=2, max_size=40), st.integers(0, 99)
)
@looks
def test_a_token_of_probability_zero_is_never_drawn(look_at: LookAt, scores: list[float], seed: int) -> None:
    assume(max(scores) > -math.inf)
    law = reference([scores]).probabilities(*places(1), Temperature())[0]
    edges = np.cumsum(law) / law.sum()
    u = np.concatenate([[0.0, 2.0**-54, 1 - 2**-53], edges, np.nextafter(edges, 0), np.nextafter(edges, 1)])
    u = np.concatenate([u, np.random.default_rng(seed).random(20)])
    u = u[(u >= 0) & (u < 1)]
    tokens, _ = look_at([scores]).draw(*places(len(u), 0), u, Temperature())
    assert (law[tokens] > 0).all()


@pytest.mark.parametrize(("how", "kept"), BOUNDARIES)
@looks
def test_boundaries(look_at: LookAt, how: Temperature, kept: int) -> None:
    law = [0.5, 0.25, 0.25, 0.0] if kept < 4 else [0.25] * 4
    with np.errstate(divide="ignore"):
        scores = np.log2([law]) * math.log(2)
    tokens, _ = look_at(scores).draw(*places(100, 0), (np.arange(100) + 0.5) / 100, how)
    assert set(tokens.tolist()) == set(range(kept))


@pytest.mark.parametrize("t", [5e-324, 1e-300, 1e-30])
@looks
def test_the_coldest_temperature_is_greedy(look_at: LookAt, t: float) -> None:
    tokens, _ = look_at([[0.0, 1.0, 0.999]]).draw(*places(9, 0), np.linspace(0, 0.99, 9), Temperature(t))
    assert set(tokens.tolist()) == {1}


@pytest.mark.parametrize("t", [1e300, 1e25])
@looks
def test_the_hottest_is_uniform_over_what_is_allowed(look_at: LookAt, t: float) -> None:
    prediction = look_at([[0.0, 9.0, -800.0, 5.0]], [[True, True, True, False]])
    tokens, _ = prediction.draw(*places(300, 0), (np.arange(300) + 0.5) / 300, Temperature(t))
    assert np.bincount(tokens, minlength=4).tolist() == [100, 100, 100, 0]


@looks
@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-53])
def test_a_block_that_is_all_forbidden_is_never_drawn_from(look_at: LookAt, u: float) -> None:
    scores = np.full((1, 3 * BLOCK), -math.inf)
    scores[0, [BLOCK + 3, BLOCK + 9]] = 0
    tokens, _ = look_at(scores).draw(*places(1), np.array([u]), Temperature())
    assert tokens[0] == (BLOCK + 3 if u < 0.5 else BLOCK + 9)


class TestRealVocabulary:
    SCORES: ClassVar = (np.random.default_rng(11).normal(size=(1, REAL)) * 2).astype(np.float32)

    @pytest.mark.slow
    @pytest.mark.parametrize("how", [Temperature(), Temperature(0.6), Temperature(top_p=0.9)])
    @looks
    def test_draws_follow_the_law(self, look_at: LookAt, how: Temperature) -> None:
        n = 640 if how.top_p == 1 else 32
        u = np.random.default_rng(12).random(n)
        tokens, _ = look_at(self.SCORES).draw(*places(n, 0), u, how)
        law = reference(self.SCORES).probabilities(*places(1), how)[0]
        # exactly: the uniform lies in its token's interval of the CDF computed in float64
        high = np.cumsum(law) / law.sum()
        assert np.maximum((high - law)[tokens] - u, u - high[tokens]).max() < 1e-6
        # and by chi-square, which knows nothing of intervals
        group = np.random.default_rng(13).permutation(REAL) % 16
        expected = np.bincount(group, law, 16) * n
        if n > 100:
            assert ((np.bincount(group[tokens], minlength=16) - expected) ** 2 / expected).sum() < 37.7  # 99.9 %, 15

    @looks
    def test_entropy_is_exact(self, look_at: LookAt) -> None:
        law = reference(self.SCORES).marginals
        found = look_at(self.SCORES).marginals
        np.testing.assert_allclose(found.entropy, law.entropy, rtol=1e-6)
        np.testing.assert_allclose(found.log_probability, law.log_probability, rtol=1e-6)


@looks
def test_what_was_impossible_stays_so_under_a_restriction(look_at: LookAt) -> None:
    with pytest.raises(ModelError, match=r"every token .* probability zero"):
        look_at([[0.0, -math.inf, -math.inf]], [[False, True, True]])


@looks
@few
@given(st.data())
def test_stated_tokens_equal_the_reference(look_at: LookAt, data: st.DataObject) -> None:
    scores, allowed = data.draw(questions())
    n = len(scores)
    tokens = np.random.default_rng(data.draw(st.integers(0, 9))).integers(0, scores.shape[1], n).astype(np.int32)
    found = look_at(scores, allowed).log_probabilities(*places(n), tokens)
    expected = reference(scores, allowed).log_probabilities(*places(n), tokens)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)
    prediction = look_at(scores, allowed)
    best = prediction.log_probabilities(*places(n), prediction.marginals.token[0])
    np.testing.assert_allclose(best, prediction.marginals.log_probability[0], atol=1e-6)


@looks
def test_stated_tokens_are_refused_where_nothing_is_known(look_at: LookAt) -> None:
    prediction = look_at(np.zeros((1, 3)), wanted=np.array([[True, False]]))
    with pytest.raises(ValueError, match="row 0, position 1 was not looked at, so nothing is known of it"):
        prediction.log_probabilities(*places(1, 1), np.zeros(1, np.int32))
    for token in (-1, 3):
        with pytest.raises(ValueError, match=rf"there is no token {token}; ids go from 0 to 2"):
            prediction.log_probabilities(*places(1), np.array([token], np.int32))


# looks compared


@settings(max_examples=60, deadline=None)
@given(st.data())
@looks
def test_divergences_equal_the_reference(look_at: LookAt, data: st.DataObject) -> None:
    scores, allowed = data.draw(questions())
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    moved = scores + rng.normal(size=scores.shape).astype(np.float32) * data.draw(st.sampled_from([0.0, 0.01, 1.0]))
    (rows, positions), before = places(len(scores)), np.zeros(len(scores), np.int32)
    # allowing less moves the law as well
    found = look_at(scores, allowed).divergence(rows, positions, look_at(moved), before)
    expected = reference(scores, allowed).divergence(rows, positions, reference(moved), before)
    assert found.dtype == np.float32 and (found >= 0).all()
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5)


@looks
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_logits_that_were_not_kept_are_compared_all_the_same(
    look_at: LookAt, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = np.random.default_rng(0).normal(size=(5, BLOCK)).astype(np.float32)
    prediction = look_at(scores)
    monkeypatch.setattr(sys.modules[type(prediction).__module__], "CHUNK_BYTES", rows * 4 * BLOCK)
    before = look_at(2 * scores)
    assert (before._kept is None) == (rows < 5)  # type: ignore[attr-defined]
    some = np.array([4, 0, 3, 1], np.int32)
    at = (np.zeros(4, np.int32), some)
    expected = reference(scores).divergence(*at, reference(2 * scores), at[0])
    for one in (prediction, look_at(scores)):
        np.testing.assert_allclose(one.divergence(*at, before, at[0]), expected, rtol=1e-5, atol=1e-6)


@looks
def test_divergences_by_hand(look_at: LookAt) -> None:
    one = np.log([[0.5, 0.25, 0.25], [0.5, 0.5, 1e-30], [0.5, 0.25, 0.25]])
    two = np.log([[0.25, 0.25, 0.5], [0.5, 0.5, 1e-30], [0.5, 0.25, 0.25]])
    one[1, 2] = two[1, 2] = two[2, 2] = -math.inf
    (rows, positions), before = places(3), np.zeros(3, np.int32)
    found = look_at(one).divergence(rows, positions, look_at(two), before)
    assert found == pytest.approx([0.25 * math.log(2), 0, math.inf], abs=1e-6)
    back = look_at(two).divergence(rows, positions, look_at(one), before)
    assert back == pytest.approx([0.25 * math.log(2), 0, math.log(4 / 3)], abs=1e-6)


@looks
def test_only_looks_of_one_kind_at_places_seen_are_compared(look_at: LookAt) -> None:
    scores = np.zeros((2, 3))
    prediction, other = look_at(scores), look_at(scores[:1], wanted=np.array([[True, False]]))
    one = np.ones(1, np.int32)
    with pytest.raises(ValueError, match="position 1 was not looked at"):
        prediction.divergence(0 * one, one, other, 0 * one)
    with pytest.raises(ValueError, match="position 1 was not looked at"):
        other.divergence(0 * one, one, prediction, 0 * one)
    with pytest.raises(ValueError, match="cannot be compared with a NumpyPrediction: predict on one backend"):
        prediction.divergence(0 * one, 0 * one, reference(scores), 0 * one)
