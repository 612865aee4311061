"""The NumPy trunk against the models of transformers, and its routing against loops over Python numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from checkpoints import FAMILIES, family_weights, write_family, write_safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mdsample.backend.reference.experts import route
from mdsample.backend.reference.trunk import NumpyTrunk
from mdsample.backend.reference.weights import Tensors
from mdsample.models.checkpoint import open_checkpoint
from mdsample.models.families import read_config
from mdsample.models.families.trunk import Experts

few = settings(max_examples=25, deadline=None)
ROWS = [[5, 0, 7, 7, 300, 2, 1, 44, 9, 2, 2], [2, 2, 9], [319]]

_SMALL: dict[str, Any] = {
    **{"vocab_size": 320, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3, "bos_token_id": 1},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 48, "eos_token_id": 1},
    **{"rms_norm_eps": 1e-5, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "pad_token_id": 1},
}
_MOE: dict[str, Any] = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
_GLM: dict[str, Any] = {
    **{"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "n_shared_experts": 2},
    **{"first_k_dense_replace": 1, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5, "head_dim": 16},
    **{"use_qk_norm": True, "attention_bias": False, "norm_topk_prob": True},
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
}
#: model_type to read it as, class in transformers, its settings, fields that are added to config.json
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("a2d-llama", "Llama", {"head_dim": 16}, {}),
    "llama-tied": ("a2d-llama", "Llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}, {}),
    "qwen2": ("a2d-qwen2", "Qwen2", {}, {}),
    "qwen2-shifted": ("Dream", "Qwen2", {}, {}),
    "qwen3": ("a2d-qwen3", "Qwen3", {"head_dim": 16, "tie_word_embeddings": True}, {}),
    "qwen3-blocks": ("sdar", "Qwen3", {"head_dim": 16}, {"block_size": 4}),
    "qwen3-blocks-of-3": ("a2d-qwen3", "Qwen3", {"head_dim": 6}, {"block_size": 3}),
    "qwen3-moe": ("sdar_moe", "Qwen3Moe", {**_MOE, "head_dim": 16, "norm_topk_prob": True}, {"block_size": 4}),
    "llada-moe": ("llada", "Qwen3Moe", {**_MOE, "head_dim": 8, "norm_topk_prob": False, "mlp_only_layers": [0]}, {}),
    "rnd1": ("rnd1", "Qwen3Moe", {**_MOE, "head_dim": 16, "norm_topk_prob": True}, {"rope_scaling": False}),
    "fast-dllm-v2": ("Fast_dLLM_Qwen", "Qwen2", {}, {"bd_size": 4}),
    "llada2-veomni": ("llada2_moe_veomni", "Glm4Moe", _GLM, {"block_size": 4}),
    "glm4-moe": ("llada2_moe", "Glm4Moe", _GLM, {"block_size": 4}),
    "glm4-moe-whole": ("llada2_moe", "Glm4Moe", {**_GLM, "n_group": 1, "topk_group": 1}, {"block_size": 64}),
}


def published(kind: str, model: Any) -> dict[str, NDArray[np.float32]]:
    """The weights of a model of transformers, under the names that the family publishes."""
    out: dict[str, NDArray[np.float32]] = {}
    fused: dict[str, dict[str, NDArray[np.float32]]] = {}
    for name, tensor in model.state_dict().items():
        x = tensor.detach().numpy()
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if name.endswith("experts.gate_up_proj"):
            for e, both in enumerate(x):
                gate, up = np.split(both, 2)
                stem = name.removesuffix("gate_up_proj")
                out |= {f"{stem}{e}.gate_proj.weight": gate, f"{stem}{e}.up_proj.weight": up}
        elif name.endswith("experts.down_proj"):
            out |= {f"{name.removesuffix('down_proj')}{e}.down_proj.weight": down for e, down in enumerate(x)}
        elif kind.startswith("llada2_moe") and ".self_attn." in name:
            layer, part = name.removesuffix(".weight").split(".self_attn.")
            renamed = {"o_proj": "dense", "q_norm": "query_layernorm", "k_norm": "key_layernorm"}
            if part in renamed:
                out[f"{layer}.attention.{renamed[part]}.weight"] = x
            else:
                fused.setdefault(layer, {})[part] = x
        else:
            swaps = {"e_score_correction_bias": "expert_bias", "embed_tokens": "word_embeddings"}
            for old, new in swaps.items() if kind.startswith("llada2_moe") else ():
                name = name.replace(old, new)
            out[name] = x
    for layer, parts in fused.items():
        out[f"{layer}.attention.query_key_value.weight"] = np.concatenate([parts[f"{p}_proj"] for p in "qkv"])
    return {name: np.ascontiguousarray(x, np.float32) for name, x in out.items()}


def published_config(kind: str, config: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as the family names its fields."""
    fields = {**config, "model_type": kind, "mask_token_id": 2, **more}
    if "num_local_experts" in config:  # as transformers calls it since version 5
        fields["num_experts"] = config["num_local_experts"]
    if kind == "llada":
        fields |= {"dense_intermediate_size": config["intermediate_size"], "moe_layer_freq": [0, 1, 1]}
        fields |= {"expert_intermediate_size": config["moe_intermediate_size"], "qk_layernorm": True}
    if kind.startswith("llada2_moe"):
        fields |= {"num_experts": config["n_routed_experts"], "num_shared_experts": config["n_shared_experts"]}
        fields |= {"partial_rotary_factor": 0.5}
    return fields


