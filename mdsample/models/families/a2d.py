"""Small bidirectional models made from autoregressive ones (`model_type` a2d-llama, a2d-qwen2, a2d-qwen3).

dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1, Qwen2.5-Coder-0.5B-…-mdlm and what else ZHZisZZ/dllm
`dllm/pipelines/a2d` writes: Llama, Qwen2 or Qwen3 with the causal mask left out. Sure (read in that repository, commit
ca17675): names and fields are those of the parent; logits are not shifted (`right_shift_logits` is off in its trainer
and samplers); config.json has no mask_token_id, the mask is the token `<|mask|>` that the training adds to the
tokenizer. Checkpoints trained with BD3LM carry the same `model_type` and nothing in config.json that tells them apart;
add `"block_size": 32` (what they were trained with) to run them block-causally.
"""

from __future__ import annotations

from collections.abc import Mapping

from mdsample.models.families.fields import Fields
from mdsample.models.families.llama_like import Variant, read_trunk
from mdsample.models.families.special import Special
from mdsample.models.families.trunk import Trunk

#: by hub id: the fields of a published config.json of a2d-qwen3 that are read, and the mask token of its tokenizer
PUBLISHED_QWEN3: dict[str, dict[str, object]] = {
    "dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1": {
        **{"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
        **{"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 32768},
        **{"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": True},
        **{"mask_token_id": 151669, "eos_token_id": 151645},
    }
}


def read_llama(config: Mapping[str, object], special: Special | None = None) -> Trunk:
    """The trunk that an a2d-llama `config.json` describes; raises `ModelError`."""
    return _read("a2d-llama", config, special, qkv_bias=False, head_norm=False)


def read_qwen2(config: Mapping[str, object], special: Special | None = None) -> Trunk:
    """The trunk that an a2d-qwen2 `config.json` describes; raises `ModelError`."""
    return _read("a2d-qwen2", config, special, qkv_bias=True, head_norm=False)


def read_qwen3(config: Mapping[str, object], special: Special | None = None) -> Trunk:
    """The trunk that an a2d-qwen3 `config.json` describes; raises `ModelError`."""
    return _read("a2d-qwen3", config, special, qkv_bias=False, head_norm=True)


def _read(
    family: str, config: Mapping[str, object], special: Special | None, *, qkv_bias: bool, head_norm: bool
) -> Trunk:
    fields = Fields(family, config)
    block = None if fields.get("block_size") is None else fields.count("block_size")
    variant = Variant(qkv_bias=qkv_bias, head_norm=head_norm, block=block)
    return read_trunk(fields, special or Special(), variant, ("<|mask|>",))
