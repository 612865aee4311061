"""LLaDA (`model_type` llada): GSAI-ML/LLaDA-8B-Base and -Instruct, LLaDA-1.5, and everything in their layout.

Source: config.json and modeling_llada.py as published with arXiv 2502.09992. The converted layout has the names of
Llama in transformers, which is how ports to mlx-lm rename the weights (the configuration stays LLaDA's own).

Two fields are this package's own, for models of its recipes: `noise` "uniform" says that blanks are shown as random
tokens, `conditioning_size` that each token is joined by what was predicted in its place the last time. To its embedding
is added a gated middle of that width, of the normalised soft embedding.
"""

from __future__ import annotations

from collections.abc import Mapping

from mdsample.errors import ModelError
from mdsample.models.families.fields import Fields
from mdsample.models.families.known import refuse_unknown
from mdsample.models.families.llama_like import Variant, end_token, layouts
from mdsample.models.families.special import Special
from mdsample.models.families.trunk import Single, Trunk

#: by hub id: the fields of a published config.json that are read
PUBLISHED: dict[str, dict[str, object]] = {
    "GSAI-ML/LLaDA-8B-Instruct": {
        **{"d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "mlp_hidden_size": 12288},
        **{"vocab_size": 126464, "embedding_size": 126464, "max_sequence_length": 4096, "rope": True},
        **{"rope_theta": 500000.0, "rms_norm_eps": 1e-5, "weight_tying": False, "block_type": "llama"},
        **{"activation_type": "silu", "layer_norm_type": "rms", "mask_token_id": 126336, "eos_token_id": 126081},
    }
}

_CONDITIONING = {
    "conditioning_norm": "norm",
    "conditioning.gate": "ff_proj",
    "conditioning.up": "up_proj",
    "conditioning.down": "ff_out",
}
_LAYER = {
    "attention_norm": "attn_norm",
    "q": "q_proj",
    "k": "k_proj",
    "v": "v_proj",
    "o": "attn_out",
    "mlp_norm": "ff_norm",
    "gate": "ff_proj",
    "up": "up_proj",
    "down": "ff_out",
}


def read(config: Mapping[str, object], special: Special | None = None) -> Trunk:
    """The trunk that a LLaDA `config.json` describes; `ModelError` names what is missing or not implemented.

    `special` is asked only which of several end tokens fills up: the published configuration names mask and end.
    """
    fields = Fields("llada", config)
    fields.require(
        *("d_model", "n_layers", "n_heads", "mlp_hidden_size", "vocab_size", "max_sequence_length"),
        *("rope", "rope_theta", "rms_norm_eps", "weight_tying", "mask_token_id", "eos_token_id"),
        *("block_type", "activation_type", "layer_norm_type"),
    )
    d_model, heads, layers = fields.count("d_model"), fields.count("n_heads"), fields.layers("n_layers")
    if d_model % heads:
        raise ModelError(f"llada: d_model = {d_model} cannot be split into n_heads = {heads} heads")
    tokens = fields.count("vocab_size")
    vocab_size = fields.count_or("embedding_size", tokens)
    if tokens > vocab_size:
        raise ModelError(f"llada: vocab_size = {tokens} tokens do not fit into embedding_size = {vocab_size} rows")
    tied = fields.flag("weight_tying")
    fields.only("noise", "mask", "uniform")
    conditioning = 0 if fields.get("conditioning_size") is None else fields.count("conditioning_size")

    names = {"embed": "wte", "norm": "ln_f"} | ({} if tied else {"head": "ff_out"})
    names |= {
        f"layers.{i}.{ours}": f"blocks.{i}.{published}" for i in range(layers) for ours, published in _LAYER.items()
    }
    own = {
        ours: Single(f"model.transformer.conditioning.{published}.weight")
        for ours, published in (_CONDITIONING.items() if conditioning else ())
    }
    trunk = Trunk(
        family="llada",
        vocab_size=vocab_size,
        d_model=d_model,
        layers=layers,
        heads=heads,
        kv_heads=heads if fields.get("n_kv_heads") is None else fields.count("n_kv_heads"),
        head_dim=d_model // heads,
        rotary_dim=d_model // heads,
        mlp_size=fields.count("mlp_hidden_size"),
        rope_theta=fields.real("rope_theta"),
        norm_eps=fields.real("rms_norm_eps"),
        noise="uniform" if fields.get("noise") == "uniform" else "mask",
        conditioning_size=conditioning,
        tied=tied,
        mask_id=fields.token("mask_token_id"),
        end_id=end_token(fields, special or Special()),
        start_id=None if fields.get("bos_token_id") is None else fields.token("bos_token_id"),
        max_length=fields.count("max_sequence_length"),
        layouts=(
            {ours: Single(f"model.transformer.{published}.weight") for ours, published in names.items()} | own,
            *({**layout, **own} for layout in layouts(layers, Variant(), tied)),
        ),
    )
    refuse_unknown(fields)
    return trunk
