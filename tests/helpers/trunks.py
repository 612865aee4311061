"""What tests of trunks share: random descriptions of every feature, weights for them, ragged batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mdsample.models.families.rotary import Linear, Llama3, Yarn
from mdsample.models.families.trunk import Experts, Trunk

V = 40
YARN = Yarn(factor=4.0, original=6.0, fast=2.0, slow=0.5, truncated=False, enlarged=1.2)


few = settings(max_examples=25, deadline=None)


def trunk(**fields: Any) -> Trunk:
    sizes: dict[str, Any] = {"d_model": 16, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_size": 24}
    rest = {"rope_theta": 100.0, "rotary_dim": 8, "norm_eps": 1e-5, "tied": False, "max_length": 32}
    tokens = {"mask_id": 2, "end_id": 1, "start_id": 0}
    return Trunk(**{"family": "random", "vocab_size": V, **sizes, **rest, **tokens, "layouts": (), **fields})


def weights(spec: Trunk, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Large enough that attention, gates, routers and logits are far from uniform."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(size=shape) * (0.4 if len(shape) > 1 else 0.2) + name.endswith("norm")).astype(np.float32)
        for name, shape in spec.shapes.items()
    }


def two_rows(spec: Trunk, seed: int = 1) -> tuple[Any, Any, Any]:
    """Tokens, validity and what is wanted, `[2, 20]`: a whole row and a shorter one, everywhere."""
    valid = np.arange(20) < np.array([[20], [11]])
    return np.random.default_rng(seed).integers(0, spec.vocab_size, valid.shape).astype(np.int32), valid, valid


def near(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Equal but for rounding, beside the largest value."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max(initial=0)))


@st.composite
def descriptions(draw: st.DrawFn) -> Trunk:
    kv, group, size = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([4, 8]))
    layers = draw(st.integers(1, 3))
    experts = None
    if draw(st.booleans()):
        groups = draw(st.sampled_from([1, 2, 4]))
        open_groups = draw(st.integers(1, groups))
        count = groups * draw(st.integers(2 if groups > 1 else 1, 3))
        experts = Experts(
            count=count,
            chosen=draw(st.integers(1, min(4, open_groups * count // groups))),
            size=draw(st.sampled_from([3, 8])),
            shared_size=draw(st.sampled_from([0, 5])),
            score=draw(st.sampled_from(["softmax", "sigmoid"])),
            normalized=draw(st.booleans()),
            scale=draw(st.sampled_from([1.0, 2.5])),
            groups=groups,
            chosen_groups=open_groups,
            corrected=draw(st.booleans()),
            first=draw(st.integers(0, layers)),
        )
    return trunk(
        d_model=draw(st.sampled_from([8, 12])),
        layers=layers,
        heads=kv * group,
        kv_heads=kv,
        head_dim=size,
        rotary_dim=draw(st.sampled_from([2, size])),
        rope_theta=draw(st.sampled_from([10.0, 10000.0])),
        rope_scaling=draw(st.sampled_from([None, Linear(2.0), Llama3(8.0, 1.0, 4.0, 6.0), YARN])),
        qkv_bias=draw(st.booleans()),
        head_norm=draw(st.booleans()),
        block=draw(st.sampled_from([None, 1, 3, 4])),
        shifted=draw(st.booleans()),
        tied=draw(st.booleans()),
        experts=experts,
    )


@st.composite
def batches(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    """Tokens, validity and what is wanted, `[B, L]`: ragged, with holes at times, whole rows unwanted at times."""
    rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 11))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    lengths = rng.integers(1, length + 1, rows)
    valid = np.arange(length) < lengths[:, None]
    if draw(st.booleans()):
        valid &= rng.random(valid.shape) < 0.8
    wanted = valid & (rng.random(valid.shape) < draw(st.sampled_from([0.1, 0.5, 1.0])))
    tokens = np.where(valid, rng.integers(0, V, valid.shape), -7).astype(np.int32)
    return tokens, valid, wanted


MIXED = trunk(
    block=4,
    shifted=True,
    qkv_bias=True,
    head_norm=True,
    rotary_dim=4,
    rope_scaling=YARN,
    experts=Experts(count=6, chosen=2, size=8, shared_size=5, score="sigmoid", groups=3, chosen_groups=2, first=1),
)
