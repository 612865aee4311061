"""The head on a CPU: few places take another way to the same logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mdsample_torch.trunk import TorchTrunk
from mdsample_torch.weights import from_arrays

from mdsample.models.families.trunk import Trunk

SIZE, WIDTH = 65_600, 256


@pytest.fixture(scope="module")
def trunk() -> TorchTrunk:
    spec = Trunk(
        **{"family": "random", "vocab_size": SIZE, "d_model": WIDTH, "layers": 1, "heads": 1, "kv_heads": 1},
        **{"head_dim": 32, "rotary_dim": 32, "mlp_size": 8, "rope_theta": 1e4, "norm_eps": 1e-5, "tied": False},
        **{"mask_id": 0, "end_id": 1, "start_id": None, "max_length": 8, "layouts": ()},
    )
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape, np.float32) for name, shape in spec.shapes.items()}
    return TorchTrunk(spec, from_arrays(spec, arrays, torch.device("cpu"), torch.float32))


@pytest.mark.parametrize("places", [1, 2, 17, 48, 49])
def test_every_number_of_places_gives_the_logits_of_a_product(trunk: TorchTrunk, places: int) -> None:
    hidden = torch.from_numpy(np.random.default_rng(places).standard_normal((places, WIDTH), np.float32))
    out = torch.full((places, trunk.width), torch.nan)
    trunk.logits(hidden, out)
    head = trunk._head  # pyright: ignore[reportPrivateUsage]
    assert head.numel() >= 1 << 24
    expected = hidden.double() @ head.double().t()
    np.testing.assert_allclose(out.numpy(), expected.numpy(), atol=1e-4)
