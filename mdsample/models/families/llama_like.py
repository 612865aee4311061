"""What the families share whose configuration and weight names are those of Llama, Qwen2 and Qwen3 in transformers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import attrs

from mdsample.errors import ModelError
from mdsample.models.families.fields import Fields
from mdsample.models.families.known import refuse_unknown
from mdsample.models.families.rotary import Growth, read_rotary
from mdsample.models.families.special import Special
from mdsample.models.families.trunk import Experts, Single, Source, Stack, Trunk

_ATTENTION = {
    "attention_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "mlp_norm": "post_attention_layernorm.weight",
}
_BIAS = {f"{part}_bias": f"self_attn.{part}_proj.bias" for part in "qkv"}
_HEAD_NORM = {"q_norm": "self_attn.q_norm.weight", "k_norm": "self_attn.k_norm.weight"}
_HEAD = "lm_head.weight"
#: the entry of `rope_parameters` by which queries grow with their position
GROWTH = "llama_4_scaling_beta"
_MIDDLE = ("gate", "up", "down")


@attrs.frozen(kw_only=True)
class Variant:
    """What a family fixes for all its checkpoints, beside what their `config.json` says."""

    qkv_bias: bool = False
    head_norm: bool = False
    block: int | None = None
    shifted: bool = False
    led: bool = False
    query_growth: Growth | None = None
    experts: Experts | None = None
    #: what published names begin with, and the name of the head
    prefix: str = "model"
    head: str = _HEAD


def read_trunk(fields: Fields, special: Special, variant: Variant, mask: tuple[str, ...] = ()) -> Trunk:
    """The trunk of a configuration with transformers' field names; `mask`: texts that the mask token may have.

    Raises `ModelError` that names what is missing or not implemented.
    """
    fields.require(
        *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
        *("max_position_embeddings", "rms_norm_eps"),
    )
    check_layers(fields)
    fields.only("attention_bias", variant.qkv_bias, None)
    d_model, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    head_dim = head_size(fields, d_model, heads)
    rotary = read_rotary(fields, () if variant.query_growth is None else (GROWTH,))
    experts = variant.experts
    layers = fields.layers("num_hidden_layers", 1 if experts is None else experts.count)
    vocab_size, tied = fields.count("vocab_size"), fields.flag("tie_word_embeddings")
    trunk = Trunk(
        family=fields.family,
        vocab_size=vocab_size,
        d_model=d_model,
        layers=layers,
        heads=heads,
        kv_heads=fields.count_or("num_key_value_heads", heads),
        head_dim=head_dim,
        rotary_dim=int(head_dim * rotary.part),
        # where all layers have experts, files need not say how wide a dense one would be
        mlp_size=fields.count_or("intermediate_size", experts.size)
        if experts is not None and experts.first == 0
        else fields.count("intermediate_size"),
        experts=experts,
        rope_theta=rotary.theta,
        rope_scaling=rotary.scaling,
        norm_eps=fields.real("rms_norm_eps"),
        qkv_bias=variant.qkv_bias,
        head_norm=variant.head_norm,
        block=variant.block,
        led=variant.led,
        shifted=variant.shifted,
        query_growth=variant.query_growth,
        tied=tied,
        mask_id=mask_token(fields, special, *mask),
        end_id=end_token(fields, special),
        # bos_token_id of these families is the end token or unused: their tokenizers put nothing before a text
        start_id=None,
        max_length=fields.count("max_position_embeddings"),
        layouts=layouts(layers, variant, tied),
        optional_tensors=optional_head(tied, vocab_size, d_model, variant.head),
    )
    refuse_unknown(fields)
    return trunk


def read_experts(fields: Fields) -> Experts:
    """The experts of a configuration with the field names of Qwen3-MoE, in every layer; raises `ModelError`."""
    fields.require("num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob")
    fields.only("decoder_sparse_step", 1, None)
    dense = fields.get("mlp_only_layers")
    if dense is not None and (not isinstance(dense, list) or cast("list[object]", dense)):
        raise ModelError(f"{fields.family}: mlp_only_layers = {dense!r:.80} is not implemented; [] is")
    return Experts(
        count=fields.count("num_experts"),
        chosen=fields.count("num_experts_per_tok"),
        size=fields.count("moe_intermediate_size"),
        normalized=fields.flag("norm_topk_prob"),
    )


def layouts(layers: int, variant: Variant, tied: bool = False) -> tuple[Mapping[str, Source], ...]:
    """The published layout, and with experts that of mlx-lm, where they are stacked under `switch_mlp`."""
    prefix = variant.prefix
    shared = {"embed": f"{prefix}.embed_tokens.weight", "norm": f"{prefix}.norm.weight"}
    shared |= {} if tied else {"head": variant.head}
    attention = _ATTENTION | (_BIAS if variant.qkv_bias else {}) | (_HEAD_NORM if variant.head_norm else {})
    published: dict[str, Source] = {ours: Single(name) for ours, name in shared.items()}
    converted = dict(published)
    experts = variant.experts
    for i in range(layers):
        layer, ours = f"{prefix}.layers.{i}", f"layers.{i}"
        both: dict[str, Source] = {f"{ours}.{part}": Single(f"{layer}.{name}") for part, name in attention.items()}
        if experts is None or i < experts.first:
            both |= {f"{ours}.{part}": Single(f"{layer}.mlp.{part}_proj.weight") for part in _MIDDLE}
        else:
            both[f"{ours}.router"] = Single(f"{layer}.mlp.gate.weight")
            published |= {
                f"{ours}.experts.{part}": Stack(expert_names(layer, part, range(experts.count))) for part in _MIDDLE
            }
            converted |= {
                f"{ours}.experts.{part}": Single(f"{layer}.mlp.switch_mlp.{part}_proj.weight") for part in _MIDDLE
            }
        published |= both
        converted |= both
    return (published,) if experts is None else (published, converted)


def expert_names(prefix: str, part: str, numbers: Iterable[int]) -> tuple[str, ...]:
    """Published names of one matrix of every expert of a layer."""
    return tuple(f"{prefix}.mlp.experts.{e}.{part}_proj.weight" for e in numbers)


def check_layers(fields: Fields) -> None:
    """Refuses layers that do not all see everything; `ModelError`."""
    kinds = fields.get("layer_types")
    if kinds is not None and (not isinstance(kinds, list) or set(map(str, cast("list[object]", kinds))) != {_FULL}):
        raise ModelError(f"{fields.family}: layer_types = {kinds!r:.80} is not implemented; {_FULL} in all layers is")


_FULL = "full_attention"


def head_size(fields: Fields, d_model: int, heads: int) -> int:
    """Width of one head: `head_dim`, or the hidden size split evenly where that is absent."""
    if fields.get("head_dim") is None and d_model % heads:
        raise ModelError(
            f"{fields.family}: hidden_size = {d_model} cannot be split into num_attention_heads = {heads} heads"
        )
    return fields.count_or("head_dim", d_model // heads)


def mask_token(fields: Fields, special: Special, *texts: str) -> int:
    """The mask token: of config.json, else of the tokenizer's files, else the one spelled like one of `texts`."""
    if fields.get("mask_token_id") is not None:
        return fields.token("mask_token_id")
    mask = special.id_of("mask_token", *texts)
    if mask is None:
        spelled = f", nor is there a token {' or '.join(map(repr, texts))}" if texts else ""
        raise ModelError(
            f"{fields.family}: which token is the mask is said neither in config.json (mask_token_id) nor in "
            f"tokenizer_config.json (mask_token){spelled}; add mask_token_id to config.json"
        )
    return mask


def end_token(fields: Fields, special: Special) -> int | None:
    """The token that fills up: the end token in config.json; of several there, the tokenizer's or the padding one."""
    eos = fields.get("eos_token_id")
    if eos is not None and not isinstance(eos, list):
        return fields.token("eos_token_id")
    end = special.id_of("eos_token")
    if isinstance(eos, list) and end not in cast("list[object]", eos):
        end = fields.get("pad_token_id", special.id_of("pad_token"))
        if end not in cast("list[object]", eos):
            raise ModelError(
                f"{fields.family}: eos_token_id = {eos!r:.80} names several tokens, and neither eos_token in "
                "tokenizer_config.json nor the padding token is one of them; so it is not known which fills up: name "
                "it as pad_token_id in config.json"
            )
        return fields.token("pad_token_id") if "pad_token_id" in fields.config else special.id_of("pad_token")
    return end


def optional_head(tied: bool, vocab_size: int, d_model: int, name: str = _HEAD) -> Mapping[str, tuple[int, ...]]:
    """The head's copy that some published files carry beside tied weights."""
    return {name: (vocab_size, d_model)} if tied else {}
