"""What is the MLX look's own: evaluations, transfers, memory, and the whole numbers of its draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

mx: Any = pytest.importorskip("mlx.core")

from looks import BLOCK, DRAWS, REAL, few, places, restrict, sets, tables
from looks import mlx_look_at as look_at
from mdsample_mlx import draw, weights
from mdsample_mlx import prediction as looking
from mdsample_mlx.backend import guided as mlx_guided
from mdsample_mlx.draw import _amounts
from mdsample_mlx.prediction import MlxPrediction
from mdsample_mlx.reduce import reduce

from mdsample.backend.fixed_point import share_of, split
from mdsample.backend.reference.prediction import guided
from mdsample.policy.draw import Greedy, Temperature
from mdsample.policy.guide import Cfg

CPU = mx.Device(mx.cpu)


def test_blocks_are_what_the_tests_take_them_for() -> None:
    assert weights.BLOCK == BLOCK


@few
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 2**60 - 1))
def test_shares_are_exact(share: float, total: int) -> None:
    found = int(share_of(mx.array(split(np.array([share]))), mx.array(np.array([total])))[0].item())
    exact = int(share * 2**60) * total >> 60 if share * 2**60 == int(share * 2**60) else None
    assert 0 <= found < total
    if exact is not None:
        assert exact - 1 <= found <= exact


class Syncs:
    """Counts what makes the host wait for the device: evaluations, and arrays that are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.evaluated, self.fetched = 0, list[tuple[int, ...]]()
        own = looking._fetch

        def fetch(parts: Any, count: int) -> Any:
            found = own(parts, count)
            self.fetched.append(found.shape)
            return found

        def evaluate(*arrays: Any) -> None:
            self.evaluated += 1
            mx.eval(*arrays)

        monkeypatch.setattr(looking, "_fetch", fetch)
        monkeypatch.setattr(looking, "evaluate", evaluate)


@pytest.mark.parametrize("chunk_rows", [3, 100])
def test_one_transfer_a_look_and_one_a_draw(chunk_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "CHUNK_BYTES", chunk_rows * 4 * BLOCK)
    syncs = Syncs(monkeypatch)
    scores = np.random.default_rng(0).normal(size=(7, 300))
    prediction: Any = look_at(scores, [[True] * 290 + [False] * 10, [False] * 100 + [True] * 200])
    # in chunks, each is done before the next one is made
    more = 3 if chunk_rows == 3 else 0
    assert (syncs.fetched, syncs.evaluated) == ([(4, 7)], more)
    prediction.draw(*places(7), np.full(7, 0.3), Greedy())
    assert len(syncs.fetched) == 1, "the look has said what a greedy draw gives"
    prediction.draw(*places(7), np.full(7, 0.3), Temperature(0.7, top_p=0.9, top_k=50, min_p=0.01))
    assert (syncs.fetched, syncs.evaluated) == ([(4, 7), (2, 7)], 2 * more)
    assert (prediction._kept is None) == (chunk_rows == 3)


def test_nothing_is_read_before_the_end() -> None:
    """What a look is made of is lazy: making it evaluates nothing."""
    below = reduce(mx.array(np.random.default_rng(0).normal(size=(2, BLOCK)).astype(np.float32))).below
    before = mx.get_active_memory()
    token = draw.inverse_cdf(below, mx.array(split(np.array([0.1, 0.2]))), Temperature(0.8, top_k=9, top_p=0.5))
    assert mx.get_active_memory() - before < 4 * below.size
    mx.eval(token)


def test_logits_are_never_there_all_at_once() -> None:
    sizes: list[int] = []

    def logits(places: Any) -> Any:
        sizes.append(places.size * REAL * 4)
        return mx.zeros((places.size, REAL), mx.float32)

    wanted = np.ones((2, 200), np.bool_)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    MlxPrediction(logits, REAL, wanted, restrict(wanted.shape, REAL), CPU)
    assert max(sizes) <= looking.CHUNK_BYTES and len(sizes) == -(-400 // (looking.CHUNK_BYTES // 4 // REAL))
    # the whole would be 193 MiB, in each of half a dozen steps
    assert mx.get_peak_memory() - before < 8 * looking.CHUNK_BYTES


@few
@given(st.data())
def test_logits_kept_or_made_again_give_the_same_draw(data: st.DataObject) -> None:
    scores = data.draw(tables())
    assume(np.isfinite(scores).all(0).any())
    allowed, how, n = data.draw(sets(scores)), data.draw(DRAWS), len(scores)
    u = np.random.default_rng(data.draw(st.integers(0, 9))).random(n)
    kept, again = look_at(scores, allowed), look_at(scores, allowed)
    assert kept._kept is not None
    again._kept = None
    for one, other in zip(kept.draw(*places(n), u, how), again.draw(*places(n), u, how), strict=True):
        np.testing.assert_array_equal(one, other)


@few
@given(st.integers(0, 99), st.sampled_from([0.0, 0.5, 3.0]))
def test_guidance_equals_the_reference(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    c, u = (rng.normal(size=(2, 3, 9)) * 4).astype(np.float32)
    c[0, 3], u[1, 4], u[0, 3] = -math.inf, -math.inf, -math.inf
    found = np.array(mlx_guided(mx.array(c), mx.array(u), scale))
    np.testing.assert_allclose(found, guided([c, u], Cfg(scale)).astype(np.float32), rtol=1e-6, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0, 1, 3, 50, 700]), st.sampled_from([1.0, 0.999, 0.9, 0.3, 0.01]))
def test_what_is_kept_is_what_a_whole_stable_sort_keeps(seed: int, top_k: int, top_p: float) -> None:
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 4)), 1024
    scores = rng.normal(size=shape) * rng.choice([0.01, 1, 8])
    scores = np.round(scores) if seed % 2 else scores
    scaled = mx.array((scores - scores.max(1, keepdims=True)).astype(np.float32))
    found = np.array(_amounts(scaled, Temperature(top_p=top_p, top_k=top_k)))
    plain = np.array(_amounts(scaled, Temperature()))
    share = mx.array(split(np.full(1, top_p)))
    for row in range(len(found)):
        order = np.argsort(-np.array(scaled[row]), kind="stable")[: top_k or None]
        reached = np.cumsum(plain[row, order])
        if top_p < 1:
            goal = int(share_of(share, mx.array(reached[-1:])).item())
            order = order[np.concatenate([[True], reached[:-1] < goal])]
        expected = np.zeros_like(plain[row])
        expected[order] = plain[row, order]
        assert (found[row] == expected).all()


def test_total_variation_from_float64() -> None:
    """The whole-number law itself, not a sample of it."""
    for scale in (0.5, 2.0, 4.0):
        scores = (np.random.default_rng(11).normal(size=(1, REAL)) * scale).astype(np.float32)
        exact = np.exp(scores.astype(np.float64) - scores.max())
        exact /= exact.sum()
        amounts = np.array(_amounts(reduce(mx.array(scores)).below, Temperature())).astype(np.float64)
        assert 0.5 * np.abs(amounts / amounts.sum() - exact).sum() < 1e-6
