"""Oracles of trunks: tiny random models of transformers, written as a family publishes them, and their logits."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import write_safetensors
from numpy.typing import NDArray

from backends import Mlx, Torch
from mdsample.backend.reference.trunk import NumpyTrunk
from mdsample.backend.reference.weights import Tensors
from mdsample.models.families import read_config
from mdsample.models.families.trunk import Trunk
from mdsample.models.weights.checkpoint import open_checkpoint

#: ragged; the longest one is longer than what scaled positions were trained on
ROWS = [[5, 0, 7, 7, 300, 2, 1, 44, 9, 2, 2], [2, 2, 9], [319], [2, 31, *range(40, 80, 3), 2, 2, 8]]
ROWS += [[5, 6, 7, 8, 9, 10, 11, 12, 2, 2, 2]]

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


def _scaled(kind: str, **entries: float | bool | None) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0, **entries}}


_YARN: dict[str, Any] = {"factor": 4.0, "original_max_position_embeddings": 12}
_GROWTH: dict[str, Any] = {**_YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}
_GROWN = _scaled("yarn", **{**_GROWTH, "original_max_position_embeddings": 5, "llama_4_scaling_beta": 0.7})
#: fixed text at the beginning of a row, where blocks are counted from its end
PROMPT = 3
#: model_type to read it as, class in transformers, its settings, fields that are added to config.json
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "llada": ("llada", "Llama", {}, {}),
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
    "dream-reasoner": ("Dream", "Qwen3", {"head_dim": 16}, {"block_size": 4}),
    "stable-diffcoder": ("llama", "Llama", {}, {"architectures": ["StableDiffcoderForCausalLM"]}),
    "i-dlm": ("sdar", "Qwen3", {"head_dim": 16}, {"use_regular_causal": True, "block_size": 3}),
    "fast-dllm-v2": ("Fast_dLLM_Qwen", "Qwen2", {}, {"bd_size": 4}),
    "llada2-veomni": ("llada2_moe_veomni", "Glm4Moe", _GLM, {"block_size": 4}),
    "glm4-moe": ("llada2_moe", "Glm4Moe", _GLM, {"block_size": 4}),
    "linear": ("a2d-llama", "Llama", _scaled("linear", factor=3.0), {}),
    "llama3": (
        *("a2d-llama", "Llama"),
        _scaled("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=12),
        {},
    ),
    "yarn": ("a2d-qwen3", "Qwen3", {"head_dim": 16, **_scaled("yarn", **_YARN)}, {}),
    "yarn-blocks": (
        *("sdar", "Qwen3"),
        {"head_dim": 16, **_scaled("yarn", **_YARN, beta_fast=3.0, beta_slow=0.5, truncate=False)},
        {"block_size": 4},
    ),
    "yarn-mscale": ("Dream", "Qwen2", _scaled("yarn", **_YARN, mscale=0.7, mscale_all_dim=1.4), {}),
    "yarn-attention": ("a2d-qwen2", "Qwen2", _scaled("yarn", **_YARN, attention_factor=0.8), {}),
    "nemotron": ("nemotron_labs_diffusion", "Ministral3", {"head_dim": 16, **_GROWN}, {"block_size": 4}),
    "nemotron-short": (
        *("nemotron_labs_diffusion", "Ministral3"),
        {"head_dim": 6, **_scaled("yarn", **{**_GROWTH, "factor": 0.25, "original_max_position_embeddings": 192})},
        {"block_size": 32, "dlm_paradigm": "bidirectional", "eos_token_id": 11, "sliding_window": None},
    ),
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
    if kind.startswith("nemotron"):
        out = {name.replace("model.", "encoder.").replace("lm_head", "diffusion_head"): x for name, x in out.items()}
    if kind == "llada" and not hasattr(model.config, "num_experts"):
        out = {_as_llada(name): x for name, x in out.items()}
    for layer, parts in fused.items():
        out[f"{layer}.attention.query_key_value.weight"] = np.concatenate([parts[f"{p}_proj"] for p in "qkv"])
    return {name: np.ascontiguousarray(x, np.float32) for name, x in out.items()}


#: dense LLaDA's own names
_LLADA = {
    **{"embed_tokens": "wte", "lm_head": "ff_out", "q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj"},
    **{"o_proj": "attn_out", "gate_proj": "ff_proj", "up_proj": "up_proj", "down_proj": "ff_out", "norm": "ln_f"},
    **{"input_layernorm": "attn_norm", "post_attention_layernorm": "ff_norm"},
}
_LLADA_FIELDS = {
    **{"d_model": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"},
    **{"n_kv_heads": "num_key_value_heads", "mlp_hidden_size": "intermediate_size", "vocab_size": "vocab_size"},
    **{
        "max_sequence_length": "max_position_embeddings",
        "rms_norm_eps": "rms_norm_eps",
        "eos_token_id": "eos_token_id",
    },
}


def _as_llada(name: str) -> str:
    words = name.split(".")
    layer = f"blocks.{words[2]}." if "layers" in words else ""
    return f"model.transformer.{layer}{_LLADA[words[-2]]}.weight"


def published_config(kind: str, config: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as the family names its fields."""
    if kind == "llada" and "num_local_experts" not in config:
        own = {name: config[theirs] for name, theirs in _LLADA_FIELDS.items()}
        own |= {"rope": True, "rope_theta": config["rope_parameters"]["rope_theta"], "weight_tying": False}
        own |= {"block_type": "llama", "activation_type": "silu", "layer_norm_type": "rms"}
        return {**own, "model_type": kind, "mask_token_id": 2, **more}
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


