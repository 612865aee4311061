"""The MLX trunk's own: every layout, packed weights, mlx-lm's models made bidirectional, the types of GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import FAMILIES, WIDE, converted, family_weights, quantised, write_family

from backends import Mlx

mx: Any = pytest.importorskip("mlx.core")

from mdsample_mlx.matrix import Affine, Dense
from mdsample_mlx.trunk import MlxTrunk
from mdsample_mlx.weights import read_weights
from trunks import MIXED, near, two_rows, weights

from mdsample.backend.reference.trunk import NumpyTrunk
from mdsample.backend.reference.weights import Tensors
from mdsample.models.families import read_config
from mdsample.models.weights.checkpoint import open_checkpoint

CPU = mx.Device(mx.cpu)


logits = Mlx().logits


def opened(folder: Path, dtype: str = "float32") -> tuple[NumpyTrunk, MlxTrunk]:
    checkpoint = open_checkpoint(folder, read_config(folder))
    return (
        NumpyTrunk(checkpoint.trunk, Tensors(checkpoint)),
        MlxTrunk(checkpoint.trunk, read_weights(checkpoint, CPU, dtype)),
    )


@pytest.mark.parametrize("layout", ["published", "converted"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_in_every_layout(family: str, layout: str, tmp_path: Path) -> None:
    stored = family_weights(family)
    if layout == "converted":
        stored = converted(family, stored)
    reference, model = opened(write_family(tmp_path, family, weights=stored))
    near(logits(model, *two_rows(model.spec)), reference.logits(*two_rows(model.spec)))


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("layout", ["published", "converted"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_quantised_weights_stay_packed(family: str, layout: str, bits: int, tmp_path: Path) -> None:
    stored = family_weights(family, WIDE[family])
    packed, _ = quantised(converted(family, stored) if layout == "converted" else stored, bits, 32)
    reference, model = opened(write_family(tmp_path, family, config=WIDE[family], weights=packed))
    kinds = {name: type(matrix) for layer in model._matrices for name, matrix in layer.items()}
    assert all(kind is Affine for name, kind in kinds.items() if name != "router") and type(model._embed) is Affine
    assert kinds.get("router", Dense) is Dense
    # without norms of queries and keys the scores of such weights are large, and so is their rounding
    near(logits(model, *two_rows(model.spec)), reference.logits(*two_rows(model.spec)), 3e-5)


@pytest.mark.parametrize("family", ["llada", "llada2_moe"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 0.06), ("float16", 0.008)])
def test_quantised_in_half_the_bits_comes_near(family: str, bits: int, dtype: str, most: float, tmp_path: Path) -> None:
    """The words are exact; scales, unpacked values and products are rounded to 8 bits of a fraction, or to 11."""
    packed, _ = quantised(family_weights(family, WIDE[family]), bits, 32)
    folder = write_family(tmp_path, family, config=WIDE[family], weights=packed)
    reference, model = opened(folder, dtype)
    expected = reference.logits(*two_rows(model.spec))
    assert np.median(np.abs(logits(model, *two_rows(model.spec)) - expected) / expected.std()) < most


class Bidirectional:
    """What mlx-lm's models ask of a cache; no mask: everything sees everything."""

    def __init__(self, mask: Any = None) -> None:
        self.offset, self.mask = 0, mask

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> Any:
        return self.mask

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        return keys, values


@pytest.mark.parametrize(
    ("family", "module"), [("a2d-llama", "llama"), ("dream", "qwen2"), ("a2d-qwen3", "qwen3"), ("sdar", "qwen3")]
)
def test_equals_mlx_lm(family: str, module: str, tmp_path: Path) -> None:
    pytest.importorskip("mlx_lm")
    import importlib
    import json

    theirs: Any = importlib.import_module(f"mlx_lm.models.{module}")
    stored = family_weights(family)
    folder = write_family(tmp_path, family, weights=stored)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": module, "rope_theta": config.get("rope_theta", 10000.0)}
    config["head_dim"] = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    model = theirs.Model(theirs.ModelArgs.from_dict(config))
    tied = {
        name: mx.array(x)
        for name, x in stored.items()
        if name != "lm_head.weight" or not model.args.tie_word_embeddings
    }
    model.load_weights(list(tied.items()), strict=True)
    _, ours = opened(folder)
    spec = ours.spec
    tokens = np.random.default_rng(3).integers(0, spec.vocab_size, (2, 11)).astype(np.int32)
    yes = np.ones(tokens.shape, np.bool_)
    block = np.arange(11) // (spec.block or 11)
    mask = None if spec.block is None else mx.array(block[:, None] >= block[None])
    expected = np.array(model(mx.array(tokens), cache=[Bidirectional(mask) for _ in model.layers]))
    if spec.shifted:
        expected = np.concatenate([expected[:, :1], expected[:, :-1]], 1)
    near(logits(ours, tokens, yes, yes), expected.reshape(-1, spec.vocab_size))


def test_only_types_that_apples_gpus_have() -> None:
    """No float64 anywhere, and no 64-bit index: every array that a pass is made of is asked for its type."""
    model = Mlx().trunk(MIXED, weights(MIXED))
    seen = set[Any]()
    from mdsample_mlx import trunk as module

    own = module.attend
    module.attend = lambda *arrays: (seen.update(a.dtype for a in arrays if a is not None), own(*arrays))[1]
    try:
        found = model.hidden(*two_rows(model.spec))
    finally:
        module.attend = own
    assert seen | {found.dtype, model._cos.dtype, model._sin.dtype} == {mx.float32, mx.bool_}
