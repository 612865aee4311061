"""Fast-dLLM v2 (`model_type` Fast_dLLM_Qwen): Efficient-Large-Model/Fast_dLLM_v2_1.5B and _7B.

Qwen2.5 with block-causal attention and logits read one place to the left, across the border of a block, too: the first
token of a block is what the last position before it says. Sources: NVlabs/Fast-dLLM `v2` (arXiv 2509.26328) and copies
of the published modeling file. Sure: names and biases of Qwen2, `bd_size` 32, the shift, mask token `|<MASK>|` (151665,
which config.json does not name).
"""

from __future__ import annotations

from collections.abc import Mapping

from mdsample.models.families.llama_like import Variant, read_trunk
from mdsample.models.families.special import Special
from mdsample.models.families.trunk import Fields, Trunk

#: by hub id: the fields of a published config.json that are read, and the mask token of the published code
PUBLISHED: dict[str, dict[str, object]] = {
    "Efficient-Large-Model/Fast_dLLM_v2_7B": {
        **{"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
        **{"num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 32768, "hidden_act": "silu"},
        **{"rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": False, "bd_size": 32},
        **{"mask_token_id": 151665, "eos_token_id": 151645},
    }
}


def read(config: Mapping[str, object], special: Special | None = None) -> Trunk:
    """The trunk that a Fast-dLLM v2 `config.json` describes; `ModelError` names what is missing or not implemented."""
    fields = Fields("Fast_dLLM_Qwen", config)
    fields.require("bd_size")
    variant = Variant(qkv_bias=True, shifted=True, block=fields.count("bd_size"))
    return read_trunk(fields, special or Special(), variant, ("|<MASK>|",))
