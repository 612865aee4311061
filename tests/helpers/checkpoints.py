"""Tiny random checkpoints in LLaDA's published layout, written without the library under test."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

START, END, MASK = "<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>"

CONFIG: dict[str, object] = {
    "model_type": "llada",
    "d_model": 16,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "mlp_hidden_size": 24,
    "vocab_size": 320,
    "embedding_size": 320,
    "rope": True,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "weight_tying": False,
    "max_sequence_length": 48,
    "block_type": "llama",
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "alibi": False,
    "include_bias": False,
    "include_qkv_bias": None,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "mask_token_id": 2,
}


@functools.cache
def tokenizer_json() -> str:
    """A byte-level BPE of about 300 tokens, so that the model's vocabulary of 320 is padded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[START, END, MASK],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat", "Ann has 12 coins and Ben has 7 coins"] * 5, trainer)
    return tokenizer.to_str()


def published_shapes(config: Mapping[str, object] = CONFIG) -> dict[str, tuple[int, ...]]:
    """Names and shapes of LLaDA's tensors, spelled out a second time."""
    d, f, v = (int(str(config[k])) for k in ("d_model", "mlp_hidden_size", "embedding_size"))
    kv = d // int(str(config["n_heads"])) * int(str(config["n_kv_heads"]))
    shapes: dict[str, tuple[int, ...]] = {"wte": (v, d), "ln_f": (d,)}
    if not config["weight_tying"]:
        shapes["ff_out"] = (v, d)
    for i in range(int(str(config["n_layers"]))):
        block = {"attn_norm": (d,), "q_proj": (d, d), "k_proj": (kv, d), "v_proj": (kv, d), "attn_out": (d, d)}
        block |= {"ff_norm": (d,), "ff_proj": (f, d), "up_proj": (f, d), "ff_out": (d, f)}
        shapes |= {f"blocks.{i}.{part}": shape for part, shape in block.items()}
    if size := int(str(config.get("conditioning_size", 0))):
        joined = {"norm": (d,), "ff_proj": (size, d), "up_proj": (size, d), "ff_out": (d, size)}
        shapes |= {f"conditioning.{part}": shape for part, shape in joined.items()}
    return {f"model.transformer.{name}.weight": shape for name, shape in shapes.items()}


def random_weights(config: Mapping[str, object] = CONFIG, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights large enough that attention, gates and logits are far from uniform."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(size=shape) * (0.5 if len(shape) == 2 else 0.2) + (len(shape) == 1)).astype(np.float32)
        for name, shape in published_shapes(config).items()
    }


def to_bfloat16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves (truncated, not rounded)."""
    return (x.view(np.uint32) >> 16).astype(np.uint16)


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[Any]], dtype: str = "F32") -> None:
    """The format by hand: length of the header, header, bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, x in tensors.items():
        kind = "U32" if x.dtype == np.uint32 else dtype
        plain = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "U32": "<u4"}
        stored = to_bfloat16(x) if kind == "BF16" else x.astype(plain[kind])
        header[name] = {
            "dtype": kind,
            "shape": list(x.shape),
            "data_offsets": [len(body), len(body) + stored.nbytes],
        }
        body += stored.tobytes()
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(len(head).to_bytes(8, "little") + head + body)


def write_checkpoint(
    folder: Path,
    *,
    config: Mapping[str, object] | None = None,
    weights: Mapping[str, NDArray[Any]] | None = None,
    dtype: str = "F32",
    shards: int = 1,
    seed: int = 0,
) -> Path:
    """A model folder; `config` overrides fields of `CONFIG` (None removes nothing: it writes null)."""
    folder.mkdir(parents=True, exist_ok=True)
    full = {**CONFIG, **(config or {})}
    (folder / "config.json").write_text(json.dumps(full))
    (folder / "tokenizer.json").write_text(tokenizer_json())
    tensors = random_weights(full, seed) if weights is None else weights
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, dtype)
        return folder
    places: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(tensors.items())[number::shards])
        write_safetensors(folder / file, part, dtype)
        places |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


#: LLaDA-8B-Instruct's special tokens by id, and its number of logits
LLADA_TOKENS = {
    **{126080: START, 126081: END, 126336: MASK},
    **{126346: "<|start_header_id|>", 126347: "<|end_header_id|>", 126348: "<|eot_id|>"},
}
LLADA_LOGITS = 126464
#: its chat template, shortened to what a conversation without tools goes through
LLADA_CHAT = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim "
    "+ '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


