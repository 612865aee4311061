"""Dream (`model_type` Dream): Dream-v0-Base-7B, -Instruct-7B, Dream-Coder-v0, apple/DiffuCoder-7B-*, DreamReasoner-8B.

Dream, Dream-Coder and DiffuCoder have the layout and numbers of Qwen2.5-7B, full attention, and logits read one place
to the left, because the models were made from autoregressive ones. Sources: the configuration class and sampler that
DreamLM publishes (arXiv 2508.15487), as kept in ZHZisZZ/dllm `dllm/pipelines/dream`. Sure: shapes, biases, shift, mask
token 151666. Inferred: that no token has to stand before a text (the published chat template writes none).

DreamReasoner (arXiv 2606.19257) has the same `model_type` and is told by `block_size`: made from Qwen3-8B-Base, so
without biases and with norms of queries and keys, block-causal in blocks of 32, not shifted. Sources:
`dream_reasoner.py` and its tests in SJTU-DENG-Lab/Diffulex (commit 184ba97), and what public ports note of its own
config.json and generation_utils.py. Sure: names, norms, no biases, no shift, `block_size` 32 and mask token 151669 in
config.json. Inferred: that its other numbers are those of Qwen3-8B-Base.
"""

from __future__ import annotations

from collections.abc import Mapping

from mdsample.models.families.fields import Fields
from mdsample.models.families.llama_like import Variant, read_trunk
from mdsample.models.families.special import Special
from mdsample.models.families.trunk import Trunk

#: by hub id: the fields of a published config.json that are read
PUBLISHED: dict[str, dict[str, object]] = {
    "Dream-org/Dream-v0-Instruct-7B": {
        **{"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
        **{"num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 131072, "hidden_act": "silu"},
        **{"rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "mask_token_id": 151666, "eos_token_id": 151643},
    },
    "Dream-org/DreamReasoner-8B": {
        **{"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
        **{"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 32768},
        **{"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "attention_bias": False},
        **{"block_size": 32, "mask_token_id": 151669, "eos_token_id": 151643},
    },
}


def read(config: Mapping[str, object], special: Special | None = None) -> Trunk:
    """The trunk that a Dream `config.json` describes; `ModelError` names what is missing or not implemented."""
    fields = Fields("Dream", config)
    variant = Variant(qkv_bias=True, shifted=True)
    if fields.get("block_size") is not None:
        variant = Variant(head_norm=True, block=fields.count("block_size"))
    return read_trunk(fields, special or Special(), variant, ("<|mask|>",))