def batch(rows: list[list[int]], width: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    tokens, valid = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), width), np.bool_)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], valid[i, : len(row)] = row, True
    return tokens, valid


@pytest.mark.backend
@pytest.mark.parametrize("case", CASES)
def test_matches_transformers(case: str, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    kind, name, own, more = CASES[case]
    config = getattr(transformers, f"{name}Config")(**{**_SMALL, **own})
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for tensor in [*model.parameters(), *(b for n, b in model.named_buffers() if "correction" in n)]:
            # far from the initialisation, where attention and routing are nearly uniform; corrections stay positive,
            # because transformers gives the experts of other groups the score 0
            tensor.copy_(torch.rand_like(tensor) if tensor.ndim == 1 else torch.randn_like(tensor) * 0.3)
    fields = published_config(kind, config.to_dict(), more)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    write_safetensors(tmp_path / "model.safetensors", published(kind, model))
    spec = read_config(tmp_path)
    trunk = NumpyTrunk(spec, Tensors(open_checkpoint(tmp_path, spec)))

    tokens, valid = batch(ROWS, width=13)
    found = trunk.logits(tokens, valid, valid)
    expected: list[Any] = []
    for row in ROWS:
        block = np.arange(len(row)) // (spec.block or 100)
        mask = torch.from_numpy(np.where(block[None] > block[:, None], np.float32(-1e30), np.float32(0)))
        with torch.no_grad():
            logits = model(torch.tensor([row]), attention_mask=mask[None, None]).logits[0].numpy()
        expected.append(logits[np.maximum(np.arange(len(row)) - 1, 0)] if spec.shifted else logits)
    whole = np.concatenate(expected)
    np.testing.assert_allclose(found, whole, atol=1e-5 * np.abs(whole).max())


def scores_by_hand(logits: list[float], correction: list[float], e: Experts) -> dict[int, float]:
    """Experts and weights of one token, in loops over Python numbers."""
    if e.score == "sigmoid":
        scores = [1 / (1 + np.exp(-x)) if x > -700 else 0.0 for x in logits]
    else:
        grown = [np.exp(x - max(logits)) for x in logits]
        scores = [x / sum(grown) for x in grown]
    wanted = [s + c for s, c in zip(scores, correction, strict=True)]
    size = e.count // e.groups
    groups = [list(range(g * size, (g + 1) * size)) for g in range(e.groups)]
    if e.groups > 1:
        groups.sort(key=lambda members: -sum(sorted((wanted[m] for m in members), reverse=True)[:2]))
    open_to_all = sorted((m for members in groups[: e.chosen_groups] for m in members), key=lambda m: -wanted[m])
    chosen = open_to_all[: e.chosen]
    total = sum(scores[m] for m in chosen) if e.normalized else 1.0
    return {m: scores[m] / total * e.scale for m in chosen}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_routing_matches_the_rules(data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([1, 2, 4]))
    chosen_groups = data.draw(st.integers(1, groups))
    size = data.draw(st.integers(2, 4))
    e = Experts(
        count=groups * size,
        chosen=data.draw(st.integers(1, size * chosen_groups)),
        size=1,
        score=data.draw(st.sampled_from(["softmax", "sigmoid"])),
        normalized=data.draw(st.booleans()),
        scale=data.draw(st.sampled_from([1.0, 2.5])),
        groups=groups,
        chosen_groups=chosen_groups,
        corrected=True,
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    logits = (rng.normal(size=(3, e.count)) * 3).astype(np.float32)
    correction = rng.normal(size=e.count).astype(np.float32)  # negative ones must not open a closed group
    chosen, weights = route(logits, correction, e)
    assert weights.dtype == np.float32
    for row in range(3):
        by_hand = scores_by_hand(logits[row].astype(float).tolist(), correction.astype(float).tolist(), e)
        assert set(chosen[row].tolist()) == set(by_hand)
        for expert, weight in zip(chosen[row].tolist(), weights[row].tolist(), strict=True):
            assert weight == pytest.approx(by_hand[expert], rel=1e-4, abs=1e-7)


def test_extreme_router_scores_stay_finite() -> None:
    for score in ("softmax", "sigmoid"):
        e = Experts(count=3, chosen=2, size=1, score=score, normalized=True)
        logits = np.array([[-3e38, -1e4, -900], [3e38, 0, -3e38], [0, 0, 0]], np.float32)
        with np.errstate(over="ignore"):
            chosen, weights = route(logits, None, e)
        assert np.isfinite(weights).all() and chosen[2].tolist() == [0, 1]


def trunk_of(family: str, folder: Path, **changes: Any) -> NumpyTrunk:
    spec = read_config(write_family(folder, family))
    tensors = dict(Tensors(open_checkpoint(folder, spec)))
    return NumpyTrunk(attrs.evolve(spec, **changes), tensors)


@pytest.fixture(scope="module")
def trunks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NumpyTrunk]:
    return {family: trunk_of(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


rows_of_tokens = st.lists(st.lists(st.integers(0, 319), min_size=1, max_size=11), min_size=1, max_size=3)


@few
@given(rows_of_tokens, st.integers(0, 3), st.randoms(use_true_random=False))
@pytest.mark.parametrize("family", ["dream", "sdar", "llada2_moe", "llada_moe"])
def test_rows_parts_and_padding(
    family: str, trunks: dict[str, NumpyTrunk], rows: list[list[int]], more: int, random: Any
) -> None:
    """A row is the same alone, beside others, padded, and where only some of it is wanted."""
    trunk = trunks[family]
    tokens, valid = batch(rows, max(map(len, rows)) + more)
    tokens[~valid] = random.randrange(320)
    wanted = valid & np.array([[random.random() < 0.5 for _ in row] for row in valid])
    found = trunk.logits(tokens, valid, wanted)
    alone = [trunk.logits(*(batch([row], len(row))), np.ones((1, len(row)), np.bool_)) for row in rows]
    expected = np.concatenate(alone)[wanted[valid]]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(np.concatenate(alone)).max()))


@few
@given(rows_of_tokens, st.randoms(use_true_random=False))
def test_shifted_is_the_state_one_place_before(
    trunks: dict[str, NumpyTrunk], rows: list[list[int]], random: Any
) -> None:
    shifted = trunks["dream"]
    plain = NumpyTrunk.__new__(NumpyTrunk)
    plain.__dict__.update(shifted.__dict__, spec=attrs.evolve(shifted.spec, shifted=False))
    tokens, valid = batch(rows, max(map(len, rows)) + 1)
    wanted = valid & np.array([[random.random() < 0.5 for _ in row] for row in valid])
    states = np.zeros((*valid.shape, plain.spec.d_model), np.float32)
    states[valid] = plain.hidden(tokens, valid, valid)
    before = states[:, np.maximum(np.arange(valid.shape[1]) - 1, 0)]
    found = shifted.hidden(tokens, valid, wanted)
    assert found.shape == before[wanted].shape
    np.testing.assert_allclose(found, before[wanted], atol=1e-5 * max(1, np.abs(states).max()))


@few
@given(st.lists(st.integers(0, 319), min_size=1, max_size=14), st.integers(0, 13), st.integers(0, 319))
def test_later_blocks_are_not_seen(trunks: dict[str, NumpyTrunk], row: list[int], place: int, token: int) -> None:
    trunk, place = trunks["sdar"], place % len(row)
    tokens, valid = batch([row], len(row))
    changed = tokens.copy()
    changed[0, place] = token
    start = place // 4 * 4
    before, after = (trunk.hidden(t, valid, valid) for t in (tokens, changed))
    np.testing.assert_allclose(before[:start], after[:start], atol=1e-5)
    if token != row[place]:
        assert np.abs(before[start:] - after[start:]).max(1).min() > 0, "the whole block and all after it see it"


def test_a_long_row_costs_no_table(tmp_path: Path) -> None:
    """Published lengths (131,072) cost nothing until a row is that long."""
    spec = read_config(write_family(tmp_path, "dream", config={"max_position_embeddings": 2**40}))
    trunk = NumpyTrunk(spec, Tensors(open_checkpoint(tmp_path, spec)))
    assert np.isfinite(trunk.hidden(*batch([[1, 2]], 2), np.ones((1, 2), np.bool_))).all()
    assert set(family_weights("dream")) >= {"model.layers.0.self_attn.q_proj.bias"}
