"""LLaDA-MoE (published with `model_type` llada): inclusionAI/LLaDA-MoE-7B-A1B-Base and -Instruct.

Full attention, per-head norms of queries and keys, 64 experts a layer. Sources: configuration and forward pass as
kept in ZHZisZZ/dllm `dllm/pipelines/llada/models/*lladamoe.py` (commit ca17675) and kunchengit/dInfer (arXiv
2509.24389). Sure: `model_type` llada with `architectures` LLaDAMoEModelLM, so that `num_experts` tells it from the
dense LLaDA; names; softmax scores that are not renormalised, whatever norm_topk_prob says (the published forward pass
does not read it); no mask_token_id in config.json, the mask is the token `<|mask|>` (156895). Inferred: that published
files set neither shared experts nor an expert bias; both are refused. The converted layout is mlx-lm's rule for
Qwen3-MoE (no such file has been seen).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from mdsample.errors import ModelError
from mdsample.models.families.fields import Fields
from mdsample.models.families.llama_like import Variant, read_trunk
from mdsample.models.families.special import Special
from mdsample.models.families.trunk import Experts, Trunk

#: by hub id: the fields of a published config.json that are read; vocabulary and eps are inferred, as above
PUBLISHED: dict[str, dict[str, object]] = {
    "inclusionAI/LLaDA-MoE-7B-A1B-Instruct": {
        **{"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 16},
        **{"num_experts": 64, "num_experts_per_tok": 8, "expert_intermediate_size": 1024},
        **{"dense_intermediate_size": 8192, "moe_layer_freq": [1] * 16, "qk_layernorm": True, "vocab_size": 157184},
        **{"max_position_embeddings": 8192, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 50000},
        **{"mask_token_id": 156895, "eos_token_id": 156892},
    }
}


def read(config: Mapping[str, object], special: Special | None = None) -> Trunk:
    """The trunk that a LLaDA-MoE `config.json` describes; `ModelError` names what is missing or not implemented."""
    fields = Fields("llada_moe", config)
    fields.require("num_experts", "num_experts_per_tok", "expert_intermediate_size", "num_hidden_layers")
    fields.only("moe_router_score_function", "softmax", None)
    fields.only("moe_router_enable_expert_bias", False, None)
    fields.only("shared_expert_intermediate_size", None)
    fields.only("routed_scaling_factor", 1, 1.0, None)
    experts = Experts(
        count=fields.count("num_experts"),
        chosen=fields.count("num_experts_per_tok"),
        size=fields.count("expert_intermediate_size"),
        first=_dense_layers(fields),
    )
    # the width of dense layers has a name of its own here
    renamed = {**config, "intermediate_size": fields.get("dense_intermediate_size")}
    variant = Variant(head_norm=fields.flag("qk_layernorm"), experts=experts)
    return read_trunk(Fields("llada_moe", renamed, fields.asked), special or Special(), variant, ("<|mask|>",))


def _dense_layers(fields: Fields) -> int:
    """How many layers come before those with experts; `moe_layer_freq` has 0 for a dense layer, 1 for the others."""
    layers = fields.layers("num_hidden_layers")
    freq = fields.get("moe_layer_freq")
    kinds = cast("list[object]", freq) if isinstance(freq, list) else [freq if freq is not None else 1] * layers
    first = kinds.count(0)
    if kinds != [0] * first + [1] * (layers - first):
        raise ModelError(
            f"llada_moe: moe_layer_freq = {freq!r:.80} is not implemented; {layers} entries are, dense layers (0) "
            "before those with experts (1)"
        )
    return first
