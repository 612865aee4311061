"""Published configurations of every family, and how many weights each model has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checkpoints import CONFIG

from mdsample.models.families.special import Special

# Qwen's added tokens, as in the tokenizer files of SDAR-4B-Chat; dllm adds <|mask|> after those of Qwen3
QWEN3 = Special({"<|endoftext|>": 151643, "<|im_end|>": 151645, "<|mask|>": 151669}, {"mask_token": "<|mask|>"})
ANT = Special({"<|endoftext|>": 156892, "<|mask|>": 156895}, {"eos_token": "<|endoftext|>"})

_ROPE: dict[str, Any] = {"rope_theta": 1000000.0, "rope_scaling": None, "hidden_act": "silu", "rms_norm_eps": 1e-6}
# config.json of JetLM/SDAR-4B-Chat, read in JetAstra/SDAR training/model/SDAR-4B-Chat (commit c2041a8)
SDAR_4B: dict[str, Any] = {
    **{"architectures": ["SDARForCausalLM"], "model_type": "sdar", "attention_bias": False, "attention_dropout": 0.0},
    **{"auto_map": {"AutoConfig": "configuration_sdar.SDARConfig", "AutoModel": "modeling_sdar.SDARModel"}},
    **{"attn_implementation": "flex_attention", "bos_token_id": 151643, "debug": False, "eos_token_id": 151643},
    **{"block_size": 4, "mask_token_id": 151669, "ep_size": 1, "fuse_cross_entropy": True, "head_dim": 128},
    **{"hidden_act": "silu", "hidden_size": 2560, "initializer_range": 0.02, "intermediate_size": 9728},
    **{"max_position_embeddings": 32768, "max_window_layers": 36, "micro_forward": False, "num_attention_heads": 32},
    **{"num_hidden_layers": 36, "num_key_value_heads": 8, "rms_norm_eps": 1e-6, "rope_scaling": None},
    **{"rope_theta": 1000000, "skip_checkpoint": False, "sliding_window": None, "tie_word_embeddings": False},
    **{"torch_dtype": "bfloat16", "use_cache": False, "use_deepep": False, "use_sliding_window": False},
    "vocab_size": 151936,
}
# numbers of GSAI-ML/LLaDA-8B-Instruct, as in tests/models/test_loading.py of this project since its first release
LLADA_8B: dict[str, Any] = {
    **{k: v for k, v in CONFIG.items() if k != "bos_token_id"},
    **{"d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "mlp_hidden_size": 12288},
    **{"vocab_size": 126464, "embedding_size": 126464, "max_sequence_length": 4096, "rope_theta": 500000.0},
    **{"mask_token_id": 126336, "eos_token_id": 126081},
}
# numbers of Dream-org/Dream-v0-Instruct-7B, as copied in the tests of candle-mi (parse_dream_bidirectional) and in
# MODEL_PRESETS of other public code (mask 151666, end 151643); the rest is Qwen2.5-7B's
DREAM_7B: dict[str, Any] = {
    **{"model_type": "Dream", "architectures": ["DreamModel"], "hidden_size": 3584, "intermediate_size": 18944},
    **{"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064},
    **{"max_position_embeddings": 131072, "max_window_layers": 28, "mask_token_id": 151666, "pad_token_id": 151643},
    **{"bos_token_id": 151643, "eos_token_id": 151643, "tie_word_embeddings": False, "use_sliding_window": False},
    **{"sliding_window": None, "attention_dropout": 0.0, **_ROPE},
}
# numbers of inclusionAI/LLaDA-MoE-7B-A1B-Instruct, as copied in the README of MOSAIC's port; eps, vocabulary and the
# switches are inferred from the published configuration class
LLADA_MOE: dict[str, Any] = {
    **{"model_type": "llada", "architectures": ["LLaDAMoEModelLM"], "hidden_size": 2048, "num_hidden_layers": 16},
    **{"num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 64, "num_experts_per_tok": 8},
    **{"expert_intermediate_size": 1024, "dense_intermediate_size": 8192, "moe_layer_freq": [1] * 16},
    **{"rope_theta": 50000, "max_position_embeddings": 8192, "qk_layernorm": True, "hidden_act": "silu"},
    **{"rms_norm_eps": 1e-5, "vocab_size": 157184, "shared_expert_intermediate_size": None, "eos_token_id": 156892},
    **{"tie_word_embeddings": False, "attention_bias": False, "norm_topk_prob": None, "clip_qkv": None},
}
# numbers of inclusionAI/LLaDA2.0-mini, as copied in the tests of xLLM (HFModelLoaderTest, LLaDAModelArgsLoader)
LLADA2_MINI: dict[str, Any] = {
    **{"dtype": "bfloat16", "first_k_dense_replace": 1, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048},
    **{"initializer_range": 0.02, "intermediate_size": 5120, "max_position_embeddings": 32768},
    **{"model_type": "llada2_moe", "moe_intermediate_size": 512, "moe_router_enable_expert_bias": True, "n_group": 8},
    **{"use_qk_norm": True, "use_qkv_bias": False, "norm_topk_prob": True, "num_attention_heads": 16},
    **{"num_experts": 256, "num_experts_per_tok": 8, "num_hidden_layers": 20, "num_key_value_heads": 4},
    **{"num_shared_experts": 1, "output_router_logits": False, "pad_token_id": 156892, "partial_rotary_factor": 0.5},
    **{"rms_norm_eps": 1e-6, "rope_theta": 600000, "routed_scaling_factor": 2.5, "score_function": "sigmoid"},
    **{"tie_word_embeddings": False, "topk_group": 4, "vocab_size": 157184},
}
# numbers of dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1 and Qwen2.5-Coder-0.5B-…-mdlm, as copied in the tests of candle-mi
A2D_QWEN3: dict[str, Any] = {
    **{"model_type": "a2d-qwen3", "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16},
    **{"num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072, "vocab_size": 151936},
    **{"max_position_embeddings": 32768, "tie_word_embeddings": True, "eos_token_id": 151645, **_ROPE},
}
A2D_QWEN2: dict[str, Any] = {
    **{"model_type": "a2d-qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14},
    **{"num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936, "attention_bias": True},
    **{"max_position_embeddings": 32768, "tie_word_embeddings": True, "eos_token_id": 151643, **_ROPE},
}
# numbers of Qwen3-30B-A3B, which JetLM/SDAR-30B-A3B-Chat is made from; inferred, its own file was not seen
SDAR_30B: dict[str, Any] = {
    **{**SDAR_4B, "model_type": "sdar_moe", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48},
    **{"num_key_value_heads": 4, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
    **{"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
}
# numbers of Qwen2.5-7B-Instruct, which Fast_dLLM_v2_7B is made from; inferred, its own file was not seen
FAST_DLLM_7B: dict[str, Any] = {
    **{k: v for k, v in DREAM_7B.items() if k != "mask_token_id"},
    **{"model_type": "Fast_dLLM_Qwen", "bd_size": 32, "max_position_embeddings": 32768, "eos_token_id": 151645},
}
# config.json of ByteDance-Seed/Seed-Coder-8B-Base, which Stable-DiffCoder is made from, with the class and the length
# that Diffulex has in `configuration_stable_diffcoder.py` (commit 184ba97)
STABLE_DIFFCODER: dict[str, Any] = {
    **{"model_type": "llama", "architectures": ["StableDiffcoderForCausalLM"], "attention_bias": False},
    **{"attention_dropout": 0.1, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "hidden_act": "silu"},
    **{"hidden_size": 4096, "initializer_range": 0.009882118, "intermediate_size": 14336, "layer_norm_eps": None},
    **{"max_position_embeddings": 8192, "mlp_bias": False, "num_attention_heads": 32, "num_hidden_layers": 32},
    **{"num_key_value_heads": 8, "resid_pdrop": 0.1, "rms_norm_eps": 1e-6, "rope_theta": 500000.0},
    **{"tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": 155136},
}
# block_size, mask and model_type of Dream-org/DreamReasoner-8B, as public ports note them; the rest is Qwen3-8B-Base's
DREAM_REASONER: dict[str, Any] = {
    **{**SDAR_4B, "hidden_size": 4096, "intermediate_size": 12288, "model_type": "Dream", "block_size": 32},
    "architectures": ["DreamForCausalLM"],
}
# config.json of nvidia/Nemotron-Labs-Diffusion-3B-Base, as copied in the tests of edwardcapriolo/deliverance
NEMOTRON_3B: dict[str, Any] = {
    **{"architectures": ["NemotronLabsDiffusionModel"], "model_type": "nemotron_labs_diffusion"},
    **{"attention_bias": False, "attention_dropout": 0.0, "attn_implementation": "sdpa", "block_size": 32},
    **{"bos_token_id": 1, "eos_token_id": 2, "mask_token_id": 100, "dlm_loss_weight": None, "ar_loss_weight": 1.0},
    **{"dlm_paradigm": "bidirectional", "dp_varying_mask_ratio": False, "head_dim": 128, "hidden_act": "silu"},
    **{"hidden_size": 3072, "intermediate_size": 9216, "max_position_embeddings": 4096, "mlp_bias": False},
    **{"num_attention_heads": 32, "num_hidden_layers": 26, "num_key_value_heads": 8, "rms_norm_eps": 1e-5},
    **{"sliding_window": None, "tie_word_embeddings": False, "vocab_size": 131072},
    "rope_parameters": {
        **{"beta_fast": 32.0, "beta_slow": 1.0, "factor": 0.25, "llama_4_scaling_beta": 0.1, "mscale": 1.0},
        **{"mscale_all_dim": 1.0, "original_max_position_embeddings": 16384, "rope_theta": 1000000.0},
        "rope_type": "yarn",
    },
}
# what configuration_rnd.py of RND1 sets
RND1_BASE: dict[str, Any] = {
    **{k: v for k, v in SDAR_30B.items() if k != "block_size"},
    **{"model_type": "rnd1", "max_position_embeddings": 40960, "rope_scaling": False, "eos_token_id": 151645},
}
# parameter counts: SDAR-4B's is from its published index; LLaDA-8B's and those of the Qwen parents are generally known;
# those of LLaDA-MoE and LLaDA2.0-mini agree with the names 7B and 16B, that of Stable-DiffCoder with the hub's 8.3B; no
# published file was seen to confirm the digits
PUBLISHED: dict[str, tuple[Mapping[str, Any], Special, int]] = {
    "LLaDA-8B": (LLADA_8B, Special(), 8_015_581_184),
    "Dream-7B": (DREAM_7B, Special(), 7_615_616_512),
    # half of total_size in the published index, in bfloat16
    "SDAR-4B": (SDAR_4B, Special(), 8_822_848_512 // 2),
    "SDAR-8B": ({**SDAR_4B, "hidden_size": 4096, "intermediate_size": 12288}, Special(), 8_190_735_360),
    "SDAR-30B-A3B": (SDAR_30B, Special(), 30_532_122_624),
    "DreamReasoner-8B": (DREAM_REASONER, Special(), 8_190_735_360),
    "Stable-DiffCoder-8B": (STABLE_DIFFCODER, Special({"<[MASK_TOKEN]>": 5}), 8_250_462_208),
    "Fast-dLLM-v2-7B": (FAST_DLLM_7B, Special({"|<MASK>|": 151665}), 7_615_616_512),
    "RND1-Base": (RND1_BASE, Special(), 30_532_122_624),
    # its file has 7,663,347,000 bytes in bfloat16 and 237 tensors: 118 bytes of header for each
    "Nemotron-Labs-Diffusion-3B-Base": (NEMOTRON_3B, Special(), (7_663_347_000 - 237 * 118 + 6) // 2),
    "LLaDA-MoE-7B-A1B": (LLADA_MOE, ANT, 7_356_880_896),
    "LLaDA2.0-mini": (LLADA2_MINI, ANT, 16_255_643_392),
    "Qwen3-0.6B-diffusion-mdlm": (A2D_QWEN3, QWEN3, 596_049_920),
    "Qwen2.5-Coder-0.5B-mdlm": (A2D_QWEN2, QWEN3, 494_032_768),
}

# by model: fields beside those above that its published config.json has, or that its configuration class writes
BESIDE: dict[str, dict[str, Any]] = {
    # as in a LLaDA of 100M with the published file's fields, SwanHubX/SwanLab-Docs "08-diffusion/1.llada"
    "LLaDA-8B": {
        **{"alibi_bias_max": 8.0, "attention_dropout": 0.0, "attention_layer_norm": False},
        **{"attention_layer_norm_with_affine": True, "bias_for_layer_norm": False, "block_group_size": 1},
        **{"embedding_dropout": 0.0, "flash_attention": False, "init_cutoff_factor": None, "init_device": "meta"},
        **{"init_fn": "mitchell", "init_std": 0.02, "input_emb_norm": False, "layer_norm_with_affine": True},
        **{"mlp_ratio": 4, "multi_query_attention": None, "pad_token_id": 126081, "precision": "amp_bf16"},
        **{"residual_dropout": 0.0, "rope_full_precision": True, "scale_logits": False, "use_cache": False},
        **{"transformers_version": "4.46.3", "auto_map": {"AutoConfig": "configuration_llada.LLaDAConfig"}},
    },
    # Qwen2.5's, of which Dream is made
    "Dream-7B": {"torch_dtype": "bfloat16", "transformers_version": "4.46.2", "use_cache": True, "use_mrope": False},
    "Fast-dLLM-v2-7B": {"layer_types": ["full_attention"] * 28, "sliding_window": 131072, "initializer_range": 0.02},
    # configuration_llada2_moe.py in ZHZisZZ/dllm, and the fields of Ling, of which LLaDA2 is made
    "LLaDA2.0-mini": {
        **{"embedding_dropout": 0.0, "attention_dropout": 0.0, "output_dropout": 0.0, "use_cache": False},
        **{"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28, "norm_head": False},
        **{"rotary_dim": 64, "use_rmsnorm": True, "norm_softmax": False, "router_dtype": "fp32", "use_bias": False},
        **{"architectures": ["LLaDA2MoeModelLM"], "num_nextn_predict_layers": 0, "topk_method": "noaux_tc"},
    },
    # configuration_lladamoe.py in ZHZisZZ/dllm
    "LLaDA-MoE-7B-A1B": {
        **{"initializer_range": 0.02, "use_cache": False, "attention_dropout": 0.0, "router_aux_loss_coef": 0.01},
        **{"router_num_group": None, "router_topk_group": None, "output_router_logits": False, "pad_token_id": 156892},
    },
    # configuration_rnd.py in RadicalNumerics/RND1
    "RND1-Base": {
        **{"num_diffusion_steps": 256, "moe_backend": "hf", "is_causal": False, "use_cache": False},
        **{"sliding_window": False, "router_aux_loss_coef": 0.001, "pad_token_id": 151643, "attention_dropout": 0.0},
    },
}
# what transformers 4 writes of generation and tasks when it writes everything
EVERYTHING: dict[str, Any] = {
    **{"return_dict": True, "torchscript": False, "pruned_heads": {}, "chunk_size_feed_forward": 0, "max_length": 20},
    **{"min_length": 0, "do_sample": False, "num_beams": 1, "num_beam_groups": 1, "temperature": 1.0, "top_k": 50},
    **{"top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0, "num_return_sequences": 1},
    **{"remove_invalid_values": False, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "prefix": None},
    **{"sep_token_id": 5, "_name_or_path": "a/b", "_attn_implementation_autoset": True, "attn_implementation": "sdpa"},
    **{"dtype": "bfloat16", "torch_dtype": "bfloat16", "transformers_version": "4.57.1", "output_attentions": False},
    **{"quantization": {"bits": 4, "group_size": 64}, "unsloth_version": "2026.1", "unsloth_fixed": True},
}
