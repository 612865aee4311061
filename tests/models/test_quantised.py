"""Quantised checkpoints: read as MLX packs them, on every backend, in every layout; everything else refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import WIDE, converted, family_weights, quantised, write_checkpoint, write_family
from hypothesis import given, settings
from hypothesis import strategies as st

import mdsample
from mdsample.backend.reference.weights import Tensors
from mdsample.errors import ModelError
from mdsample.models.families import read_config
from mdsample.models.weights.checkpoint import open_checkpoint
from mdsample.models.weights.quantised import BITS, GROUP_SIZES, Packing, dequantise, packed

SAID = {"quantization": {"bits": 4, "group_size": 32}}


def write(folder: Path, family: str, weights: Any, **options: Any) -> Path:
    return write_family(folder, family, config={**WIDE[family], **SAID}, weights=weights, **options)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group_size", GROUP_SIZES)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 99))
def test_unpacks_as_mlx(bits: int, group_size: int, seed: int) -> None:
    mx = pytest.importorskip("mlx.core")
    x = np.random.default_rng(seed).normal(size=(3, 2, 256)).astype(np.float32)
    parts = mx.quantize(mx.array(x), group_size=group_size, bits=bits)
    expected = np.array(mx.dequantize(*parts, group_size=group_size, bits=bits))
    way = Packing(bits, group_size)
    assert way.shapes(x.shape) == (tuple(parts[0].shape), tuple(parts[1].shape))
    found = dequantise(*(np.array(part) for part in parts), way)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
def test_whole_numbers_are_packed_and_unpacked(bits: int) -> None:
    values = np.random.default_rng(bits).integers(0, 2**bits, (3, 2, 96), np.uint32)
    one, none = np.ones((3, 2, 3), np.float32), np.zeros((3, 2, 3), np.float32)
    np.testing.assert_array_equal(dequantise(packed(values, bits), one, none, Packing(bits, 32)), values)


@pytest.mark.parametrize("bits", BITS)
def test_a_model_of_any_bits_is_that_of_its_unpacked_weights(bits: int, tmp_path: Path) -> None:
    pytest.importorskip("mlx.core")
    packed_weights, plain = quantised(family_weights("llada", WIDE["llada"]), bits, 32)
    said = {"quantization": {"bits": bits, "group_size": 32, "mode": "affine"}}
    folders = [
        write_family(tmp_path / name, "llada", config={**WIDE["llada"], **said}, weights=weights)
        for name, weights in (("packed", packed_weights), ("plain", plain))
    ]
    one, other = (Tensors(open_checkpoint(folder, read_config(folder))) for folder in folders)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    texts = [
        mdsample.sample(mdsample.load(folders[0], backend), "cat", template="{p}{a:4}")
        for backend in ("mlx", "reference")
    ]
    assert texts[0].text == texts[1].text


@pytest.mark.parametrize("family", sorted(WIDE))
@pytest.mark.parametrize("layout", ["published", "converted"])
def test_every_family_reads_packed_weights(family: str, layout: str, tmp_path: Path) -> None:
    weights = family_weights(family, WIDE[family])
    if layout == "converted":
        weights = converted(family, weights)
    words, plain = quantised(weights, 4, 32)
    assert sum(x.dtype == np.uint32 for x in words.values()) > 5
    folders = [write(tmp_path / "packed", family, words, shards=3), write(tmp_path / "plain", family, plain)]
    one, other = (Tensors(open_checkpoint(folder, read_config(folder))) for folder in folders)
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_what_it_takes(tmp_path: Path) -> None:
    words, _ = quantised(family_weights("llada", WIDE["llada"]), 4, 32)
    facts = mdsample.inspect(write(tmp_path, "llada", words, dtype="BF16"))
    assert list(facts.stored) == ["4 bits in groups of 32", "BF16"] and facts.dtype == "BF16"
    assert sum(facts.stored.values()) == facts.parameters
    assert facts.bytes < facts.memory["bfloat16"] / 2
    assert facts.memory_packed["bfloat16"] == facts.bytes - header(tmp_path)


def header(folder: Path) -> int:
    file = (folder / "model.safetensors").read_bytes()
    return 8 + int.from_bytes(file[:8], "little")


def damaged(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        words, _ = quantised(family_weights("llada", WIDE["llada"]), 4, 32)
        change(words)
        return write(folder, "llada", words)

    return made


NORM, WTE = "model.transformer.ln_f.", "model.transformer.wte."
WORDS, SCALES, BIASES = WTE + "weight", WTE + "scales", WTE + "biases"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(BIASES), f"do not fit config.json: {WORDS} is quantised, but {BIASES} is missing"),
        (lambda w: w.pop(SCALES), f"{WORDS} is quantised, but {SCALES} is missing"),
        (
            lambda w: w.update({SCALES: w[SCALES][:, :0]}),
            r"be \[320, 32\], quantised to 2, 3, 4, 5, 6 or 8 bits in groups of 32",
        ),
        (lambda w: w.update({WORDS: w[WORDS][:, :1]}), r"found U32 \[320, 1\] with scales \[320, 1\]"),
        (lambda w: w.update({WORDS: w[WORDS].astype(np.float32)}), r"found F32 \[320, 4\] with scales"),
        (lambda w: w.update({BIASES: w[BIASES].astype(np.uint32)}), "biases is stored as U32; F32, F16 or BF16 are"),
        (lambda w: w.update({NORM + "scales": np.ones(1, np.float32)}), "ln_f.weight is quantised, but .* is missing"),
        (lambda w: w.update({"x.scales": np.ones(1, np.float32)}), r"x.scales \[1\] is not a tensor of llada models"),
        (lambda w: w.update({"x.weight": np.ones(1, np.uint32)}), "quantised in a way .* x.weight is stored as U32"),
        (lambda w: w[SCALES].__setitem__((3, 0), np.nan), r"damaged: .*wte.scales is nan at \[3, 0\]"),
    ],
)
def test_what_does_not_fit_is_refused(change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        mdsample.load(damaged(change)(tmp_path), "reference")
    assert "\n" not in str(caught.value)


def test_other_quantisations_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    said = json.loads((folder / "config.json").read_text())
    for settings_, message in (({"bits": 4, "mode": "nvfp4"}, "mode 'nvfp4'"), ({"load_in_4bit": True}, "no bits")):
        (folder / "config.json").write_text(json.dumps(said | {"quantization": settings_}))
        with pytest.raises(ModelError, match=message):
            mdsample.load(folder, "reference")