_PLAIN = 63000


def llada_tokenizer_json() -> str:
    """Every id of LLaDA's tokenizer. Its ordinary text is that of `tokenizer_json`, then numbers, each with a space
    before it and, `_PLAIN` and above, without, so that what these tokens spell is read as the same tokens.
    """
    made = json.loads(tokenizer_json())
    words = [word for word in made["model"]["vocab"] if word not in (START, END, MASK)]
    first = min(LLADA_TOKENS)
    words += [f"\u0120{number}" for number in range(1000, 1000 + _PLAIN - len(words))]
    words += [f"{number}" for number in range(1000, 1000 + first - len(words))]
    made["model"]["ignore_merges"] = True
    names = LLADA_TOKENS | {
        number: f"<|reserved_token_{number - first}|>"
        for number in range(first, 1 + max(LLADA_TOKENS))
        if number not in LLADA_TOKENS
    }
    made["model"]["vocab"] = {word: number for number, word in enumerate(words)} | {
        name: number for number, name in sorted(names.items())
    }
    kind = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    made["added_tokens"] = [{"id": number, "content": name, **kind} for number, name in sorted(names.items())]
    return json.dumps(made)


def write_llada(folder: Path, *, chat: bool = True, seed: int = 0) -> Path:
    """A folder as LLaDA-8B's, but for its sizes: ids, logits and chat template are the real ones.

    It writes a thousand numbers with a space, and end tokens. Many places are certain, and not all.
    """
    config = {
        **{"n_kv_heads": 4, "vocab_size": LLADA_LOGITS, "embedding_size": LLADA_LOGITS, "max_sequence_length": 4096},
        **{"rope_theta": 500000.0, "bos_token_id": None, "eos_token_id": 126081, "mask_token_id": 126336},
    }
    weights = random_weights({**CONFIG, **config}, seed)
    head = weights["model.transformer.ff_out.weight"]
    written = np.isin(np.arange(LLADA_LOGITS), [*range(400, 1400), 126081])
    head *= 12 * written[:, None]
    write_checkpoint(folder, config=config, weights=weights, dtype="BF16")
    (folder / "tokenizer.json").write_text(llada_tokenizer_json())
    roles = {"bos_token": START, "eos_token": END, "pad_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(roles | ({"chat_template": LLADA_CHAT} if chat else {})))
    return folder


# every family: a tiny configuration in the published fields, and the published names and shapes, spelled out here

_QWEN: dict[str, object] = {
    **{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "vocab_size": 320, "max_position_embeddings": 48, "hidden_act": "silu"},
    **{"rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "rope_scaling": None, "tie_word_embeddings": False},
    **{"bos_token_id": 1, "eos_token_id": 1, "use_sliding_window": False, "sliding_window": None},
    "auto_map": {"AutoModel": "modeling_anything.Model"},
}
_LLADA_MOE: dict[str, object] = {
    **{"model_type": "llada", "architectures": ["LLaDAMoEModelLM"], "hidden_size": 16, "num_hidden_layers": 3},
    **{"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 320, "max_position_embeddings": 48},
    **{"dense_intermediate_size": 20, "expert_intermediate_size": 12, "shared_expert_intermediate_size": None},
    **{"num_experts": 6, "num_experts_per_tok": 2, "moe_layer_freq": [0, 1, 1], "qk_layernorm": True},
    **{"moe_router_score_function": "softmax", "moe_router_enable_expert_bias": False, "norm_topk_prob": None},
    **{"routed_scaling_factor": 1, "partial_rotary_factor": 1, "rope_theta": 50000, "rms_norm_eps": 1e-5},
    **{"hidden_act": "silu", "attention_bias": False, "clip_qkv": None, "rope_scaling": None},
    **{"tie_word_embeddings": False, "eos_token_id": 1},
}
_LLADA2: dict[str, object] = {
    **{"model_type": "llada2_moe", "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 3},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 320},
    **{"max_position_embeddings": 96, "rms_norm_eps": 1e-6, "rope_theta": 600000, "partial_rotary_factor": 0.5},
    **{"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 12, "num_shared_experts": 2},
    **{"first_k_dense_replace": 1, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5},
    **{"norm_topk_prob": True, "score_function": "sigmoid", "moe_router_enable_expert_bias": True},
    **{"use_bias": False, "use_qkv_bias": False, "use_qk_norm": True, "norm_head": False, "hidden_act": "silu"},
    **{"tie_word_embeddings": False, "pad_token_id": 1, "rope_scaling": None},
}
_EXPERTS: dict[str, object] = {
    **{"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "norm_topk_prob": True},
    **{"decoder_sparse_step": 1, "mlp_only_layers": []},
}
#: by family: config.json, and the text of the mask token in its tokenizer
FAMILIES: dict[str, tuple[dict[str, object], str]] = {
    "llada": (CONFIG, MASK),
    "dream": ({**_QWEN, "model_type": "Dream", "mask_token_id": 2, "head_dim": None}, "<|mask|>"),
    "dream_reasoner": (
        {**_QWEN, "model_type": "Dream", "head_dim": 8, "block_size": 4, "mask_token_id": 2, "attention_bias": False},
        "<|mask|>",
    ),
    "a2d-llama": ({**_QWEN, "model_type": "a2d-llama", "mlp_bias": False}, "<|mask|>"),
    "a2d-qwen2": ({**_QWEN, "model_type": "a2d-qwen2", "tie_word_embeddings": True}, "<|mask|>"),
    "a2d-qwen3": ({**_QWEN, "model_type": "a2d-qwen3", "tie_word_embeddings": True, "head_dim": 8}, "<|mask|>"),
    "sdar": ({**_QWEN, "model_type": "sdar", "head_dim": 8, "block_size": 4, "mask_token_id": 2}, "<|MASK|>"),
    "sdar_moe": ({**_QWEN, **_EXPERTS, "model_type": "sdar_moe", "head_dim": 8, "block_size": 4}, "<|MASK|>"),
    "rnd1": ({**_QWEN, **_EXPERTS, "model_type": "rnd1", "head_dim": 8, "mask_token_id": 2}, "<|mask|>"),
    "stable_diffcoder": (
        {**_QWEN, "model_type": "llama", "architectures": ["StableDiffcoderForCausalLM"], "resid_pdrop": 0.1},
        "<[MASK_TOKEN]>",
    ),
    "fast_dllm": ({**_QWEN, "model_type": "Fast_dLLM_Qwen", "bd_size": 4}, "|<MASK>|"),
    "nemotron": (
        {
            **{**_QWEN, "model_type": "nemotron_labs_diffusion", "head_dim": 8, "block_size": 4, "mask_token_id": 2},
            **{"mlp_bias": False, "attention_bias": False, "dlm_paradigm": "bidirectional", "rope_theta": None},
            "rope_parameters": {
                **{"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 16.0, "original_max_position_embeddings": 3},
                **{"mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1},
            },
        },
        "<|mask|>",
    ),
    "llada_moe": (_LLADA_MOE, "<|mask|>"),
    "llada2_moe": (_LLADA2, "<|mask|>"),
}


def family_shapes(family: str, config: Mapping[str, object] | None = None) -> dict[str, tuple[int, ...]]:
    """Published names and shapes of every tensor of a family."""
    c: dict[str, object] = dict(FAMILIES[family][0]) | dict(config or {})
    if family == "llada":
        return published_shapes(c)

    def n(name: str) -> int:
        return int(str(c[name]))

    d, heads, kv, layers, vocab = (
        n(k) for k in ("hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers", "vocab_size")
    )
    size = n("head_dim") if c.get("head_dim") else d // heads
    new = family == "llada2_moe"
    top, head = ("encoder", "diffusion_head") if family == "nemotron" else ("model", "lm_head")
    shapes: dict[str, tuple[int, ...]] = {
        f"{top}.{'word_embeddings' if new else 'embed_tokens'}.weight": (vocab, d),
        f"{top}.norm.weight": (d,),
    }
    if not c["tie_word_embeddings"]:
        shapes[f"{head}.weight"] = (vocab, d)
    for i in range(layers):
        layer = f"{top}.layers.{i}"
        shapes[f"{layer}.input_layernorm.weight"] = shapes[f"{layer}.post_attention_layernorm.weight"] = (d,)
        if new:
            shapes[f"{layer}.attention.query_key_value.weight"] = ((heads + 2 * kv) * size, d)
            shapes[f"{layer}.attention.dense.weight"] = (d, heads * size)
            for norm in ("query_layernorm", "key_layernorm"):
                shapes[f"{layer}.attention.{norm}.weight"] = (size,)
        else:
            for part, rows in (("q", heads * size), ("k", kv * size), ("v", kv * size)):
                shapes[f"{layer}.self_attn.{part}_proj.weight"] = (rows, d)
                if family in ("dream", "a2d-qwen2", "fast_dllm"):
                    shapes[f"{layer}.self_attn.{part}_proj.bias"] = (rows,)
            shapes[f"{layer}.self_attn.o_proj.weight"] = (d, heads * size)
            if family in ("a2d-qwen3", "sdar", "sdar_moe", "rnd1", "llada_moe", "dream_reasoner"):
                for norm in ("q_norm", "k_norm"):
                    shapes[f"{layer}.self_attn.{norm}.weight"] = (size,)
        middles: dict[str, int] = {}
        if family in ("sdar_moe", "rnd1") or (family == "llada_moe" and i >= 1) or (new and i >= 1):
            width = n("expert_intermediate_size" if family == "llada_moe" else "moe_intermediate_size")
            middles |= {f"mlp.experts.{e}": width for e in range(n("num_experts"))}
            shapes[f"{layer}.mlp.gate.weight"] = (n("num_experts"), d)
            if new:
                shapes[f"{layer}.mlp.gate.expert_bias"] = (n("num_experts"),)
                middles["mlp.shared_experts"] = width * n("num_shared_experts")
        else:
            middles["mlp"] = n("dense_intermediate_size" if family == "llada_moe" else "intermediate_size")
        for name, width in middles.items():
            for part in ("gate", "up"):
                shapes[f"{layer}.{name}.{part}_proj.weight"] = (width, d)
            shapes[f"{layer}.{name}.down_proj.weight"] = (d, width)
    return shapes


def family_weights(
    family: str, config: Mapping[str, object] | None = None, seed: int = 0
) -> dict[str, NDArray[np.float32]]:
    """Random weights by published name, large enough that nothing is near uniform."""
    rng = np.random.default_rng(seed)
    return {
        name: (
            rng.normal(size=shape) * (0.5 if len(shape) > 1 else 0.2) + name.endswith(("norm.weight", "ln_f.weight"))
        ).astype(np.float32)
        for name, shape in family_shapes(family, config).items()
    }


def converted(family: str, weights: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """The same weights as ports to mlx-lm write them."""
    if family == "llada":
        top = {"wte": "model.embed_tokens", "ln_f": "model.norm", "ff_out": "lm_head"}
        part = {"q_proj": "self_attn.q_proj", "k_proj": "self_attn.k_proj", "v_proj": "self_attn.v_proj"}
        part |= {"attn_out": "self_attn.o_proj", "ff_proj": "mlp.gate_proj", "up_proj": "mlp.up_proj"}
        part |= {"ff_out": "mlp.down_proj", "attn_norm": "input_layernorm", "ff_norm": "post_attention_layernorm"}
        out: dict[str, NDArray[np.float32]] = {}
        for name, x in weights.items():
            words = name.split(".")
            new = f"model.layers.{words[3]}.{part[words[4]]}" if words[2] == "blocks" else top[words[2]]
            out[f"{new}.weight"] = x
        return out
    if family == "nemotron":  # by mlx-vlm
        return {f"language_model.{name.replace('encoder.', 'model.')}": x for name, x in weights.items()}
    out = {name: x for name, x in weights.items() if ".mlp.experts." not in name}
    stacks: dict[str, list[NDArray[np.float32]]] = {}
    for name, x in weights.items():
        if ".mlp.experts." in name:
            layer, rest = name.split(".mlp.experts.")
            stacks.setdefault(f"{layer}.mlp.switch_mlp.{rest.split('.', 1)[1]}", []).append(x)
    out |= {name: np.stack(xs) for name, xs in stacks.items()}
    if family == "llada2_moe":
        out = {name.replace(".mlp.gate.weight", ".mlp.gate.gate_proj.weight"): x for name, x in out.items()}
    return out


#: by family: sizes of which every matrix can be quantised in groups of 32
WIDE: dict[str, dict[str, object]] = {
    "llada": {"d_model": 32, "mlp_hidden_size": 64},
    "llada_moe": {"hidden_size": 32, "dense_intermediate_size": 64, "expert_intermediate_size": 32},
    "llada2_moe": {"hidden_size": 32, "intermediate_size": 64, "moe_intermediate_size": 32},
    "sdar_moe": {"hidden_size": 32, "moe_intermediate_size": 32},
    "rnd1": {"hidden_size": 32, "moe_intermediate_size": 32},
} | {
    name: {"hidden_size": 32, "intermediate_size": 64}
    for name in FAMILIES
    if name not in ("llada", "llada_moe", "llada2_moe", "sdar_moe", "rnd1")
}


def quantised(
    weights: Mapping[str, NDArray[np.float32]], bits: int, group_size: int
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.float32]]]:
    """The weights with every matrix that fits packed as MLX stores it, and what that makes of each."""
    packed: dict[str, NDArray[Any]] = {}
    plain: dict[str, NDArray[np.float32]] = {}
    for name, x in weights.items():
        if x.ndim < 2 or x.shape[-1] % group_size or not name.endswith(".weight"):
            packed[name] = plain[name] = x
            continue
        groups = x.reshape(*x.shape[:-1], -1, group_size)
        low = to_half(groups.min(-1))
        scale = to_half((groups.max(-1) - low) / (2**bits - 1))
        q = np.clip(np.rint((groups - low[..., None]) / scale[..., None]), 0, 2**bits - 1)
        plain[name] = (q.astype(np.float32) * scale[..., None] + low[..., None]).reshape(x.shape)
        # a stream of bits, little-endian: written otherwise than the package writes it
        stream = np.unpackbits(q.astype(np.uint8)[..., None], axis=-1, count=bits, bitorder="little")
        octets = np.packbits(stream.reshape(*x.shape[:-1], -1), axis=-1, bitorder="little")
        stem = name.removesuffix("weight")
        packed[name] = octets.view("<u4")
        packed[stem + "scales"], packed[stem + "biases"] = scale, low
    return packed, plain


def to_half(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounded so that no type that is stored changes it."""
    return (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def write_family(
    folder: Path,
    family: str,
    *,
    config: Mapping[str, object] | None = None,
    weights: Mapping[str, NDArray[Any]] | None = None,
    dtype: str = "F32",
    shards: int = 1,
) -> Path:
    """A model folder of a family; `config` overrides fields of its tiny configuration."""
    fields, mask = FAMILIES[family]
    full = {**fields, **(config or {})}
    write_checkpoint(
        folder, weights=family_weights(family, full) if weights is None else weights, dtype=dtype, shards=shards
    )
    (folder / "config.json").write_text(json.dumps(full))
    (folder / "tokenizer.json").write_text(tokenizer_json().replace(MASK, mask))
    declared = {"mask_token": {"content": mask}} if family in ("a2d-llama", "a2d-qwen2") else {}
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END, **declared}))
    return folder


#: what Dream adds to Qwen2's vocabulary, in this order; the last one is no special token
ADDED = (END, "<|im_start|>", "<|im_end|>", "<|beginoftext|>", "<|mask|>", "<tool_call>")


def as_dream_is_published(folder: Path) -> Path:
    """A folder of `write_family` with exactly the kinds of files that Dream's has: no `tokenizer.json`."""
    state = json.loads((folder / "tokenizer.json").read_text())["model"]
    special = {START, END, MASK, "<|mask|>"}
    tokens = [token for token in sorted(state["vocab"], key=state["vocab"].get) if token not in special]
    ids = {text: len(tokens) + number for number, text in enumerate(ADDED)}
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in state["merges"]]
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    decoder = {str(ids[text]): {"content": text, **flags, "special": text != ADDED[-1]} for text in ADDED}
    roles = {"eos_token": END, "pad_token": END, "mask_token": "<|mask|>"}
    contents = {
        "vocab.json": {token: number for number, token in enumerate(tokens)},
        "added_tokens.json": ids,
        "special_tokens_map.json": {**roles, "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]},
        "tokenizer_config.json": {"tokenizer_class": "DreamTokenizer", "added_tokens_decoder": decoder, **roles},
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs, ""]))
    (folder / "tokenizer.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    numbers = {
        "eos_token_id": ids[END],
        "pad_token_id": ids[END],
        "mask_token_id": ids["<|mask|>"],
        "bos_token_id": ids[END],
    }
    (folder / "config.json").write_text(json.dumps({**config, **{k: v for k, v in numbers.items() if k in config}}))
    return folder
