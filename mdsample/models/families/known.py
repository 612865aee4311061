"""Which fields of a `config.json` change what a model computes: so that none is passed over in silence.

A family reads its own fields (`Fields` notes which). Of the rest some must have the value that the trunks implement
(`FIXED`), some say nothing about a forward pass (`NEUTRAL`, and names with a word of `NEUTRAL_WORDS`), and whatever
else is switched off, zero or empty says nothing either. A field that is none of these is refused by name: it may be a
switch of a model that was changed. Sources: the configuration classes of transformers (4.46 to 5.23), and those and the
published files that the families' own docstrings name.
"""

from __future__ import annotations

from mdsample.errors import ModelError
from mdsample.models.families.fields import Fields

#: the values that are implemented; null is the same as absent
FIXED: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu",),
    "use_sliding_window": (False,),
    "mlp_bias": (False,),
    "use_mrope": (False,),
    "clip_qkv": (False,),
    "pretraining_tp": (1,),
    # LLaDA's, from OLMo
    "block_type": ("llama",),
    "activation_type": ("silu",),
    "layer_norm_type": ("rms",),
    "layer_norm_with_affine": (True,),
    "rope": (True,),
    "block_group_size": (1,),
    "alibi": (False,),
    "include_bias": (False,),
    "include_qkv_bias": (False,),
    "bias_for_layer_norm": (False,),
    "attention_layer_norm": (False,),
    "input_emb_norm": (False,),
    "scale_logits": (False,),
    "multi_query_attention": (False,),
    # Ling's, which LLaDA2 is made from
    "norm_head": (False,),
    "norm_softmax": (False,),
    "use_rmsnorm": (True,),
    "use_bias": (False,),
    "use_qkv_bias": (False,),
    "rope_interleave": (False,),
    "topk_method": ("noaux_tc",),
}

#: what a published file says beside the forward pass
NEUTRAL = frozenset(
    (
        # what a file is, and who wrote it
        *("architectures", "auto_map", "custom_pipelines", "model_type", "name_or_path", "finetuning_task"),
        *("tokenizer_class", "quantization", "quantization_config", "torchscript", "tf_legacy_loss", "use_bfloat16"),
        *("precision", "debug"),
        # what transformers returns, and for which task
        *("output_attentions", "output_hidden_states", "output_router_logits", "output_scores", "return_dict"),
        *("return_dict_in_generate", "use_return_dict", "problem_type", "task_specific_params", "id2label", "label2id"),
        *("num_labels", "prefix", "pruned_heads", "keys_to_ignore_at_inference", "tie_last_hidden_states"),
        # how tokens are drawn
        *("max_length", "min_length", "do_sample", "num_beams", "num_beam_groups", "diversity_penalty", "temperature"),
        *("top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "length_penalty", "num_return_sequences"),
        *("early_stopping", "bad_words_ids", "remove_invalid_values", "suppress_tokens", "begin_suppress_tokens"),
        *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty"),
        *("max_new_tokens", "num_diffusion_steps", "pad_token", "eos_token", "bos_token", "mask_token"),
        # how it is computed, not what
        *("attn_implementation", "flash_attention", "rope_full_precision", "base_model_tp_plan", "base_model_pp_plan"),
        *("ep_size", "moe_backend", "use_deepep", "fuse_cross_entropy", "micro_forward", "router_dtype"),
        # what means something only beside a field that is checked
        *("alibi_bias_max", "attention_layer_norm_with_affine", "max_window_layers", "norm_topk_prob"),
        *("original_max_position_embeddings", "model_max_length", "max_seq_length", "seq_length"),
        # what the tensors' names and shapes contradict where it is wrong
        *("mlp_ratio", "intermediate_size", "moe_intermediate_size", "moe_shared_expert_intermediate_size"),
        *("num_local_experts", "n_routed_experts", "n_shared_experts", "num_nextn_predict_layers"),
        *("decoder_sparse_step", "mlp_only_layers"),
    )
)
#: a name with one of these words between underscores speaks of training, storing or drawing
NEUTRAL_WORDS = frozenset(
    (
        *("dropout", "pdrop", "init", "initializer", "loss", "coef", "version", "dtype", "cache", "checkpoint"),
        *("checkpointing", "training", "train", "optimizer", "seed", "unsloth", "revision", "commit", "license"),
    )
)


def refuse_unknown(fields: Fields) -> None:
    """Refuses by name what may change the forward pass, in a configuration of which everything else has been read.

    Raises `ModelError` for a field of `FIXED` with another value, and for one that is not known and says something.
    """
    for name, values in FIXED.items():
        if fields.get(name) is not None:
            fields.only(name, *values)
    # a window is for those who slide it; without the switch it slides, which a family that reads it knows
    if fields.get("use_sliding_window") is None and "sliding_window" not in fields.asked:
        fields.only("sliding_window", None, False)
    for name, value in fields.config.items():
        if value and name not in fields.asked and name != "sliding_window" and not _neutral(name):
            raise ModelError(
                f"{fields.family}: config.json has {name!r:.80} = {value!r:.80}, which is not known here and may "
                "change what the model computes; if it does not, take it out of config.json, in a local copy"
            )


def _neutral(name: str) -> bool:
    return (
        name in NEUTRAL
        or name.startswith("_")
        or name.endswith(("_token_id", "_token_ids"))
        or not NEUTRAL_WORDS.isdisjoint(name.lower().split("_"))
    )
