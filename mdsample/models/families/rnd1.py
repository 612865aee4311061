"""RND1 (`model_type` rnd1): radicalnumerics/RND1-Base-0910, 30B-A3B.

Qwen3-MoE without the causal mask, made from an autoregressive model: logits are read one place to the left. Sources:
`rnd/` of RadicalNumerics/RND1 (the shift stands in `sampling.py`), and the configuration class as copied into
inference engines. Sure: fields and names of Qwen3-MoE, chosen scores divided by their sum, the shift, mask token
151669 where config.json names none.
"""

from __future__ import annotations

from collections.abc import Mapping

from mdsample.models.families.fields import Fields
from mdsample.models.families.llama_like import Variant, read_experts, read_trunk
from mdsample.models.families.special import Special
from mdsample.models.families.trunk import Trunk

#: by hub id: the fields of the published configuration class that are read
PUBLISHED: dict[str, dict[str, object]] = {
    "radicalnumerics/RND1-Base-0910": {
        **{"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48, "num_attention_heads": 32},
        **{"num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960},
        **{"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": True},
        **{"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "rope_scaling": False},
        **{"mask_token_id": 151669, "eos_token_id": 151645, "decoder_sparse_step": 1, "mlp_only_layers": []},
    }
}
_MASK = 151669


def read(config: Mapping[str, object], special: Special | None = None) -> Trunk:
    """The trunk that an RND1 `config.json` describes; `ModelError` names what is missing or not implemented."""
    fields = Fields("rnd1", {"mask_token_id": _MASK, **config})
    variant = Variant(head_norm=True, shifted=True, experts=read_experts(fields))
    return read_trunk(fields, special or Special(), variant)
