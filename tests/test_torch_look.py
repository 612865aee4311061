"""What is the Torch look's own: when the device is waited for, what is kept, and the whole numbers of its draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from looks import BLOCK, DRAWS, REAL, few, places, restrict, sets, tables
from looks import torch_look_at as look_at
from mdsample_torch import prediction as looking
from mdsample_torch.denoiser import guide_
from mdsample_torch.prediction import TorchPrediction
from mdsample_torch.reduce import reduce_
from torch.utils._python_dispatch import TorchDispatchMode

from mdsample.backend.fixed_point import share_of, split
from mdsample.backend.reference.prediction import guided
from mdsample.policy.draw import Greedy, Temperature
from mdsample.policy.guide import Cfg


@few
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 2**60 - 1))
def test_shares_are_exact(share: float, total: int) -> None:
    found = int(share_of(torch.from_numpy(split(np.array([share]))), torch.tensor([total]))[0])
    exact = int(share * 2**60) * total >> 60 if share * 2**60 == int(share * 2**60) else None
    assert 0 <= found < total
    if exact is not None:
        assert exact - 1 <= found <= exact


class Watch(TorchDispatchMode):
    """Counts what would wait for the device, were the tensors on one: copies to the host and reads of single values."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "item", "unique", "equal", "bincount", "is_nonzero")
        name = func._schema.name.removeprefix("aten::")
        if name in waits or (name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])):
            self.reads.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("chunk_rows", [1, 3])
def test_one_transfer_a_look_and_one_a_draw(chunk_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many chunks: the host fetches once, and nothing else makes it wait."""
    monkeypatch.setattr(looking, "CHUNK_BYTES", chunk_rows * 4 * BLOCK)
    fetched: list[Any] = []
    own = torch.Tensor.cpu

    def cpu(self: Any) -> Any:
        fetched.append(self.shape)
        return own(self)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    scores = np.random.default_rng(0).normal(size=(7, 300))
    with Watch() as watch:
        prediction = look_at(scores, [[True] * 290 + [False] * 10, [False] * 100 + [True] * 200])
        assert fetched == [(4, 7)]
        prediction.draw(*places(7), np.full(7, 0.3), Greedy())
        assert fetched == [(4, 7)], "the look has said what a greedy draw gives"
        prediction.draw(*places(7), np.full(7, 0.3), Temperature(0.7, top_p=0.9, top_k=50, min_p=0.01))
        assert fetched == [(4, 7), (2, 7)]
    assert not watch.reads
    monkeypatch.setattr(looking, "CHUNK_BYTES", 64 << 20)
    whole = look_at(scores, [[True] * 290 + [False] * 10, [False] * 100 + [True] * 200]).marginals
    np.testing.assert_array_equal(prediction.marginals.token, whole.token)


def test_logits_are_never_there_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def logits(places: Any, out: Any) -> None:
        sizes.append(out.numel() * 4)
        out[:] = 0

    wanted = np.ones((2, 200), np.bool_)
    TorchPrediction(logits, REAL, REAL, wanted, restrict(wanted.shape, REAL), torch.device("cpu"))
    assert max(sizes) <= looking.CHUNK_BYTES and len(sizes) == -(-400 // (looking.CHUNK_BYTES // 4 // REAL))


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
    asked: list[int] = []
    for prediction in (kept, again):
        own = prediction._logits
        prediction._logits = lambda places, out, own=own: (asked.append(len(places)), own(places, out))[1]
    for one, other in zip(kept.draw(*places(n), u, how), again.draw(*places(n), u, how), strict=True):
        np.testing.assert_array_equal(one, other)
    assert asked == [n], "the kept ones are not made again"


@few
@given(st.integers(0, 99), st.sampled_from([0.0, 0.5, 3.0]))
def test_guidance_equals_the_reference(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    c, u = (rng.normal(size=(2, 3, 9)) * 4).astype(np.float32)
    c[0, 3], u[1, 4], u[0, 3] = -math.inf, -math.inf, -math.inf
    found = torch.from_numpy(c.copy())
    guide_(found, torch.from_numpy(u.copy()), scale)
    np.testing.assert_array_equal(found.numpy(), guided([c, u], Cfg(scale)).astype(np.float32))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0, 1, 3, 50, 700]), st.sampled_from([1.0, 0.999, 0.9, 0.3, 0.01]))
def test_what_is_kept_is_what_a_whole_stable_sort_keeps(seed: int, top_k: int, top_p: float) -> None:
    from mdsample_torch import draw

    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 4)), 1024
    scores = rng.normal(size=shape) * rng.choice([0.01, 1, 8])
    scores = np.round(scores) if seed % 2 else scores
    scaled = torch.tensor(scores - scores.max(1, keepdims=True), dtype=torch.float32)
    how = Temperature(top_p=top_p, top_k=top_k)
    found = draw._amounts(scaled, how).numpy()
    plain = draw._amounts(scaled, Temperature()).numpy()
    share = torch.from_numpy(split(np.full(1, top_p)))
    for row in range(len(found)):
        order = np.argsort(-scaled[row].numpy(), kind="stable")[: top_k or None]
        reached = np.cumsum(plain[row, order])
        if top_p < 1:
            goal = int(share_of(share, torch.tensor(reached[-1:])))
            order = order[np.concatenate([[True], reached[:-1] < goal])]
        expected = np.zeros_like(plain[row])
        expected[order] = plain[row, order]
        assert (found[row] == expected).all()


def test_total_variation_from_float64() -> None:
    """The whole-number law itself, not a sample of it."""
    from mdsample_torch.draw import _amounts

    for scale in (0.5, 2.0, 4.0):
        scores = torch.from_numpy(np.random.default_rng(11).normal(size=(1, REAL)) * scale).float()
        exact = torch.softmax(scores.double(), 1)
        reduce_(scores, torch.empty_like(scores))
        amounts = _amounts(scores, Temperature()).double()
        assert 0.5 * (amounts / amounts.sum() - exact).abs().sum() < 1e-6
