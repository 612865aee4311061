"""`mdsample convert`: what it writes is what MLX would, reads back bit for bit, and spoils nothing when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import FAMILIES, WIDE, converted, family_weights, write_checkpoint, write_family
from hypothesis import given, settings
from hypothesis import strategies as st
from mdsample_cli.main import main

import mdsample
from mdsample.backend.reference.weights import Tensors
from mdsample.errors import ModelError, WriteError
from mdsample.models import convert as converting
from mdsample.models.convert import convert
from mdsample.models.families import read_config
from mdsample.models.weights.checkpoint import open_checkpoint
from mdsample.models.weights.piece import Packed
from mdsample.models.weights.pieces import as_stored
from mdsample.models.weights.quantised import BITS, GROUP_SIZES, Packing, dequantise, quantise


def tensors(folder: Path) -> dict[str, Any]:
    return dict(Tensors(open_checkpoint(folder, read_config(folder))))


@st.composite
def matrices(draw: st.DrawFn) -> Any:
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    x = rng.normal(size=(4, 256)) * 10.0 ** draw(st.integers(-6, 3))
    x[0], x[1] = draw(st.sampled_from([0.0, 1.0, -3.0])), np.abs(x[1])
    return x.astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(matrices(), st.sampled_from(BITS), st.sampled_from(GROUP_SIZES))
def test_values_come_back_as_near_as_the_grid_allows(x: Any, bits: int, size: int) -> None:
    packing = Packing(bits, size)
    words, scales, biases = quantise(x, packing)
    assert (words.shape, scales.shape) == packing.shapes(x.shape) and words.dtype == np.uint32
    off = np.abs(dequantise(words, scales, biases, packing) - x).reshape(*scales.shape, size).max(-1)
    # half a step, a whole one at the end that the grid does not reach
    assert (off <= 1.01 * np.abs(scales) + 1e-6 * np.abs(x).max()).all()


@settings(max_examples=60, deadline=None)
@given(matrices(), st.sampled_from(BITS), st.sampled_from(GROUP_SIZES), st.booleans())
def test_the_words_are_those_of_mlx(x: Any, bits: int, size: int, half: bool) -> None:
    mx = pytest.importorskip("mlx.core")
    if half:
        x = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    theirs = mx.quantize(mx.array(x).astype(mx.bfloat16 if half else mx.float32), group_size=size, bits=bits)
    words, *rest = quantise(x, Packing(bits, size))
    assert np.array_equal(words, np.array(theirs[0]))
    for ours, their in zip(rest, theirs[1:], strict=True):
        stored = as_stored(ours, "BF16" if half else "F32")
        kept = np.array(their.view(mx.uint16)) if half else np.array(their)
        np.testing.assert_array_equal(stored, kept)


def test_a_copy_of_a_model_with_a_head_beside_tied_weights_keeps_that_head(tmp_path: Path) -> None:
    wide = WIDE["a2d-qwen3"] | {"tie_word_embeddings": False}
    weights = family_weights("a2d-qwen3", {**FAMILIES["a2d-qwen3"][0], **wide})
    source = write_family(
        tmp_path / "source", "a2d-qwen3", config=wide | {"tie_word_embeddings": True}, weights=weights, dtype="BF16"
    )
    copy = convert(source, tmp_path / "made", bits=8, group_size=32).folder
    assert json.loads((copy / "config.json").read_text())["tie_word_embeddings"] is False
    np.testing.assert_allclose(tensors(copy)["head"], weights["lm_head.weight"], atol=0.05)


@pytest.mark.parametrize("layout", ["published", "converted"])
@pytest.mark.parametrize("family", sorted(WIDE))
def test_every_family_in_every_layout(family: str, layout: str, tmp_path: Path, monkeypatch: Any) -> None:
    weights = family_weights(family, WIDE[family])
    if layout == "converted":
        weights = converted(family, weights)
    source = write_family(tmp_path / "source", family, config=WIDE[family], weights=weights, dtype="BF16", shards=2)
    monkeypatch.setattr(converting, "FILE_BYTES", 20_000)
    made = convert(source, tmp_path / "made", bits=8, group_size=32)
    spec = read_config(made.folder)
    assert spec == read_config(source)
    checkpoint = open_checkpoint(made.folder, spec)
    assert made.bytes == checkpoint.bytes and len(list(made.folder.glob("*.safetensors"))) > 1
    before, after = tensors(source), tensors(made.folder)
    packed = 0
    for name, pieces in checkpoint.pieces.items():
        if not isinstance(pieces[0], Packed):
            np.testing.assert_array_equal(after[name], before[name])
            assert before[name].ndim == 1 or name.endswith("router") or before[name].shape[-1] % 32
            continue
        assert not name.endswith("router"), "a rounded score sends a token to another expert"
        packed += before[name].size
        assert pieces[0].packing == Packing(8, 32)
        np.testing.assert_allclose(after[name], before[name], atol=0.05)
    assert packed == made.packed > made.parameters / 2
    # written once more from the same weights it is the same, byte for byte
    again = convert(source, tmp_path / "again", bits=8, group_size=32).folder
    for file in made.folder.glob("*.safetensors"):
        assert file.read_bytes() == (again / file.name).read_bytes()


@pytest.mark.slow
def test_it_runs_and_says_where_it_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tiny-8bit"
    assert main(["convert", "tiny-gsm", str(out), "--bits", "8"]) == 0
    assert "8 bits in groups of 64" in " ".join(capsys.readouterr().out.split())
    card = (out / "README.md").read_text()
    assert "source: tiny-gsm" in card and "mdsample convert tiny-gsm OUT --bits 8 --group-size 64" in card
    assert main(["inspect", str(out)]) == 0
    assert "8 bits in groups of 64" in " ".join(capsys.readouterr().out.split())
    answers: list[str] = []
    for model in ("tiny-gsm", str(out)):
        assert main(["run", "--model", model, "--backend", "reference", "--policy", "med+early-exit", "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["slots"]["answer"])
    assert answers[0] == answers[1]


def test_nothing_is_written_over_and_nothing_half_written_stays(tmp_path: Path, monkeypatch: Any) -> None:
    source = write_family(tmp_path / "source", "llada", config=WIDE["llada"])
    made = convert(source, tmp_path / "made", group_size=32)
    with pytest.raises(WriteError, match="made exists, and nothing is overwritten"):
        convert(source, made.folder, group_size=32)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "other", group_size=32, watch=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "source"]


def test_refusals(tmp_path: Path, monkeypatch: Any) -> None:
    small = write_checkpoint(tmp_path / "small")
    wide = write_family(tmp_path / "wide", "llada", config=WIDE["llada"])
    done = convert(wide, tmp_path / "done", group_size=32).folder
    bad = family_weights("llada", WIDE["llada"])
    bad["model.transformer.wte.weight"][3, 1] = np.nan
    damaged = write_family(tmp_path / "damaged", "llada", config=WIDE["llada"], weights=bad)
    for name, options, message in (
        (wide, {"bits": 7}, "7 bits in groups of 64 cannot be written; there are 2, 3, 4, 5, 6, 8 bits"),
        (wide, {"group_size": 48}, "4 bits in groups of 48 cannot be written; .* groups of 32, 64, 128"),
        (small, {"group_size": 32}, "no matrix of small has rows that divide into groups of 32"),
        (done, {"group_size": 32}, r"done is quantised already \(4 bits in groups of 32\); take the model it was made"),
        (damaged, {"group_size": 32}, r"wte.weight is nan at \[3, 1\]"),
        ("nothing", {}, "there is no model 'nothing'"),
        (tmp_path / "nowhere", {}, "there is no model"),
    ):
        with pytest.raises(ModelError, match=message):
            convert(name, tmp_path / "out", **options)
    with pytest.raises(WriteError, match=r"cannot write .*out: there is no folder"):
        convert(wide, tmp_path / "no" / "out", group_size=32)
    monkeypatch.setattr(converting.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(ModelError, match=r"would take [\d.]+ KiB, but [\d.]+ KiB are free there"):
        convert(wide, tmp_path / "out", group_size=32)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()


def test_the_copy_is_a_model_like_any_other(tmp_path: Path) -> None:
    source = write_family(tmp_path / "source", "llada2_moe", config=WIDE["llada2_moe"], dtype="F16")
    copy = convert(source, tmp_path / "copy", bits=4, group_size=32).folder
    model = mdsample.load(copy, "reference")
    canvas = mdsample.Template.parse("{prompt}{answer:5}").canvas(model.tokenizer, [{"prompt": "Ann"}])
    assert mdsample.Sampler(mdsample.med()).run(model, canvas).rows[0].filled == 5
