"""Every family: its published numbers, what it refuses, and a run from a folder to text."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from checkpoints import FAMILIES, write_family
from published import BESIDE, EVERYTHING, PUBLISHED

import mdsample
from mdsample.errors import ModelError
from mdsample.models.families import ALIASES, family_of, read_config
from mdsample.models.families import FAMILIES as READERS
from mdsample.models.families.known import FIXED
from mdsample.models.families.rotary import Growth, Yarn
from mdsample.models.families.special import Special, read_special
from mdsample.models.families.trunk import Experts, Single, Slice, Stack, Trunk
from mdsample.models.weights.checkpoint import open_checkpoint


def trunk(name: str, **changes: Any) -> Trunk:
    config, special, _ = PUBLISHED[name]
    fields = {**config, **changes}
    return READERS[str(family_of(config))](fields, special)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name: str) -> None:
    spec = trunk(name)
    count = 0
    for shape in spec.shapes.values():
        size = 1
        for axis in shape:
            size *= axis
        count += size
    assert count == PUBLISHED[name][2]


def test_what_is_read_beside_the_shapes() -> None:
    dream, sdar, old, new = (trunk(n) for n in ("Dream-7B", "SDAR-4B", "LLaDA-MoE-7B-A1B", "LLaDA2.0-mini"))
    assert (dream.shifted, dream.qkv_bias, dream.head_norm, dream.block) == (True, True, False, None)
    assert (dream.mask_id, dream.end_id, dream.start_id, dream.head_dim) == (151666, 151643, None, 128)
    assert (sdar.shifted, sdar.qkv_bias, sdar.head_norm, sdar.block) == (False, False, True, 4)
    assert (sdar.mask_id, sdar.end_id, sdar.norm_eps, sdar.rope_theta) == (151669, 151643, 1e-6, 1e6)
    assert (old.shifted, old.head_norm, old.block, old.mask_id, old.end_id) == (False, True, None, 156895, 156892)
    assert old.experts == Experts(count=64, chosen=8, size=1024) and old.mlp_size == 8192
    assert (new.shifted, new.head_norm, new.block, new.mask_id, new.end_id) == (False, True, 32, 156895, 156892)
    assert (new.rotary_dim, new.head_dim, new.mlp_size) == (64, 128, 5120)
    assert new.experts == Experts(
        **{"count": 256, "chosen": 8, "size": 512, "shared_size": 512, "score": "sigmoid", "normalized": True},
        **{"scale": 2.5, "groups": 8, "chosen_groups": 4, "corrected": True, "first": 1},
    )
    fast, rnd1 = trunk("Fast-dLLM-v2-7B"), trunk("RND1-Base")
    assert (fast.shifted, fast.qkv_bias, fast.block, fast.mask_id, fast.end_id) == (True, True, 32, 151665, 151645)
    assert (rnd1.shifted, rnd1.head_norm, rnd1.block, rnd1.mask_id, rnd1.end_id) == (True, True, None, 151669, 151645)
    assert rnd1.experts == Experts(count=128, chosen=8, size=768, normalized=True)
    reasoner, coder = trunk("DreamReasoner-8B"), trunk("Stable-DiffCoder-8B")
    assert (reasoner.shifted, reasoner.qkv_bias, reasoner.head_norm, reasoner.block) == (False, False, True, 32)
    assert (reasoner.mask_id, reasoner.end_id, reasoner.head_dim) == (151669, 151643, 128)
    assert (coder.shifted, coder.qkv_bias, coder.head_norm, coder.block) == (False, False, False, 4)
    assert (coder.mask_id, coder.end_id, coder.kv_heads) == (5, 2, 8)
    assert trunk("Stable-DiffCoder-8B", block_size=8).block == 8
    causal = trunk("SDAR-4B", use_regular_causal=True, block_size=3)
    assert (causal.shifted, causal.head_norm, causal.block, causal.mask_id) == (True, True, 1, 151669)
    led = trunk("Nemotron-Labs-Diffusion-3B-Base")
    assert (led.led, led.shifted, led.block, led.mask_id, led.end_id) == (True, False, 32, 100, 2)
    assert led.query_growth == Growth(0.1, 16384.0) and (led.head_dim, led.heads * led.head_dim) == (128, 4096)
    a2d = trunk("Qwen3-0.6B-diffusion-mdlm")
    assert (a2d.shifted, a2d.block, a2d.mask_id, a2d.end_id, a2d.tied) == (False, None, 151669, 151645, True)
    assert trunk("Qwen3-0.6B-diffusion-mdlm", block_size=32).block == 32


def test_where_weights_are() -> None:
    published, ported = trunk("LLaDA2.0-mini").layouts
    fused = "model.layers.0.attention.query_key_value.weight"
    assert published["layers.0.q"] == Slice(fused, 0, 2048)
    assert (published["layers.0.k"], published["layers.0.v"]) == (Slice(fused, 2048, 2560), Slice(fused, 2560, 3072))
    assert published["layers.0.gate"] == Single("model.layers.0.mlp.gate_proj.weight")
    stack = published["layers.1.experts.up"]
    assert isinstance(stack, Stack) and stack.names[255] == "model.layers.1.mlp.experts.255.up_proj.weight"
    assert ported["layers.1.experts.up"] == Single("model.layers.1.mlp.switch_mlp.up_proj.weight")
    assert ported["layers.1.router"] == Single("model.layers.1.mlp.gate.gate_proj.weight")


def test_every_name_in_the_published_index_of_sdar_is_known() -> None:
    # model.safetensors.index.json of SDAR-4B-Chat in JetAstra/SDAR (commit c2041a8): names of layer 0 and of the top
    layer = "input_layernorm mlp.down_proj mlp.gate_proj mlp.up_proj post_attention_layernorm self_attn.k_norm"
    layer += " self_attn.k_proj self_attn.o_proj self_attn.q_norm self_attn.q_proj self_attn.v_proj"
    expected = {f"model.layers.0.{name}.weight" for name in layer.split()}
    expected |= {"lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"}
    (layout,) = trunk("SDAR-4B", num_hidden_layers=1).layouts
    assert {source.name for source in layout.values() if isinstance(source, Single)} == expected


def test_every_family_file_is_in_the_catalogue() -> None:
    # DiffusionGemma has files of its own, tests/backend/test_gemma.py
    assert {family_of(config) for config, _ in FAMILIES.values()} == set(READERS) - {"diffusion_gemma"}


def test_stable_diffcoder_is_told_from_llama(tmp_path: Path) -> None:
    """By its class, or by the file that has it; a Llama that is neither is refused."""
    files = {"AutoModelForCausalLM": "modeling_stable_diffcoder.Model"}
    for declared in ({"architectures": ["StableDiffCoderForCausalLM"]}, {"architectures": None, "auto_map": files}):
        folder = write_family(tmp_path, "stable_diffcoder", config=declared)
        assert read_config(folder).family == "stable_diffcoder"
    for declared in ({"architectures": ["LlamaForCausalLM"]}, {"architectures": "StableDiffcoder", "auto_map": [1]}):
        folder = write_family(tmp_path, "stable_diffcoder", config=declared)
        with pytest.raises(ModelError, match=r"model_type 'llama' and architectures .*: of these only Stable-Diff"):
            read_config(folder)


@pytest.mark.parametrize(("alias", "family"), ALIASES.items())
def test_other_names_are_the_same_model(alias: str, family: str, tmp_path: Path) -> None:
    plain = mdsample.inspect(write_family(tmp_path / "plain", family))
    other = mdsample.inspect(write_family(tmp_path / "other", family, config={"model_type": alias}))
    assert other.trunk == plain.trunk and other.trunk.family == family


YARN = {"rope_type": "yarn", "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "rope-dynamic": (
        "Dream-7B",
        {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
        "Dream: rope_scaling of type 'dynamic' is not implemented; default, linear, llama3, yarn are$",
    ),
    "rope-odd": (
        "SDAR-4B",
        {"rope_scaling": {"type": ["yarn"]}},
        r"rope_scaling of type \['yarn'\] is not implemented",
    ),
    "rope-text": ("SDAR-4B", {"rope_scaling": "yarn"}, "rope_scaling must be an object or null; found 'yarn'"),
    "rope-entry": (
        "SDAR-4B",
        {"rope_parameters": {**YARN, "llama_4_scaling_beta": 0.1}},
        "sdar: rope_parameters of type 'yarn' with llama_4_scaling_beta = 0.1 is not implemented; remove llama_4_sca",
    ),
    "rope-no-factor": (
        "SDAR-4B",
        {"rope_scaling": {"type": "linear"}},
        "sdar: rope_scaling: factor must be a positive number; found None",
    ),
    "rope-two": (
        "SDAR-4B",
        {"rope_scaling": YARN, "rope_parameters": {**YARN, "factor": 2.0}},
        "rope_scaling and rope_parameters differ in factor; remove one",
    ),
    "rope-llama3": ("SDAR-4B", {"rope_scaling": LLAMA3}, "low_freq_factor = 4 must be less than high_freq_f"),
    "rope-base": (
        "SDAR-4B",
        {"rope_scaling": YARN, "rope_theta": 1},
        "type 'yarn' needs a rope_theta above 1; found 1",
    ),
    "no-rope": ("SDAR-4B", {"rope_theta": None}, "sdar: config.json lacks rope_theta$"),
    "sliding": ("Dream-7B", {"use_sliding_window": True}, "use_sliding_window = True is not implemented"),
    "layer-types": (
        "SDAR-4B",
        {"layer_types": ["full_attention", "sliding_attention"]},
        "layer_types = .* not implemented",
    ),
    "layer-types-odd": ("SDAR-4B", {"layer_types": "all"}, "layer_types = 'all' is not implemented"),
    "activation": ("Dream-7B", {"hidden_act": "gelu"}, "hidden_act = 'gelu' is not implemented; 'silu' is"),
    "mrope": ("Dream-7B", {"use_mrope": True}, "use_mrope = True is not implemented"),
    "dream-blocks": (
        "DreamReasoner-8B",
        {"attention_bias": True},
        "Dream: attention_bias = True is not implemented; False or None is",
    ),
    "dream-block": ("DreamReasoner-8B", {"block_size": 0}, "block_size must be a positive whole number; found 0"),
    "sdar-causal": ("SDAR-4B", {"use_regular_causal": 1}, "use_regular_causal must be true or false; found 1"),
    "dream-no-bias": (
        "Dream-7B",
        {"attention_bias": False},
        "attention_bias = False is not implemented; True or None is",
    ),
    "qwen3-bias": ("SDAR-4B", {"attention_bias": True}, "attention_bias = True is not implemented; False or None is"),
    "mlp-bias": ("SDAR-4B", {"mlp_bias": True}, "mlp_bias = True is not implemented"),
    "odd-heads": (
        "Dream-7B",
        {"num_attention_heads": 27},
        "hidden_size = 3584 cannot be split into num_attention_heads = 27",
    ),
    "missing": (
        "Dream-7B",
        {"vocab_size": None, "hidden_size": None},
        "Dream: config.json lacks vocab_size, hidden_size$",
    ),
    "heads": ("Dream-7B", {"num_key_value_heads": 3}, "28 heads cannot share 3 key-value heads"),
    "eps": ("Dream-7B", {"rms_norm_eps": 0}, "rms_norm_eps must be a positive number; found 0"),
    "mask": ("Dream-7B", {"mask_token_id": 152064}, "the mask token is 152064, but ids go from 0 to 152063"),
    "no-mask": (
        "Dream-7B",
        {"mask_token_id": None},
        r"which token is the mask is said neither .* add mask_token_id to",
    ),
    "ends": ("Dream-7B", {"eos_token_id": [1, 2]}, r"eos_token_id = \[1, 2\] names several tokens"),
    "sdar-no-block": ("SDAR-4B", {"block_size": None}, "lacks block_size, without which .* 4 for SDAR-…-Chat"),
    "sdar-block": ("SDAR-4B", {"block_size": 0}, "block_size must be a positive whole number; found 0"),
    "sdar-step": ("SDAR-30B-A3B", {"decoder_sparse_step": 2}, "decoder_sparse_step = 2 is not implemented; 1"),
    "sdar-dense": ("SDAR-30B-A3B", {"mlp_only_layers": [0]}, r"mlp_only_layers = \[0\] is not implemented; \[\] is"),
    "too-many": (
        "SDAR-30B-A3B",
        {"num_experts_per_tok": 129},
        "129 experts a token cannot be had from 1 groups of 128",
    ),
    "moe-bias": (
        "LLaDA-MoE-7B-A1B",
        {"moe_router_enable_expert_bias": True},
        "moe_router_enable_expert_bias = True is not",
    ),
    "moe-score": (
        "LLaDA-MoE-7B-A1B",
        {"moe_router_score_function": "sigmoid"},
        "moe_router_score_function = 'sigmoid'",
    ),
    "moe-shared": (
        "LLaDA-MoE-7B-A1B",
        {"shared_expert_intermediate_size": 8},
        "shared_expert_intermediate_size = 8 is not",
    ),
    "moe-scale": ("LLaDA-MoE-7B-A1B", {"routed_scaling_factor": 2.5}, "routed_scaling_factor = 2.5 is not implemented"),
    "moe-mixed": (
        "LLaDA-MoE-7B-A1B",
        {"moe_layer_freq": [1, 0] * 8},
        r"moe_layer_freq = \[1, 0, .* is not implemented; 16",
    ),
    "moe-short": (
        "LLaDA-MoE-7B-A1B",
        {"moe_layer_freq": [1]},
        r"moe_layer_freq = \[1\] is not implemented; 16 entries",
    ),
    "moe-clip": ("LLaDA-MoE-7B-A1B", {"clip_qkv": 8.0}, "clip_qkv = 8.0 is not implemented"),
    "new-score": (
        "LLaDA2.0-mini",
        {"score_function": "softmax"},
        "score_function = 'softmax' is not implemented; 'sigmoid'",
    ),
    "new-bias": ("LLaDA2.0-mini", {"use_bias": True}, "use_bias = True is not implemented"),
    "new-qkv": ("LLaDA2.0-mini", {"use_qkv_bias": True}, "use_qkv_bias = True is not implemented"),
    "new-norm": ("LLaDA2.0-mini", {"use_qk_norm": False}, "use_qk_norm = False is not implemented; True"),
    "new-head": ("LLaDA2.0-mini", {"norm_head": True}, "norm_head = True is not implemented"),
    "new-groups": ("LLaDA2.0-mini", {"n_group": 7}, "256 experts cannot be split into 7 groups"),
    "new-tiny-groups": ("LLaDA2.0-mini", {"n_group": 256}, "256 experts cannot be split into 256 groups"),
    "new-open": ("LLaDA2.0-mini", {"topk_group": 9}, "of which 9 are chosen"),
    "new-rotary": ("LLaDA2.0-mini", {"partial_rotary_factor": 0.2}, "an even width of at most a head's, 128; found 25"),
    "new-rotary-dim": ("LLaDA2.0-mini", {"rotary_dim": 32}, "rotary_dim = 32 is not implemented; None or 64 is"),
    "new-rotary-wide": ("LLaDA2.0-mini", {"partial_rotary_factor": 1.5}, "at most a head's, 128; found 192"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_implemented_is_refused_by_name(name: str) -> None:
    model, changes, said = REFUSED[name]
    with pytest.raises(ModelError, match=said) as caught:
        trunk(model, **changes)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_published_field_is_refused(name: str) -> None:
    fields = {**BESIDE.get(name, {}), **EVERYTHING}
    assert trunk(name, **fields) == trunk(name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_unknown_field_is_passed_over(name: str) -> None:
    for field, value in (("query_scale", 2.0), ("use_relay", True), ("layer_order", [1, 0]), ("norm_type", "post")):
        with pytest.raises(ModelError, match=f"has '{field}' = .*not known here and may change .*; if it does not, t"):
            trunk(name, **{field: value})
    off = {"query_scale": 0.0, "use_relay": False, "layer_order": [], "norm_type": None, "position_type": ""}
    assert trunk(name, **off) == trunk(name)
    with pytest.raises(ModelError, match="sliding_window = 4096 is not implemented; None or False is"):
        trunk(name, sliding_window=4096, use_sliding_window=None)
    assert trunk(name, sliding_window=4096, use_sliding_window=False) == trunk(name)


@pytest.mark.parametrize("field", FIXED)
def test_what_must_have_a_value_is_refused_with_another(field: str) -> None:
    for name in PUBLISHED:
        assert trunk(name, **{field: FIXED[field][0]}) == trunk(name)
        with pytest.raises(ModelError, match=f"{field} = 'other' is not implemented; {FIXED[field][0]!r} is$"):
            trunk(name, **{field: "other"})


def test_what_transformers_5_writes_is_the_same() -> None:
    """`rope_parameters` in place of three fields, `layer_types`, `dtype`."""
    old = trunk("Qwen3-0.6B-diffusion-mdlm")
    parameters = {"rope_type": "default", "rope_theta": 1000000.0}
    new = {"rope_theta": None, "rope_parameters": parameters, "layer_types": ["full_attention"] * 28}
    assert trunk("Qwen3-0.6B-diffusion-mdlm", **new) == old


def test_a_scaling_is_the_same_however_it_is_written() -> None:
    """The old `type`, or `rope_parameters`; the length trained on inside, outside, or that of the whole model."""
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192, "finetuned": True}
    expected = trunk("SDAR-4B", rope_scaling=yarn)
    enlarged = 0.1 * math.log(4) + 1
    assert expected.rope_scaling == Yarn(4.0, 8192.0, 32.0, 1.0, True, enlarged)
    assert trunk("SDAR-4B", rope_scaling={**yarn, "beta_fast": None, "attention_factor": None}) == expected
    parameters = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 8192}
    assert trunk("SDAR-4B", rope_theta=None, rope_parameters=parameters) == expected
    assert trunk("SDAR-4B", rope_scaling=YARN, original_max_position_embeddings=8192) == expected
    assert trunk("SDAR-4B", rope_scaling={**yarn, "factor": None}) == expected, "32768 / 8192"
    assert trunk("SDAR-4B", rope_scaling=YARN).rope_scaling == Yarn(
        4.0, 32768.0, 32.0, 1.0, True, 0.1 * math.log(4) + 1
    )


class TestSpecial:
    def test_the_mask_is_found_where_config_is_silent(self, tmp_path: Path) -> None:
        folder = write_family(tmp_path, "a2d-qwen3")
        assert read_config(folder).mask_id == 2, "by its text"
        for file in ("tokenizer_config.json", "tokenizer.json"):
            said = json.loads((folder / file).read_text())
            said.pop("added_tokens", None)
            (folder / file).write_text(json.dumps(said))
        with pytest.raises(ModelError, match=r"which token is the mask .* nor is there a token '<\|mask\|>'; add"):
            read_config(folder)
        for declared in ("[M]", {"content": "[M]", "lstrip": False}):
            said = {"mask_token": declared, "added_tokens_decoder": {"17": {"content": "[M]"}, "x": {"content": "y"}}}
            (folder / "tokenizer_config.json").write_text(json.dumps(said))
            assert read_config(folder).mask_id == 17, "by the role declared for it"
        fields = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**fields, "mask_token_id": 3}))
        assert read_config(folder).mask_id == 3, "config.json comes first"

    def test_of_several_end_tokens_the_tokenizer_names_one(self, tmp_path: Path) -> None:
        assert read_config(write_family(tmp_path / "a", "a2d-llama", config={"eos_token_id": [5, 1]})).end_id == 1
        assert read_config(write_family(tmp_path / "b", "a2d-llama", config={"eos_token_id": None})).end_id == 1
        with pytest.raises(ModelError, match=r"eos_token_id = \[5, 6\] names several tokens, and neither eos_token in"):
            read_config(write_family(tmp_path / "c", "a2d-llama", config={"eos_token_id": [5, 6]}))

    def test_odd_files(self, tmp_path: Path) -> None:
        assert read_special(tmp_path) == Special()
        (tmp_path / "tokenizer_config.json").write_text(
            '{"added_tokens_decoder": [], "mask_token": null, "x_token": 3}'
        )
        (tmp_path / "tokenizer.json").write_text('{"added_tokens": [3, {"id": true, "content": "a"}, {"id": 4}]}')
        assert read_special(tmp_path) == Special()
        (tmp_path / "tokenizer.json").write_text("[]")
        assert read_special(tmp_path) == Special()
        (tmp_path / "tokenizer.json").write_text("{")
        with pytest.raises(ModelError, match=r"tokenizer.json is not valid JSON"):
            read_special(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_from_a_folder_to_text(family: str, tmp_path: Path) -> None:
    """Shipped Python is neither needed nor run, and the answer does not depend on where the weights are stored."""
    texts: list[str] = []
    for shards in (1, 2):
        folder = write_family(tmp_path / str(shards), family, shards=shards)
        (folder / "modeling_anything.py").write_text("raise SystemExit('run')")
        model = mdsample.load(folder, "reference")
        template = mdsample.Template.parse("Q {prompt} A{answer:9}")
        canvas = template.canvas(model.tokenizer, [{"prompt": "the cat"}, {"prompt": "Ben has 7"}])
        result = mdsample.Sampler(mdsample.parse("whole+confidence+top(3)"), seed=1).run(model, canvas)
        assert [row.nfe for row in result.rows] == [3, 3]
        texts.append("|".join(row.text for row in result.rows))
    assert texts[0] == texts[1]
    assert open_checkpoint(folder, read_config(folder)).parameters > 5000
