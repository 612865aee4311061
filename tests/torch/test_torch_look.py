"""What is the Torch look's own: when the device is waited for, and what is in memory at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from looks import BLOCK, REAL, places, restrict
from looks import torch_look_at as look_at
from mdsample_torch import prediction as looking
from mdsample_torch.prediction import TorchPrediction
from torch.utils._python_dispatch import TorchDispatchMode

from mdsample.policy.draw import Greedy, Temperature
from mdsample.policy.guide import NoGuide


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
    TorchPrediction(logits, REAL, REAL, wanted, restrict(wanted.shape, REAL), NoGuide(), torch.device("cpu"))
    assert max(sizes) <= looking.CHUNK_BYTES and len(sizes) == -(-400 // (looking.CHUNK_BYTES // 4 // REAL))
