"""What is in a model folder: every file that fits is read exactly, every file that does not is refused in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import (
    CONFIG,
    FAMILIES,
    converted,
    family_weights,
    random_weights,
    to_bfloat16,
    write_checkpoint,
    write_family,
)
from damage import DAMAGE, MISSING, SINGLE, WTE, header_of, write_header
from hypothesis import given, settings
from hypothesis import strategies as st

import mdsample
from mdsample.backend.reference.weights import Tensors
from mdsample.errors import ModelError
from mdsample.models.families import llada, read_config
from mdsample.models.weights import checkpoint
from mdsample.models.weights.checkpoint import Checkpoint, available_memory, open_checkpoint

SPEC = llada.read(CONFIG)


def read(folder: Path) -> dict[str, Any]:
    return dict(Tensors(open_checkpoint(folder, read_config(folder))))


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    damage, said = DAMAGE[name]
    damage(folder)
    with pytest.raises(ModelError, match=said) as caught:
        mdsample.load(folder, "reference")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1500


def test_nothing_but_headers_is_read(tmp_path: Path) -> None:
    """Files of terabytes open at once: holes stand where the weights would be."""
    folder = write_checkpoint(tmp_path, config={"vocab_size": 2**30, "embedding_size": 2**30}, weights={})
    spec = read_config(folder)
    header: dict[str, Any] = {}
    end = 0
    for ours, source in spec.layouts[0].items():
        shape = spec.shapes[ours]
        size = 4 * int(np.prod(shape, dtype=np.int64))
        header[getattr(source, "name")] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}  # noqa: B009
        end += size
    write_header(folder / SINGLE, header, b"")
    os.truncate(folder / SINGLE, (folder / SINGLE).stat().st_size + end)
    found = open_checkpoint(folder, spec)
    assert found.bytes == end == found.memory(4) == 4 * found.parameters > 10**11
    with pytest.raises(ModelError, match=r"take 128\.0 GiB of memory, but 64\.0 GiB are available; free"):
        found.check_memory(4, 2**36)
    found.check_memory(1, 2**36)


def test_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(tmp_path)
    found: Checkpoint = open_checkpoint(folder, SPEC)
    assert found.parameters == sum(x.size for x in random_weights().values())
    assert (available_memory() or 0) > 10**8
    monkeypatch.setattr(checkpoint, "available_memory", lambda: 1000)
    with pytest.raises(ModelError, match="weights, which take"):
        mdsample.load(folder, "reference")
    monkeypatch.setattr(checkpoint, "available_memory", lambda: None)
    assert mdsample.load(folder, "reference").vocab_size == 320


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_values(dtype: str, shards: int, tmp_path: Path) -> None:
    rounded: dict[str, Callable[[Any], Any]] = {
        "F32": lambda x: x,
        "F16": lambda x: x.astype(np.float16),
        "BF16": lambda x: (to_bfloat16(x).astype(np.uint32) << 16).view(np.float32),
    }
    folder = write_checkpoint(tmp_path, dtype=dtype, shards=shards)
    found, expected = read(folder), random_weights()
    assert found.keys() == SPEC.shapes.keys()
    for ours, source in SPEC.layouts[0].items():
        assert found[ours].dtype == np.float32 and found[ours].flags.aligned
        np.testing.assert_array_equal(found[ours], rounded[dtype](expected[getattr(source, "name")]))  # noqa: B009


def test_tensors_that_are_not_aligned_are_read_all_the_same(folder: Path) -> None:
    found, body = header_of(folder / SINGLE)
    for padding in range(4):
        write_header(folder / SINGLE, json.dumps(found).encode() + b" " * padding, body)
        np.testing.assert_array_equal(read(folder)["embed"], random_weights()[WTE])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny")


def test_the_hub_cache_is_made_of_links(folder: Path, tmp_path: Path) -> None:
    (folder / SINGLE).rename(tmp_path / "blob")
    (folder / SINGLE).symlink_to(tmp_path / "blob")
    np.testing.assert_array_equal(read(folder)["embed"], random_weights()[WTE])


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    tensors = random_weights()
    del tensors[MISSING]
    tensors |= {WTE: np.zeros((3, 16), np.float32), "model.extra": np.zeros(2, np.float32)}
    with pytest.raises(ModelError) as caught:
        open_checkpoint(write_checkpoint(tmp_path, weights=tensors), SPEC)
    said = str(caught.value)
    assert all(part in said for part in (f"{MISSING} [16] is missing", f"{WTE} should be", "model.extra [2] is no"))
    assert said.count(";") == 4 and said.endswith("; fetch both again, of one commit")


def test_a_mix_of_layouts_is_told_against_the_nearer_one(tmp_path: Path) -> None:
    published = random_weights()
    mixed = converted("llada", published)
    mixed[WTE] = mixed.pop("model.embed_tokens.weight")
    folder = write_checkpoint(tmp_path, weights=mixed)
    with pytest.raises(
        ModelError, match=rf"{WTE} .* is not a tensor of .*; model.embed_tokens.weight .* is missing; fetch"
    ):
        open_checkpoint(folder, SPEC)


@pytest.mark.parametrize("family", ["a2d-qwen3", "llada2_moe"])
def test_a_head_beside_tied_weights_is_the_models(family: str, tmp_path: Path) -> None:
    """As for transformers, which keeps a head of the file's and warns."""
    config: dict[str, object] = {"tie_word_embeddings": True}
    embedding = "model.embed_tokens.weight" if family == "a2d-qwen3" else "model.word_embeddings.weight"
    tensors = family_weights(family, {**FAMILIES[family][0], "tie_word_embeddings": False})
    assert embedding in tensors and "lm_head.weight" in tensors
    untied = write_family(tmp_path / "untied", family, weights=tensors, config={"tie_word_embeddings": False})
    expected = mdsample.load(untied, backend="reference")
    for shards in (1, 2):
        folder = write_family(tmp_path / f"own{shards}", family, weights=tensors, config=config, shards=shards)
        assert mdsample.inspect(folder).parameters == mdsample.inspect(untied).parameters
        for backend in ("reference", *(["torch"] if find_spec("torch") else [])):
            rows = [
                mdsample.sample(model, "Ann has", template="{prompt}{answer:6}", policy="med").tokens.tolist()
                for model in (expected, mdsample.load(folder, backend=backend))
            ]
            assert rows[0] == rows[1]
    # other bytes anywhere, the last one too
    same = {**tensors, "lm_head.weight": tensors[embedding].copy()}
    tied = write_family(tmp_path / "same", family, weights=same, config=config)
    assert open_checkpoint(tied, read_config(tied)).trunk.tied
    same["lm_head.weight"][-1, -1] += 1
    last = write_family(tmp_path / "last", family, weights=same, config=config)
    assert not open_checkpoint(last, read_config(last)).trunk.tied


