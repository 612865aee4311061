"""Families: one file per `model_type`, each turns a published configuration into a `Trunk`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from mdsample.errors import ModelError
from mdsample.models.families import (
    a2d,
    diffusion_gemma,
    dream,
    fast_dllm,
    llada,
    llada2_moe,
    llada_moe,
    nemotron,
    rnd1,
    sdar,
    stable_diffcoder,
)
from mdsample.models.families.special import Special, read_object, read_special
from mdsample.models.families.trunk import Trunk
from mdsample.models.files import held_elsewhere, read_json

#: `model_type` in `config.json`, and who reads it
FAMILIES: dict[str, Callable[[Mapping[str, object], Special], Trunk]] = {
    "Dream": dream.read,
    "Fast_dLLM_Qwen": fast_dllm.read,
    "a2d-llama": a2d.read_llama,
    "a2d-qwen2": a2d.read_qwen2,
    "a2d-qwen3": a2d.read_qwen3,
    "diffusion_gemma": diffusion_gemma.read,
    "llada": llada.read,
    "llada2_moe": llada2_moe.read,
    "llada_moe": llada_moe.read,
    "nemotron_labs_diffusion": nemotron.read,
    "rnd1": rnd1.read,
    "sdar": sdar.read,
    "sdar_moe": sdar.read_moe,
    "stable_diffcoder": stable_diffcoder.read,
}

#: other names of `model_type` under which the same models are saved: by dllm, dllm, and dFactory
ALIASES = {"lladamoe": "llada_moe", "llada21_moe": "llada2_moe", "llada2_moe_veomni": "llada2_moe"}

_PUBLISHED: dict[str, Mapping[str, Mapping[str, object]]] = {
    "Dream": dream.PUBLISHED,
    "a2d-qwen3": a2d.PUBLISHED_QWEN3,
    "diffusion_gemma": diffusion_gemma.PUBLISHED,
    "llada": llada.PUBLISHED,
    "llada2_moe": llada2_moe.PUBLISHED,
    "llada_moe": llada_moe.PUBLISHED,
    "nemotron_labs_diffusion": nemotron.PUBLISHED,
    "rnd1": rnd1.PUBLISHED,
    "sdar": sdar.PUBLISHED,
    "stable_diffcoder": stable_diffcoder.PUBLISHED,
}

#: what peft calls the configuration of an adapter
ADAPTER = "adapter_config.json"


def published() -> dict[str, Trunk]:
    """Well-known checkpoints by hub id, from their published numbers; of each family those that could be confirmed."""
    return {
        name: FAMILIES[family](config, Special())
        for family, configs in _PUBLISHED.items()
        for name, config in configs.items()
    }


def read_config(folder: Path) -> Trunk:
    """The description of the model in a folder; `ModelError` if `config.json` is missing, malformed or unsupported.

    What a family says of it is told with the folder.
    """
    fields = read_fields(folder)
    family = family_of(fields)
    if family is None:
        raise unsupported(folder, fields)
    silent = any(fields.get(name) is None for name in ("mask_token_id", "eos_token_id"))
    special = read_special(folder) if silent or isinstance(fields.get("eos_token_id"), list) else Special()
    try:
        return FAMILIES[family](fields, special)
    except ModelError as fault:
        raise ModelError(f"{folder}: {fault}") from None


def read_fields(folder: Path) -> dict[str, object]:
    """A folder's `config.json`; `ModelError` if it is missing, no JSON object, or quantised otherwise than by MLX."""
    path = folder / "config.json"
    config = read_json(path, once=True)
    if (adapter := read_object(folder / ADAPTER)) or (folder / ADAPTER).exists():
        base = adapter.get("base_model_name_or_path")
        of = f" of {base:.200}" if isinstance(base, str) and base else ""
        model = f"give {base:.200}" if of else "give the model that it was made for"
        remedy = "" if config is None else "; to run the weights beside it without it, move its files away"
        raise ModelError(
            f"{folder} holds an adapter{of} ({ADAPTER}): {model} as the model (--model), and this folder as the "
            f"adapter (--adapter){remedy}"
        )
    if config is None and not path.exists():
        raise ModelError(f"{folder} holds no config.json, so it is not a model folder{held_elsewhere(folder)}")
    if not isinstance(config, dict):
        raise ModelError(f"{path} must hold a JSON object; found {type(config).__name__}; fetch it again")
    fields = cast("dict[str, object]", config)
    for key in ("quantization", "quantization_config"):
        if fields.get(key) is not None and (kind := _foreign(fields[key])):
            raise ModelError(
                f"{path} has {key} with {kind}: of quantised weights only those that MLX calls affine are read; take "
                "the model in one of these, or in float32, float16 or bfloat16"
            )
    return fields


def _foreign(value: object) -> str:
    """What tells that weights are not quantised as `models.weights.quantised` reads them; empty if they are."""
    # bits and group size follow from the tensors themselves
    settings = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    if type(settings.get("bits")) is not int:
        return f"{value!r:.60}" if not settings else f"quant_method {settings.get('quant_method')!r:.40} and no bits"
    for name, plain in (("mode", "affine"), ("quant_method", None)):
        if settings.get(name, plain) not in (plain, None):
            return f"{name} {settings[name]!r:.40}"
    return ""


def family_of(fields: Mapping[str, object]) -> str | None:
    """Who in `FAMILIES` reads this configuration; `None`: none."""
    kind = fields.get("model_type")
    # LLaDA-MoE is published under the model_type of the dense LLaDA
    if kind == "llada" and fields.get("num_experts") is not None:
        kind = "llada_moe"
    # and Stable-DiffCoder under that of Llama, which is none of ours
    if kind == "llama" and stable_diffcoder.declared(fields):
        kind = "stable_diffcoder"
    if not isinstance(kind, str):
        return None
    kind = ALIASES.get(kind, kind)
    return kind if kind in FAMILIES else None


def unsupported(folder: Path, fields: Mapping[str, object]) -> ModelError:
    """The error that says which models there are instead."""
    kind = fields.get("model_type")
    if kind == "llama":
        return ModelError(
            f"{folder / 'config.json'} has model_type 'llama' and architectures {fields.get('architectures')!r:.80}: "
            "of these only Stable-DiffCoder (StableDiffcoderForCausalLM) is a masked model; one that was made from "
            "Llama with the causal mask left out is a2d-llama"
        )
    named = "no model_type" if kind is None else f"model_type {kind!r:.80}"
    known = ", ".join(sorted([*FAMILIES, *ALIASES]))
    return ModelError(
        f"{folder / 'config.json'} has {named}; supported: {known}, and on the torch backend what "
        "AutoModelForMaskedLM of transformers opens (bert, roberta, modernbert, …)"
    )
