"""Tiny random checkpoints in LLaDA's published layout, written without the library under test."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

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


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[np.float32]], dtype: str = "F32") -> None:
    """The format by hand: length of the header, header, bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, x in tensors.items():
        stored = {"F32": x, "F16": x.astype(np.float16), "BF16": to_bfloat16(x), "F64": x.astype(np.float64)}[dtype]
        header[name] = {
            "dtype": dtype,
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
    weights: Mapping[str, NDArray[np.float32]] | None = None,
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