def test_what_published_files_carry_beside_the_weights_is_passed_over(tmp_path: Path) -> None:
    tensors = family_weights("a2d-qwen3")
    expected = read(write_family(tmp_path / "plain", "a2d-qwen3"))
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32) for i in range(2)}
    more = {**tensors, **buffers, "lm_head.weight": tensors["model.embed_tokens.weight"]}
    for shards in (1, 2):
        found = read(write_family(tmp_path / f"more{shards}", "a2d-qwen3", weights=more, shards=shards))
        assert found.keys() == expected.keys() and "head" not in found
        assert all(np.array_equal(found[name], expected[name]) for name in found)
    more["lm_head.weight"] = more["lm_head.weight"][:, :3]
    with pytest.raises(ModelError, match=r"lm_head.weight \[320, 3\] is not a tensor of a2d-qwen3 models"):
        read(write_family(tmp_path / "wrong", "a2d-qwen3", weights=more))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_and_layout_gives_the_same_arrays(family: str, tmp_path: Path) -> None:
    single = read(write_family(tmp_path / "single", family))
    sharded = read(write_family(tmp_path / "sharded", family, shards=3))
    ported = read(write_family(tmp_path / "ported", family, weights=converted(family, family_weights(family))))
    shapes = read_config(tmp_path / "single").shapes
    assert {name: x.shape for name, x in single.items()} == shapes
    for name, x in single.items():
        np.testing.assert_array_equal(x, sharded[name])
        np.testing.assert_array_equal(x, ported[name])
    total = sum(x.size for x in family_weights(family).values())
    assert sum(x.size for x in single.values()) == total, "every published weight is used, once"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_to_the_first_bytes_is_more_than_a_model_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    write_checkpoint(folder)
    whole = bytearray((folder / SINGLE).read_bytes())
    size = int.from_bytes(whole[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, size + 7))] = data.draw(st.integers(0, 255))
    (folder / SINGLE).write_bytes(whole[: data.draw(st.integers(0, len(whole))) or None])
    try:
        found = open_checkpoint(folder, SPEC)
    except ModelError as error:
        assert str(error).isprintable()
    else:
        assert all(piece.offset + piece.bytes <= len(whole) for pieces in found.pieces.values() for piece in pieces)
