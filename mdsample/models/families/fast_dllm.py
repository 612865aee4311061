"""Fast-dLLM v2 (`model_type` Fast_dLLM_Qwen): Efficient-Large-Model/Fast_dLLM_v2_1.5B and _7B.

Qwen2.5 with block-causal attention in blocks of `bd_size`, and logits read one place to the left, also across a block's
border. Source: the model's own modeling_fast.py as kept in phymhan/S2D2 `Fast-dLLM-v2` (commit e5b9a52). Sure: biases,
mask, shift (the first token of a block is the one that the last place of the finished block before it gives), blocks of
32, mask token 151665, turn end 151645. Inferred: that config.json has the numbers of Qwen2.5-Instruct (it was not seen)
and that the mask is the added token `|<MASK>|` where it does not name one (public code finds it by that text).
"""

from __future__ import annotations

from collections.abc import Mapping

from mdsample.models.families.fields import Fields
from mdsample.models.families.llama_like import Variant, read_trunk
from mdsample.models.families.special import Special
from mdsample.models.families.trunk import Trunk

#: what the published forward pass takes where nothing else is said
_BLOCK = 32


def read(config: Mapping[str, object], special: Special | None = None) -> Trunk:
    """The trunk that a Fast-dLLM v2 `config.json` describes; `ModelError` names what is missing or not implemented."""
    fields = Fields("Fast_dLLM_Qwen", config)
    variant = Variant(qkv_bias=True, shifted=True, block=fields.count_or("bd_size", _BLOCK))
    return read_trunk(fields, special or Special(), variant, ("|<MASK>|",))
