"""Stable-DiffCoder (published with `model_type` llama): ByteDance-Seed/Stable-DiffCoder-8B-Base and -Instruct.

Llama's layout with grouped queries and block-causal attention, made from Seed-Coder-8B; logits are not shifted.
Sources: the model's own StableDiffcoderForCausalLM (a LlamaForCausalLM whose mask is block-causal on the row's own
grid, prompt included), its README, and configuration and tests in SJTU-DENG-Lab/Diffulex (`diffulex/model/config`,
`test/python/model`, commit 184ba97). Sure: names; `architectures`, or else `auto_map`, tells it from Llama; blocks of
4, what the published generation takes and config.json does not say; the mask is the token `<[MASK_TOKEN]>`, 5.
Inferred: that config.json has the fields of Seed-Coder-8B-Base (which was seen; Diffulex has the numbers, 8192
positions among them), and that nothing has to stand before a text beside what the chat template writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from mdsample.models.families.fields import Fields
from mdsample.models.families.llama_like import Variant, read_trunk
from mdsample.models.families.special import Special
from mdsample.models.families.trunk import Trunk

#: by hub id: the fields that are read, and the mask token of its tokenizer
PUBLISHED: dict[str, dict[str, object]] = {
    "ByteDance-Seed/Stable-DiffCoder-8B-Instruct": {
        **{"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
        **{"num_key_value_heads": 8, "vocab_size": 155136, "max_position_embeddings": 8192, "hidden_act": "silu"},
        **{"rms_norm_eps": 1e-6, "rope_theta": 500000.0, "mask_token_id": 5, "eos_token_id": 2},
    }
}
_BLOCK = 4


def declared(config: Mapping[str, object]) -> bool:
    """Whether a configuration with `model_type` llama is one of these."""
    classes, code = config.get("architectures"), config.get("auto_map")
    named = cast("list[object]", classes) if isinstance(classes, list) else []
    files = list(cast("dict[str, object]", code).values()) if isinstance(code, dict) else []
    return any(isinstance(text, str) and "stablediffcoder" in text.lower().replace("_", "") for text in named + files)


def read(config: Mapping[str, object], special: Special | None = None) -> Trunk:
    """The trunk that a Stable-DiffCoder `config.json` describes; `ModelError` names what is missing or unknown."""
    fields = Fields("stable_diffcoder", config)
    variant = Variant(block=fields.count_or("block_size", _BLOCK))
    return read_trunk(fields, special or Special(), variant, ("<[MASK_TOKEN]>",))
