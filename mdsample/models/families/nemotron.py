"""Nemotron-Labs-Diffusion (`model_type` nemotron_labs_diffusion): nvidia/Nemotron-Labs-Diffusion-3B, -8B, -14B, -Base.

Ministral 3 (Llama's layout, YaRN, queries that grow with their position) under the names `encoder.…` and
`diffusion_head`, trained both as a causal model and in blocks. Sources: the model's own `generate` in
modeling_nemotron_labs_diffusion.py and its configuration class, config.json of 3B-Base as a public port keeps it in its
tests, and mlx-vlm (commit 9b13f522). Sure: names, the mask token 100, no biases; that the context of a block is
computed causally, that blocks are counted from the end of the prompt, see themselves both ways, and begin with the next
token of the causal pass; no shift elsewhere. `generate` takes the block's length as an argument: here it is that of
config.json, 32, which all its published calls take. Inferred: that nothing has to stand before a text beside what the
chat template writes (the tokenizer was not seen).

Not read: the image models, and `linear_spec_lora`, an adapter that its speculative decoding puts on for drafts only.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from mdsample.errors import ModelError
from mdsample.models.families.fields import Fields
from mdsample.models.families.llama_like import GROWTH, Variant, layouts, read_trunk
from mdsample.models.families.rotary import Growth, rope_entries
from mdsample.models.families.special import Special
from mdsample.models.families.trunk import Trunk

_3B_BASE: dict[str, object] = {
    **{"hidden_size": 3072, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 32},
    **{"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072, "max_position_embeddings": 4096},
    **{"hidden_act": "silu", "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "block_size": 32},
    **{"mask_token_id": 100, "eos_token_id": 2, "dlm_paradigm": "bidirectional"},
    "rope_parameters": {
        **{"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 0.25, "original_max_position_embeddings": 16384},
        **{"beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, GROWTH: 0.1},
    },
}
#: by hub id: the fields of a published config.json that are read
PUBLISHED: dict[str, dict[str, object]] = {"nvidia/Nemotron-Labs-Diffusion-3B-Base": _3B_BASE}


def read(config: Mapping[str, object], special: Special | None = None) -> Trunk:
    """The trunk that its `config.json` describes; `ModelError` names what is missing or not implemented."""
    fields = Fields("nemotron_labs_diffusion", config)
    fields.require("block_size")
    # how it was trained; what the other two are run with was not seen
    fields.only("dlm_paradigm", "bidirectional", None)
    fields.flag("dp_varying_mask_ratio")
    variant = Variant(
        block=fields.count("block_size"),
        led=True,
        query_growth=_growth(fields),
        prefix="encoder",
        head="diffusion_head.weight",
    )
    trunk = read_trunk(fields, special or Special(), variant)
    # as mlx-vlm saves it
    converted = attrs.evolve(variant, prefix="language_model.model", head=f"language_model.{variant.head}")
    return attrs.evolve(trunk, layouts=(*trunk.layouts, *layouts(trunk.layers, converted, trunk.tied)))


def _growth(fields: Fields) -> Growth | None:
    entries = rope_entries(fields)
    if entries.get(GROWTH) is None:
        return None
    if entries.get("original_max_position_embeddings") is None:
        raise ModelError(f"{entries.family} has {GROWTH}, which needs original_max_position_embeddings beside it")
    return Growth(entries.real(GROWTH), entries.real("original_max_position_embeddings"))
