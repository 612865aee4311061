"""The MLX trunk against the NumPy one and against mlx-lm's own models made bidirectional."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import FAMILIES, WIDE, converted, family_weights, quantised, write_family
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

mx: Any = pytest.importorskip("mlx.core")

from mdsample_mlx.matrix import Affine, Dense
from mdsample_mlx.trunk import MlxTrunk
from mdsample_mlx.weights import from_arrays, read_weights
from trunks import MIXED, V, batches, descriptions, few, trunk, weights

from mdsample.backend.reference.trunk import NumpyTrunk
from mdsample.backend.reference.weights import Tensors
from mdsample.models.checkpoint import open_checkpoint
from mdsample.models.families import read_config
from mdsample.models.families.trunk import Trunk

CPU = mx.Device(mx.cpu)


def both(spec: Trunk, seed: int = 0) -> tuple[NumpyTrunk, MlxTrunk]:
    arrays = weights(spec, seed)
    return NumpyTrunk(spec, arrays), MlxTrunk(spec, from_arrays(spec, arrays, "float32"))


def logits(model: MlxTrunk, tokens: Any, valid: Any, wanted: Any) -> NDArray[np.float32]:
    out = np.array(model.logits(model.hidden(tokens, valid, wanted)))
    assert out.shape[1] == model.width and not out[:, model.spec.vocab_size :].any()
    return out[:, : model.spec.vocab_size]


def near(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max(initial=0)))


@settings(max_examples=120, deadline=None)
@given(descriptions(), batches(), st.integers(0, 9))
def test_equals_the_reference(spec: Trunk, batch: tuple[Any, Any, Any], seed: int) -> None:
    reference, model = both(spec, seed)
    near(logits(model, *batch), reference.logits(*batch))


@few
@given(batches(), st.sampled_from([trunk(), MIXED]))
def test_padding_has_no_effect_at_all(batch: tuple[Any, Any, Any], spec: Trunk) -> None:
    _, model = both(spec)
    tokens, valid, wanted = batch
    other = np.where(valid, tokens, 5).astype(np.int32)
    assert np.array_equal(logits(model, tokens, valid, wanted), logits(model, other, valid, wanted))


@few
@given(batches(), st.sampled_from([trunk(), MIXED]), st.integers(0, 4))
def test_a_row_does_not_feel_its_neighbours(batch: tuple[Any, Any, Any], spec: Trunk, more: int) -> None:
    _, model = both(spec)
    tokens, valid, wanted = (np.pad(x, ((0, 0), (0, more))) for x in batch)
    together = logits(model, tokens, valid, wanted)
    alone = np.concatenate([logits(model, *(x[i : i + 1] for x in batch)) for i in range(len(tokens))])
    near(together, alone)


def some(spec: Trunk, seed: int = 1) -> tuple[Any, Any, Any]:
    valid = np.arange(20) < np.array([[20], [11]])
    return np.random.default_rng(seed).integers(0, spec.vocab_size, valid.shape).astype(np.int32), valid, valid


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("spec", [trunk(), MIXED], ids=["dense", "mixed"])
def test_half_the_bits_come_near(spec: Trunk, dtype: str) -> None:
    # the same weights on both sides, or their rounding would be most of what is seen
    to = {"bfloat16": mx.bfloat16, "float16": mx.float16}[dtype]
    arrays = {k: np.array(mx.array(v).astype(to).astype(mx.float32)) for k, v in weights(spec).items()}
    model = MlxTrunk(spec, from_arrays(spec, arrays, dtype))
    expected = NumpyTrunk(spec, arrays).logits(*some(spec))
    found = logits(model, *some(spec))
    error = np.abs(found - expected) / expected.std()
    assert found.dtype == np.float32 and np.median(error) < (0.03 if dtype == "bfloat16" else 0.004)


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
    near(logits(model, *some(model.spec)), reference.logits(*some(model.spec)))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("layout", ["published", "converted"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_quantised_weights_stay_packed(family: str, layout: str, bits: int, tmp_path: Path) -> None:
    stored = family_weights(family, WIDE[family])
    packed, _ = quantised(converted(family, stored) if layout == "converted" else stored, bits, 32)
    reference, model = opened(write_family(tmp_path, family, config=WIDE[family], weights=packed))
    kinds = {name: type(matrix) for layer in model._matrices for name, matrix in layer.items()}
    assert all(kind is Affine for name, kind in kinds.items() if name != "router") and type(model._embed) is Affine
    assert kinds.get("router", Dense) is Dense
    near(logits(model, *some(model.spec)), reference.logits(*some(model.spec)))


@pytest.mark.parametrize("family", ["llada", "llada2_moe"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 0.06), ("float16", 0.008)])
def test_quantised_in_half_the_bits_comes_near(family: str, bits: int, dtype: str, most: float, tmp_path: Path) -> None:
    """The words are exact; scales, unpacked values and products are rounded to 8 bits of a fraction, or to 11."""
    packed, _ = quantised(family_weights(family, WIDE[family]), bits, 32)
    folder = write_family(tmp_path, family, config=WIDE[family], weights=packed)
    reference, model = opened(folder, dtype)
    expected = reference.logits(*some(model.spec))
    assert np.median(np.abs(logits(model, *some(model.spec)) - expected) / expected.std()) < most


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


def test_norms_are_computed_in_float32() -> None:
    spec = trunk(layers=1)
    model = MlxTrunk(spec, from_arrays(spec, weights(spec), "float16"))
    x = mx.full((1, 16), 300.0, dtype=mx.float16)  # its square is too large for float16
    assert mx.isfinite(model._rms_norm(x, model._norm)).all()


def test_nothing_wanted_and_rows_of_padding() -> None:
    _, model = both(MIXED)
    nothing = np.zeros((2, 3), np.bool_)
    tokens = np.zeros((2, 3), np.int32)
    assert logits(model, tokens, nothing, nothing).shape == (0, V)
    one = nothing.copy()
    one[1, 2] = True
    assert np.isfinite(logits(model, tokens, one, one)).all()


def test_refusals() -> None:
    _, model = both(trunk())
    yes = np.ones((1, 2), np.bool_)
    with pytest.raises(ValueError, match=r"row 0, position 1 holds token id 40.* 0 to 39"):
        model.hidden(np.array([[1, 40]], np.int32), yes, yes)
    with pytest.raises(ValueError, match="row 0, position 0 is padding"):
        model.hidden(np.array([[1, 2]], np.int32), ~yes, yes)
    with pytest.raises(ValueError, match="a row has 33 tokens, but the model takes 32"):
        model.hidden(np.ones((1, 33), np.int32), np.ones((1, 33), np.bool_), np.ones((1, 33), np.bool_))


def test_only_types_that_apples_gpus_have() -> None:
    """No float64 anywhere, and no 64-bit index: every array that a pass is made of is asked for its type."""
    _, model = both(MIXED)
    seen = set[Any]()
    from mdsample_mlx import trunk as module

    own = module.attend
    module.attend = lambda *arrays: (seen.update(a.dtype for a in arrays if a is not None), own(*arrays))[1]
    try:
        found = model.hidden(*some(model.spec))
    finally:
        module.attend = own
    assert seen | {found.dtype, model._cos.dtype, model._sin.dtype} == {mx.float32, mx.bool_}