def made(case: str, folder: Path) -> tuple[Trunk, NDArray[np.float32]]:
    """A checkpoint of the case in a folder: its trunk, and transformers' logits `[N, V]` of all tokens of `ROWS`."""
    import torch
    import transformers

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
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(published_config(kind, config.to_dict(), more)))
    write_safetensors(folder / "model.safetensors", published(kind, model))
    spec = read_config(folder)
    expected: list[Any] = []

    def logits(row: list[int], unseen: NDArray[np.bool_]) -> NDArray[np.float32]:
        mask = torch.from_numpy(np.where(unseen, np.float32(-1e30), np.float32(0)))
        with torch.no_grad():
            return model(torch.tensor([row]), attention_mask=mask[None, None]).logits[0].numpy()

    for row in ROWS:
        place = np.arange(len(row))
        if spec.led:
            expected.append(_led(row, spec.block or 0, logits))
            continue
        block = place // (spec.block or 100)
        found = logits(row, block[None] > block[:, None])
        expected.append(found[np.maximum(place - 1, 0)] if spec.shifted else found)
    return spec, np.concatenate(expected)


def _led(
    row: list[int], size: int, logits: Callable[[list[int], NDArray[np.bool_]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """A causal pass for prompt and first places, then one for each block, after which there is nothing."""
    first = _prompt(row)
    places = np.arange(len(row))
    causal = logits(row, places[None] > places[:, None])
    out = [causal[:first]]
    for start in range(first, len(row), size):
        text = row[: start + size]
        place = places[: len(text)]
        found = logits(text, (place[None] > place[:, None]) & (place < start)[:, None])[start:]
        if start and set(text[start + 1 :]) <= {2}:
            found[0] = causal[start - 1]
        out.append(found)
    return np.concatenate(out)


def _prompt(row: list[int]) -> int:
    return PROMPT if len(row) > PROMPT else 0


def found(backend: str, spec: Trunk, folder: Path) -> NDArray[np.float32]:
    """The same logits of a backend on the CPU in float32: reference, torch or mlx; the rows are padded."""
    tokens, valid = batch(ROWS, width=25)
    opened = valid & (np.arange(25) >= np.array([[_prompt(row)] for row in ROWS]))
    checkpoint = open_checkpoint(folder, spec)
    if backend == "reference":
        return NumpyTrunk(checkpoint.trunk, Tensors(checkpoint)).logits(tokens, valid, valid, opened)
    side = {"torch": Torch, "mlx": Mlx}[backend]()
    trunk = side.trunk(checkpoint.trunk, {name: x.copy() for name, x in Tensors(checkpoint).items()})
    return side.logits(trunk, tokens, valid, valid, opened)
