"""The whole numbers that a backend's draws are made of, its guidance, and what it keeps of a look."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from looks import DRAWS, REAL, few, places, questions

from backends import Backend
from mdsample.backend.reference.prediction import guided
from mdsample.policy.draw import Temperature
from mdsample.policy.guide import Cfg


@few
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 2**60 - 1))
def test_shares_are_exact(backend: Backend, share: float, total: int) -> None:
    found = backend.share(share, total)
    exact = int(share * 2**60) * total >> 60 if share * 2**60 == int(share * 2**60) else None
    assert 0 <= found < total
    if exact is not None:
        assert exact - 1 <= found <= exact


@few
@given(st.data())
def test_logits_kept_or_made_again_give_the_same_draw(backend: Backend, data: st.DataObject) -> None:
    (scores, allowed), how = data.draw(questions()), data.draw(DRAWS)
    n = len(scores)
    u = np.random.default_rng(data.draw(st.integers(0, 9))).random(n)
    kept, again = backend.look_at(scores, allowed), backend.look_at(scores, allowed)
    assert kept._kept is not None
    again._kept = None
    asked: list[int] = []
    for prediction in (kept, again):
        own = prediction._logits
        prediction._logits = lambda places, *out, own=own: (asked.append(len(places)), own(places, *out))[1]
    for one, other in zip(kept.draw(*places(n), u, how), again.draw(*places(n), u, how), strict=True):
        np.testing.assert_array_equal(one, other)
    assert asked == [n], "the kept ones are not made again"


@few
@given(st.integers(0, 99), st.sampled_from([0.0, 0.5, 3.0]))
def test_guidance_equals_the_reference(backend: Backend, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    c, u = (rng.normal(size=(2, 3, 9)) * 4).astype(np.float32)
    c[0, 3], u[1, 4], u[0, 3] = -math.inf, -math.inf, -math.inf
    found, expected = backend.guided(c, u, scale), guided([c, u], Cfg(scale)).astype(np.float32)
    # MLX may fuse a product and a sum
    tolerance = 0 if backend.name == "torch" else 1e-6
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0, 1, 3, 50, 700]), st.sampled_from([1.0, 0.999, 0.9, 0.3, 0.01]))
def test_what_is_kept_is_what_a_whole_stable_sort_keeps(backend: Backend, seed: int, top_k: int, top_p: float) -> None:
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 4)), 1024
    scores = rng.normal(size=shape) * rng.choice([0.01, 1, 8])
    scores = np.round(scores) if seed % 2 else scores
    below = (scores - scores.max(1, keepdims=True)).astype(np.float32)
    found = backend.amounts(below, Temperature(top_p=top_p, top_k=top_k))
    plain = backend.amounts(below, Temperature())
    for row in range(len(found)):
        order = np.argsort(-below[row], kind="stable")[: top_k or None]
        reached = np.cumsum(plain[row, order])
        if top_p < 1:
            goal = backend.share(top_p, int(reached[-1]))
            order = order[np.concatenate([[True], reached[:-1] < goal])]
        expected = np.zeros_like(plain[row])
        expected[order] = plain[row, order]
        assert (found[row] == expected).all()


def test_total_variation_from_float64(backend: Backend) -> None:
    """The whole-number law itself, not a sample of it."""
    for scale in (0.5, 2.0, 4.0):
        scores = (np.random.default_rng(11).normal(size=(1, REAL)) * scale).astype(np.float32)
        exact = np.exp(scores.astype(np.float64) - scores.max())
        exact /= exact.sum()
        amounts = backend.amounts(backend.below(scores), Temperature()).astype(np.float64)
        assert 0.5 * np.abs(amounts / amounts.sum() - exact).sum() < 1e-6
