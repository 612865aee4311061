"""Adapters in peft's layout, written without the library under test, and the weights that come of merging them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import write_safetensors
from numpy.typing import NDArray

Floats = NDArray[np.float32]
PREFIX = "base_model.model."

CONFIG: dict[str, object] = {
    **{"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "org/base", "bias": "none"},
    **{"r": 2, "lora_alpha": 6, "lora_dropout": 0.1, "target_modules": ["q_proj"], "fan_in_fan_out": False},
    **{"use_rslora": False, "use_dora": False, "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None},
    **{"init_lora_weights": True, "layer_replication": None, "loftq_config": {}, "trainable_token_indices": None},
    **{"inference_mode": True, "megatron_config": None, "megatron_core": "megatron.core", "peft_version": "0.21.2"},
}


def write_adapter(
    folder: Path, tensors: Mapping[str, Floats], dtype: str = "F32", prefix: str = PREFIX, **config: object
) -> Path:
    """The two files; `tensors` by their names without peft's prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    named = {prefix + name: tensor for name, tensor in tensors.items()}
    write_safetensors(folder / "adapter_model.safetensors", named, dtype)
    return folder


def pair(rng: np.random.Generator, shape: tuple[int, ...], rank: int, dora: bool = False) -> dict[str, Floats]:
    """What belongs to a linear layer `[out, in]`, by the end of its name."""
    out, into = shape
    parts: dict[str, Any] = {
        "lora_A.weight": rng.normal(size=(rank, into)),
        "lora_B.weight": rng.normal(size=(out, rank)),
    }
    parts |= {"lora_magnitude_vector": rng.uniform(1, 3, size=out)} if dora else {}
    return {name: (0.3 * x if x.ndim > 1 else x).astype(np.float32) for name, x in parts.items()}


def summed(weight: Floats, parts: Mapping[str, Floats], scale: float) -> Floats:
    """W + scale · B·A in float64, with DoRA each row as long as it says."""
    total = weight.astype(np.float64) + scale * parts["lora_B.weight"].astype(np.float64) @ parts["lora_A.weight"]
    if (lengths := parts.get("lora_magnitude_vector")) is not None:
        total *= (lengths / np.sqrt((total**2).sum(1)))[:, None]
    return total.astype(np.float32)
