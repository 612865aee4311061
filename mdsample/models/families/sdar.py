"""SDAR (`model_type` sdar and sdar_moe): JetLM/SDAR-1.7B-, -4B-, -8B-Chat, -30B-A3B-Chat, and TraDo in the same layout.

Qwen3 (or Qwen3-MoE) with block-causal attention. Source: config.json, index and tokenizer files of SDAR-4B-Chat and
SDAR-8B-Chat in JetAstra/SDAR `training/model` (commit c2041a8, arXiv 2510.06303). Sure: fields, names, mask token
151669, no shift, blocks of 4 in SDAR-*-Chat. The checkpoints on the hub may lack block_size (the repository keeps an
8B configuration without it), and those called -b8 to -b64 have other blocks: then it is asked for, never guessed.
Inferred: that SDAR-30B-A3B is Qwen3-30B-A3B in fields and names (its configuration was not seen).

I-DLM (arXiv 2604.11035) is published under this `model_type`, too. `use_regular_causal` in config.json says that every
position sees only itself and what is before, and then the logits are shifted. Sources: `IDLMPipeline`, written for
diffusers, and public forks of SGLang that serve it, which read that field. A run from left to right is its own
autoregressive law; the verification that makes it fast is not done here. Its config.json was not seen.
"""

from __future__ import annotations

from collections.abc import Mapping

from mdsample.errors import ModelError
from mdsample.models.families.fields import Fields
from mdsample.models.families.llama_like import Variant, read_experts, read_trunk
from mdsample.models.families.special import Special
from mdsample.models.families.trunk import Trunk

_MASKS = ("<|MASK|>", "<MASK>")

_SDAR_4B: dict[str, object] = {
    **{"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
    **{"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 32768},
    **{"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000, "block_size": 4},
    **{"mask_token_id": 151669, "eos_token_id": 151643},
}
#: by hub id: the fields of a published config.json that are read
PUBLISHED: dict[str, dict[str, object]] = {
    "JetLM/SDAR-4B-Chat": _SDAR_4B,
    "JetLM/SDAR-8B-Chat": {**_SDAR_4B, "hidden_size": 4096, "intermediate_size": 12288},
}


def read(config: Mapping[str, object], special: Special | None = None) -> Trunk:
    """The trunk that an SDAR `config.json` describes; `ModelError` names what is missing or not implemented."""
    fields = Fields("sdar", config)
    if fields.flag("use_regular_causal"):
        fields.count_or("block_size", 1)  # what it was trained to draft at once, not what sees what
        return read_trunk(fields, special or Special(), Variant(head_norm=True, block=1, shifted=True), _MASKS)
    return read_trunk(fields, special or Special(), Variant(head_norm=True, block=_block(fields)), _MASKS)


def read_moe(config: Mapping[str, object], special: Special | None = None) -> Trunk:
    """The trunk that an SDAR-MoE `config.json` describes; `ModelError` names what is missing or not implemented."""
    fields = Fields("sdar_moe", config)
    variant = Variant(head_norm=True, block=_block(fields), experts=read_experts(fields))
    return read_trunk(fields, special or Special(), variant, _MASKS)


def _block(fields: Fields) -> int:
    if fields.get("block_size") is None:
        raise ModelError(
            f"{fields.family}: config.json lacks block_size, without which the model cannot be run as it was trained; "
            "add it to a local copy: 4 for SDAR-…-Chat, the number in the name for -b8 to -b64"
        )
    return fields.count("block_size")
