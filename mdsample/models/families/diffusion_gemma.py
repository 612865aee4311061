"""DiffusionGemma (`model_type` diffusion_gemma): google/diffusiongemma-26B-A4B-it.

Gemma 4 with experts, run in two ways: causally over what is written, and in blocks (its *canvases*) of 256 positions,
which see all of that and themselves. A block begins as random tokens and also sees what was predicted in it the last
time. Both ways share all weights but one number a layer. Sources: configuration, forward pass and `generate` of
transformers 5.23 (`models/diffusion_gemma`); the numbers of the 26B from its config.json as public ports keep it
(mlx-vlm 9b13f522 has the same as defaults); the converted layout is that of mlx-vlm's `sanitize`. Sure: names, shapes,
the window, that nothing is shifted. Inferred: that its tokenizer has Gemma's `<mask>` (4), which stands for a blank
here and which the model never sees.

Text only: the weights of the part that sees images are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from mdsample.errors import ModelError
from mdsample.models.families.fields import Fields
from mdsample.models.families.gemma import Gemma
from mdsample.models.families.known import refuse_unknown
from mdsample.models.families.llama_like import end_token, mask_token, optional_head
from mdsample.models.families.special import Special
from mdsample.models.families.trunk import Experts, Single, Source, Trunk

_TEXT: dict[str, object] = {
    **{"hidden_size": 2816, "intermediate_size": 2112, "moe_intermediate_size": 704, "num_hidden_layers": 30},
    **{"num_attention_heads": 16, "num_key_value_heads": 8, "num_global_key_value_heads": 2, "head_dim": 256},
    **{"global_head_dim": 512, "vocab_size": 262144, "max_position_embeddings": 262144, "sliding_window": 1024},
    **{"rms_norm_eps": 1e-6, "num_experts": 128, "top_k_experts": 8, "final_logit_softcapping": 30.0},
    **{"hidden_activation": "gelu_pytorch_tanh", "use_bidirectional_attention": "vision", "eos_token_id": 1},
    **{"bos_token_id": 2, "mask_token_id": 4, "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5},
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
    },
}
#: by hub id: the fields of a published config.json that are read, and the mask token of its tokenizer
PUBLISHED: dict[str, dict[str, object]] = {
    "google/diffusiongemma-26B-A4B-it": {"canvas_length": 256, "text_config": _TEXT}
}

_NEAR, _FAR = "sliding_attention", "full_attention"
_LAYER = {
    "attention_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "attention_out_norm": "post_attention_layernorm.weight",
    "mlp_norm": "pre_feedforward_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
    "dense_out_norm": "post_feedforward_layernorm_1.weight",
    "experts_norm": "pre_feedforward_layernorm_2.weight",
    "router": "router.proj.weight",
    "router_scale": "router.scale",
    "expert_scale": "router.per_expert_scale",
    "experts_out_norm": "post_feedforward_layernorm_2.weight",
    "mlp_out_norm": "post_feedforward_layernorm.weight",
    "scalar": "layer_scalar",
}
_EXPERTS = {"experts.gate_up": "experts.gate_up_proj", "experts.down": "experts.down_proj"}
_IMAGES = "the part that sees images"


def read(config: Mapping[str, object], special: Special | None = None) -> Trunk:
    """The trunk that its `config.json` describes; `ModelError` names what is missing or not implemented."""
    special = special or Special()
    outer = Fields("diffusion_gemma", config)
    outer.require("canvas_length", "text_config")
    outer.only("tie_word_embeddings", True, None)
    outer.only("use_bidirectional_attention", None, "vision")
    outer.get("vision_config")  # images are not read, and what is theirs is passed over
    text = outer.get("text_config")
    if not isinstance(text, dict):
        raise ModelError(f"{outer.family}: text_config must be an object; found {text!r:.80}")
    own = {name: config[name] for name in ("mask_token_id", "eos_token_id") if config.get(name) is not None}
    fields = Fields(f"{outer.family}: text_config", {**cast("dict[str, object]", text), **own})
    fields.require(
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "layer_types"),
        *("num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "sliding_window"),
        *("num_experts", "top_k_experts", "moe_intermediate_size", "rope_parameters", "final_logit_softcapping"),
    )
    fields.only("hidden_activation", "gelu_pytorch_tanh")
    fields.only("attention_bias", False, None)
    fields.only("tie_word_embeddings", True, None)
    # images see themselves both ways, which text does not ask for; "all" is another model
    fields.only("use_bidirectional_attention", None, "vision")
    for name in ("attention_k_eq_v", "enable_moe_block"):
        fields.only(name, True, None)
    for name in ("sliding_window_pattern", "vocab_size_per_layer_input"):
        fields.get(name)  # says nothing that the kinds of layers do not say, or belongs to a size that is 0
    vocab_size, d_model = fields.count("vocab_size"), fields.count("hidden_size")
    experts = Experts(
        count=fields.count("num_experts"),
        chosen=fields.count("top_k_experts"),
        size=fields.count("moe_intermediate_size"),
        normalized=True,
    )
    layers = fields.layers("num_hidden_layers", experts.count)
    near = _near(fields, layers)
    local, whole = _rotary(fields, _NEAR), _rotary(fields, _FAR)
    kv_heads, head_dim = _far_heads(fields, near)
    trunk = Trunk(
        family=outer.family,
        vocab_size=vocab_size,
        d_model=d_model,
        mlp_size=fields.count("intermediate_size"),
        layers=layers,
        heads=fields.count("num_attention_heads"),
        kv_heads=fields.count("num_key_value_heads"),
        head_dim=fields.count("head_dim"),
        rotary_dim=fields.count("head_dim"),
        rope_theta=local.real("rope_theta"),
        norm_eps=fields.real("rms_norm_eps"),
        head_norm=True,
        block=outer.count("canvas_length"),
        led=True,
        experts=experts,
        gemma=Gemma(
            near=near,
            window=fields.count("sliding_window"),
            kv_heads=kv_heads,
            head_dim=head_dim,
            rope_theta=whole.real("rope_theta"),
            turned=int(whole.real("partial_rotary_factor") * head_dim // 2),
            softcap=fields.real("final_logit_softcapping"),
        ),
        noise="uniform",
        conditioning_size=fields.count("intermediate_size"),
        tied=True,
        mask_id=mask_token(fields, special, "<mask>"),
        end_id=end_token(fields, special),
        start_id=None if fields.get("bos_token_id") is None else fields.token("bos_token_id"),
        max_length=fields.count("max_position_embeddings"),
        layouts=tuple(_layout(near, ending) for ending in ("", ".weight")),
        optional_tensors=optional_head(True, vocab_size, d_model),
        passed_over={f"model.encoder.{part}.": _IMAGES for part in ("vision_tower", "embed_vision")},
    )
    refuse_unknown(fields)
    refuse_unknown(outer)
    return trunk


def _near(fields: Fields, layers: int) -> tuple[bool, ...]:
    kinds = fields.get("layer_types")
    if not isinstance(kinds, list) or len(cast("list[object]", kinds)) != layers or {*kinds} - {_NEAR, _FAR}:  # pyright: ignore[reportUnknownArgumentType]
        raise ModelError(
            f"{fields.family}: layer_types must name {_NEAR} or {_FAR} for each of {layers} layers; found {kinds!r:.80}"
        )
    if kinds[-1] != _FAR:
        raise ModelError(f"{fields.family}: the last of layer_types must be {_FAR}, as transformers forces it to be")
    return tuple(kind == _NEAR for kind in cast("list[str]", kinds))


def _rotary(fields: Fields, kind: str) -> Fields:
    """The rotary entries of one kind of layers."""
    both = fields.get("rope_parameters")
    said = cast("dict[str, object]", both).get(kind) if isinstance(both, dict) else None
    if not isinstance(said, dict):
        raise ModelError(f"{fields.family}: rope_parameters must have an object {kind}; found {both!r:.80}")
    entries = Fields(f"{fields.family}: rope_parameters of {kind}", cast("dict[str, object]", said))
    entries.require("rope_theta")
    if kind == _NEAR:
        entries.only("rope_type", "default")
        entries.only("partial_rotary_factor", 1.0, None)
    else:
        entries.require("partial_rotary_factor")
        entries.only("rope_type", "proportional")
    entries.only("factor", None, 1.0)
    refuse_unknown(entries)
    return entries


def _far_heads(fields: Fields, near: tuple[bool, ...]) -> tuple[int, int]:
    """Key heads, and the width of one head, of layers that see everything: as published, or as transformers saves."""
    layered = fields.get("per_layer_config")
    if layered is None:
        fields.require("global_head_dim")
        plain = fields.count("num_key_value_heads")
        return fields.count_or("num_global_key_value_heads", plain), fields.count("global_head_dim")
    far = {str(number) for number, short in enumerate(near) if not short}
    entries = cast("dict[str, object]", layered) if isinstance(layered, dict) else {}
    first = entries.get(next(iter(sorted(far))))
    if {*entries} != far or any(entry != first for entry in entries.values()) or not isinstance(first, dict):
        raise ModelError(
            f"{fields.family}: per_layer_config must say the same of each layer of {_FAR}, and nothing of others; "
            f"found {layered!r:.80}"
        )
    said = Fields(f"{fields.family}: per_layer_config", cast("dict[str, object]", first))
    heads = said.count_or("num_key_value_heads", fields.count("num_key_value_heads")), said.count("head_dim")
    refuse_unknown(said)
    return heads


def _layout(near: tuple[bool, ...], ending: str) -> Mapping[str, Source]:
    """Where everything is; `ending`: of the names of experts, which only converted files have."""
    top = "model.decoder"
    layout: dict[str, Source] = {
        "embed": Single(f"{top}.embed_tokens.weight"),
        "norm": Single(f"{top}.norm.weight"),
        "conditioning_norm": Single(f"{top}.self_conditioning.pre_norm.weight"),
    }
    for part in ("gate", "up", "down"):
        layout[f"conditioning.{part}"] = Single(f"{top}.self_conditioning.{part}_proj.weight")
    for i, short in enumerate(near):
        names = _LAYER | {part: f"{name}{ending}" for part, name in _EXPERTS.items()}
        layer = {part: f"{top}.layers.{i}.{name}" for part, name in names.items() if short or part != "v"}
        layer["context_scalar"] = f"model.encoder.language_model.layers.{i}.layer_scalar"
        layout |= {f"layers.{i}.{part}": Single(name) for part, name in layer.items()}
    return layout
