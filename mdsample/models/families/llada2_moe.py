"""LLaDA2.x (`model_type` llada2_moe): inclusionAI/LLaDA2.0-mini, -flash, LLaDA2.1-mini and their previews.

Block-causal attention in blocks of 32, a fused query-key-value matrix, per-head norms, rotary embeddings on a part of
each head, sigmoid scores with a correction and groups of experts. Sources: configuration and forward pass as kept in
kunchengit/dInfer `python/dinfer/model/*llada2_moe.py` and ZHZisZZ/dllm `dllm/pipelines/llada2` (commit ca17675;
arXiv 2512.15745), the numbers of LLaDA2.0-mini as copied in the tests of xLLM. Sure: names, the order query, key, value
in the fused matrix, routing (weights are divided by their sum when more than one expert is chosen, whatever
norm_topk_prob says). config.json names neither the block size nor mask and end token: 32, `<|mask|>` (156895) and
pad_token_id (156892) are what the published generation code uses. The converted layout is that of mlx-lm's
`bailing_moe`: experts stacked under `switch_mlp`, the router under `gate.gate_proj`.
"""

from __future__ import annotations

from collections.abc import Mapping

from mdsample.models.families.fields import Fields
from mdsample.models.families.known import refuse_unknown
from mdsample.models.families.llama_like import (
    check_layers,
    end_token,
    expert_names,
    head_size,
    mask_token,
    optional_head,
)
from mdsample.models.families.rotary import read_rotary
from mdsample.models.families.special import Special
from mdsample.models.families.trunk import Experts, Single, Slice, Source, Stack, Trunk

#: by hub id: the fields of a published config.json that are read, and the mask token of the published code
PUBLISHED: dict[str, dict[str, object]] = {
    "inclusionAI/LLaDA2.0-mini": {
        **{"hidden_size": 2048, "intermediate_size": 5120, "num_hidden_layers": 20, "num_attention_heads": 16},
        **{"num_key_value_heads": 4, "head_dim": 128, "vocab_size": 157184, "max_position_embeddings": 32768},
        **{"rms_norm_eps": 1e-6, "rope_theta": 600000, "partial_rotary_factor": 0.5, "num_experts": 256},
        **{"num_experts_per_tok": 8, "moe_intermediate_size": 512, "num_shared_experts": 1, "n_group": 8},
        **{"topk_group": 4, "first_k_dense_replace": 1, "routed_scaling_factor": 2.5, "hidden_act": "silu"},
        **{"mask_token_id": 156895, "pad_token_id": 156892},
    }
}

_BLOCK = 32
_MIDDLE = ("gate", "up", "down")


def read(config: Mapping[str, object], special: Special | None = None) -> Trunk:
    """The trunk that a LLaDA2 `config.json` describes; `ModelError` names what is missing or not implemented."""
    special = special or Special()
    fields = Fields("llada2_moe", config)
    fields.require(
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "partial_rotary_factor"),
        *("num_experts", "num_experts_per_tok", "moe_intermediate_size", "first_k_dense_replace"),
        *("n_group", "topk_group", "routed_scaling_factor", "num_shared_experts"),
    )
    check_layers(fields)
    fields.only("use_qk_norm", True, None)
    fields.only("score_function", "sigmoid", None)
    fields.only("moe_router_enable_expert_bias", True, None)

    d_model, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    kv_heads, head_dim = fields.count("num_key_value_heads"), head_size(fields, d_model, heads)
    rotary = read_rotary(fields)
    size, chosen = fields.count("moe_intermediate_size"), fields.count("num_experts_per_tok")
    shared, first = (fields.get(name) for name in ("num_shared_experts", "first_k_dense_replace"))
    experts = Experts(
        count=fields.count("num_experts"),
        chosen=chosen,
        size=size,
        # one gated middle as wide as all shared experts together
        shared_size=0 if shared == 0 else size * fields.count("num_shared_experts"),
        score="sigmoid",
        normalized=chosen > 1,
        scale=fields.real("routed_scaling_factor"),
        groups=fields.count("n_group"),
        chosen_groups=fields.count("topk_group"),
        corrected=True,
        first=0 if first == 0 else fields.count("first_k_dense_replace"),
    )
    layers = fields.layers("num_hidden_layers", experts.count)
    vocab_size, tied = fields.count("vocab_size"), fields.flag("tie_word_embeddings")
    ended = fields.get("eos_token_id") is None and fields.get("pad_token_id") is not None
    rotary_dim = int(head_dim * rotary.part)
    fields.only("rotary_dim", None, rotary_dim)
    trunk = Trunk(
        family="llada2_moe",
        vocab_size=vocab_size,
        d_model=d_model,
        mlp_size=fields.count("intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        rotary_dim=rotary_dim,
        rope_theta=rotary.theta,
        rope_scaling=rotary.scaling,
        norm_eps=fields.real("rms_norm_eps"),
        head_norm=True,
        block=fields.count_or("block_size", _BLOCK),
        experts=experts,
        tied=tied,
        mask_id=mask_token(fields, special, "<|mask|>"),
        end_id=fields.token("pad_token_id") if ended else end_token(fields, special),
        start_id=None,
        max_length=fields.count("max_position_embeddings"),
        layouts=tuple(
            _layout(layers, experts, tied, heads * head_dim, kv_heads * head_dim, converted=converted)
            for converted in (False, True)
        ),
        optional_tensors=optional_head(tied, vocab_size, d_model),
    )
    refuse_unknown(fields)
    return trunk


def _layout(
    layers: int, experts: Experts, tied: bool, queries: int, keys: int, *, converted: bool
) -> Mapping[str, Source]:
    """Where everything is; `queries` and `keys` are rows of the fused matrix."""
    layout: dict[str, Source] = {"embed": Single("model.word_embeddings.weight"), "norm": Single("model.norm.weight")}
    if not tied:
        layout["head"] = Single("lm_head.weight")
    for i in range(layers):
        prefix = f"model.layers.{i}"
        fused, start = f"{prefix}.attention.query_key_value.weight", queries + keys
        layer: dict[str, Source] = {
            "attention_norm": Single(f"{prefix}.input_layernorm.weight"),
            "q": Slice(fused, 0, queries),
            "k": Slice(fused, queries, start),
            "v": Slice(fused, start, start + keys),
            "q_norm": Single(f"{prefix}.attention.query_layernorm.weight"),
            "k_norm": Single(f"{prefix}.attention.key_layernorm.weight"),
            "o": Single(f"{prefix}.attention.dense.weight"),
            "mlp_norm": Single(f"{prefix}.post_attention_layernorm.weight"),
        }
        if i < experts.first:
            layer |= {part: Single(f"{prefix}.mlp.{part}_proj.weight") for part in _MIDDLE}
        else:
            layer["router"] = Single(f"{prefix}.mlp.gate{'.gate_proj' if converted else ''}.weight")
            layer["router_correction"] = Single(f"{prefix}.mlp.gate.expert_bias")
            for part in _MIDDLE:
                layer[f"experts.{part}"] = (
                    Single(f"{prefix}.mlp.switch_mlp.{part}_proj.weight")
                    if converted
                    else Stack(expert_names(prefix, part, range(experts.count)))
                )
                if experts.shared_size:
                    layer[f"shared.{part}"] = Single(f"{prefix}.mlp.shared_experts.{part}_proj.weight")
        layout |= {f"layers.{i}.{part}": source for part, source in layer.items()}
    return layout
