"""What is the MLX look's own: evaluations, transfers and memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

mx: Any = pytest.importorskip("mlx.core")

from looks import BLOCK, REAL, places, restrict
from looks import mlx_look_at as look_at
from mdsample_mlx import draw, weights
from mdsample_mlx import prediction as looking
from mdsample_mlx.draw import split
from mdsample_mlx.prediction import MlxPrediction
from mdsample_mlx.reduce import reduce

from mdsample.policy.draw import Greedy, Temperature
from mdsample.policy.guide import NoGuide

CPU = mx.Device(mx.cpu)


def test_blocks_are_what_the_tests_take_them_for() -> None:
    assert weights.BLOCK == BLOCK


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
    MlxPrediction(logits, REAL, wanted, restrict(wanted.shape, REAL), NoGuide(), CPU)
    assert max(sizes) <= looking.CHUNK_BYTES and len(sizes) == -(-400 // (looking.CHUNK_BYTES // 4 // REAL))
    # the whole would be 193 MiB, in each of half a dozen steps
    assert mx.get_peak_memory() - before < 8 * looking.CHUNK_BYTES
