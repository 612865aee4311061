"""Low-rank adapters: what comes of merging one is the published formula, everywhere; what is not merged is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from adapters import PREFIX, Floats, pair, summed, write_adapter
from checkpoints import FAMILIES, converted, family_weights, to_bfloat16, write_checkpoint, write_family
from commands import is_refused
from hubs import serving
from installed import on
from mdsample_cli.main import main

import mdsample
from mdsample.backend import load as loading
from mdsample.backend.reference.weights import Tensors
from mdsample.backend.setup import Setup
from mdsample.errors import ModelError
from mdsample.models.convert import convert
from mdsample.models.families import read_config
from mdsample.models.inspect import inspect_adapter
from mdsample.models.weights.adapter import open_adapter
from mdsample.models.weights.checkpoint import open_checkpoint
from mdsample.models.weights.merging import merged

Q = "model.transformer.blocks.0.q_proj"
BACKENDS = ["reference", on("torch", "torch"), on("mlx", "mlx")]
UNTIED: dict[str, object] = {"tie_word_embeddings": False}


def whole(folder: Path) -> dict[str, Floats]:
    return dict(Tensors(open_checkpoint(folder, read_config(folder))))


def with_adapter(folder: Path, adapter: Path) -> dict[str, Floats]:
    return dict(Tensors(merged(open_checkpoint(folder, read_config(folder)), open_adapter(adapter))))


def close(one: Mapping[str, Floats], other: Mapping[str, Floats]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6, err_msg=name)


# the formula


def _linear(name: str, x: Floats) -> bool:
    return x.ndim == 2 and "embed" not in name and "wte" not in name


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("layout", ["published", "converted"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_of_every_family(family: str, layout: str, dora: bool, tmp_path: Path) -> None:
    """Fused ones, experts and routers too; the adapter has the published names, whatever the model's files have."""
    tied = {"weight_tying": False} if family == "llada" else UNTIED
    weights, rng = family_weights(family, tied), np.random.default_rng(0)
    parts = {
        name.removesuffix(".weight"): pair(rng, x.shape, 2, dora) for name, x in weights.items() if _linear(name, x)
    }
    adapter = write_adapter(
        tmp_path / "adapter",
        {f"{module}.{name}": x for module, of_it in parts.items() for name, x in of_it.items()},
        use_dora=dora,
    )
    changed = weights | {
        f"{module}.weight": summed(weights[f"{module}.weight"], of_it, 3.0) for module, of_it in parts.items()
    }
    names = (lambda x: converted(family, x)) if layout == "converted" else dict
    folder, expected = (
        write_family(tmp_path / where, family, config=tied, weights=names(x))
        for where, x in (("base", weights), ("expected", changed))
    )
    close(with_adapter(folder, adapter), whole(expected))


@pytest.mark.parametrize(
    ("settings", "rank", "scale"),
    [
        ({}, 2, 3.0),
        ({"r": 4}, 4, 1.5),
        ({"lora_alpha": 5.5}, 2, 2.75),
        ({"use_rslora": True}, 2, 6 / 2**0.5),
        ({"fan_in_fan_out": True, "bias": "all", "target_modules": ".*", "qalora_group_size": 16}, 2, 3.0),
        ({"rank_pattern": {"q_proj": 3}}, 3, 2.0),
        ({"rank_pattern": {"k_proj": 9, "blocks.0.q_proj": 3, "q_proj": 5}}, 3, 2.0),
        ({"rank_pattern": {"j_proj": 3, "lora": 4, "proj": 5}, "alpha_pattern": {"0": 1}}, 2, 3.0),
        ({"rank_pattern": {"^model.transformer.blocks.0.q_proj": 3}, "use_rslora": True}, 3, 6 / 3**0.5),
        ({"alpha_pattern": {r".*blocks\.(0|1)\.[a-q]_proj": 8}}, 2, 4.0),
        ({"alpha_pattern": {"^transformer.*": 8}}, 2, 3.0),
        ({"init_lora_weights": "gaussian"}, 2, 3.0),
        ({"something_new": None, "another": {}}, 2, 3.0),
    ],
)
def test_rank_and_scale(settings: dict[str, object], rank: int, scale: float, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "base")
    before = whole(folder)
    parts = pair(np.random.default_rng(1), before["layers.0.q"].shape, rank)
    adapter = write_adapter(tmp_path / "a", {f"{Q}.{name}": x for name, x in parts.items()}, **settings)
    close(with_adapter(folder, adapter), before | {"layers.0.q": summed(before["layers.0.q"], parts, scale)})


@pytest.mark.parametrize("prefix", [PREFIX, ""])
def test_names_of_a_state_that_was_saved_as_it_is(prefix: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "base")
    before, rng = whole(folder), np.random.default_rng(1)
    parts = pair(rng, before["layers.0.q"].shape, 2, dora=True)
    named = {
        f"{Q}.lora_A.default.weight": parts["lora_A.weight"],
        f"{Q}.lora_B.default.weight": parts["lora_B.weight"],
        f"{Q}.lora_magnitude_vector.default.weight": parts["lora_magnitude_vector"],
        "model.transformer.ln_f.modules_to_save.default.weight": rng.normal(size=16).astype(np.float32),
    }
    adapter = write_adapter(tmp_path / "a", named, prefix=prefix, use_dora=True)
    expected = before | {"layers.0.q": summed(before["layers.0.q"], parts, 3.0), "norm": [*named.values()][3]}
    close(with_adapter(folder, adapter), expected)


@pytest.mark.parametrize("dora", [False, True])
def test_an_embedding(dora: bool, tmp_path: Path) -> None:
    folder = write_family(tmp_path / "base", "a2d-llama")
    before, rng = whole(folder), np.random.default_rng(1)
    parts = pair(rng, before["embed"].T.shape, 2, dora)
    name = "model.embed_tokens"
    named = {f"{name}.lora_embedding_A": parts["lora_A.weight"], f"{name}.lora_embedding_B": parts["lora_B.weight"]}
    named |= {f"{name}.lora_magnitude_vector": parts["lora_magnitude_vector"]} if dora else {}
    # peft saves the embedding that was trained with the pair; what is added is added to it
    own = rng.normal(size=before["embed"].shape).astype(np.float32)
    adapter = write_adapter(tmp_path / "a", named | {f"{name}.base_layer.weight": own}, use_dora=dora)
    close(with_adapter(folder, adapter), before | {"embed": summed(own.T, parts, 3.0).T})


def test_biases(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "base", "dream")
    before, rng = whole(folder), np.random.default_rng(1)
    q, k = "model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj"
    parts = pair(rng, before["layers.1.q"].shape, 2)
    shift, own = (rng.normal(size=before[f"layers.1.{x}_bias"].shape).astype(np.float32) for x in "qk")
    named = {f"{q}.{name}": x for name, x in parts.items()} | {f"{q}.lora_B.bias": shift, f"{k}.bias": own}
    expected = {"layers.1.q": summed(before["layers.1.q"], parts, 3.0), "layers.1.k_bias": own}
    expected["layers.1.q_bias"] = before["layers.1.q_bias"] + 3 * shift
    close(with_adapter(folder, write_adapter(tmp_path / "a", named, bias="all")), before | expected)


def test_tied_weights(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "base", "a2d-qwen3")
    before, rng = whole(folder), np.random.default_rng(1)
    embed, head = (rng.normal(size=before["embed"].shape).astype(np.float32) for _ in range(2))
    named = {"model.embed_tokens.weight": embed, "lm_head.weight": head}
    both = write_adapter(tmp_path / "both", named)
    close(with_adapter(folder, both), before | {"embed": embed, "head": head})
    alone = write_adapter(tmp_path / "head", {"lm_head.weight": head})
    close(with_adapter(folder, alone), before | {"head": head})
    made = convert(folder, tmp_path / "made", bits=None, adapter=alone).folder
    close(whole(made), before | {"head": head})
    assert json.loads((made / "config.json").read_text())["tie_word_embeddings"] is False
    low = {f"lm_head.{name}": x for name, x in pair(rng, head.shape, 2).items()}
    for number, unclear in enumerate((low, low | named, {"model.embed_tokens.weight": embed})):
        adapter = write_adapter(tmp_path / str(number), unclear)
        with pytest.raises(ModelError, match=r"or the head alone, which are one matrix in base, .* merge it with peft"):
            with_adapter(folder, adapter)


# everywhere


def small(folder: Path, **settings: Any) -> tuple[Path, dict[str, Floats]]:
    """A model's adapter for `q` of its first layer and for the last norm, and the tensors in it."""
    rng = np.random.default_rng(5)
    parts = pair(rng, (16, 16), 2)
    named = {f"{Q}.{name}": 4 * x for name, x in parts.items()}
    named["model.transformer.ln_f.weight"] = rng.normal(size=16).astype(np.float32)
    return write_adapter(folder, named, **settings), named


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_sample_from_what_convert_writes(backend: str, dtype: str, tmp_path: Path) -> None:
    folder, (adapter, _) = write_checkpoint(tmp_path / "base", dtype=dtype), small(tmp_path / "adapter", dtype=dtype)
    made = convert(folder, tmp_path / "made", bits=None, adapter=adapter)
    assert made.packing is None and made.packed == 0
    merged_here = mdsample.load(folder, backend, adapter=adapter, device="cpu", dtype="float32")
    same = {"policy": "entropy+top(1)", "template": "{prompt}{answer:6}"}
    models = (
        merged_here,
        mdsample.load(made.folder, backend, device="cpu"),
        mdsample.load(folder, backend, device="cpu"),
    )
    ours, written, without = (mdsample.sample(model, "Ann", **same) for model in models)
    assert ours.tokens.tolist() == written.tokens.tolist() != without.tokens.tolist()
    assert [c.probability for c in ours.commits] == [c.probability for c in written.commits]


@pytest.mark.parametrize("backend", BACKENDS)
def test_experts_and_fused_matrices_on_every_backend(backend: str, tmp_path: Path) -> None:
    weights, rng = family_weights("llada2_moe"), np.random.default_rng(0)
    named = {
        f"{name.removesuffix('weight')}{part}": x
        for name, of_it in weights.items()
        if _linear(name, of_it) and "lm_head" not in name and "experts.3" not in name
        for part, x in pair(rng, of_it.shape, 2).items()
    }
    adapter = write_adapter(tmp_path / "adapter", named)
    folder = write_family(tmp_path / "base", "llada2_moe", weights=weights)
    made = convert(folder, tmp_path / "made", bits=None, adapter=adapter).folder
    rows = [
        mdsample.sample(mdsample.load(*at, device="cpu", adapter=a), "Ann", template="{prompt}{answer:8}", policy="med")
        for at, a in (((folder, backend), adapter), ((made, backend), None))
    ]
    assert rows[0].tokens.tolist() == rows[1].tokens.tolist()


def test_a_merged_copy_is_rounded_to_nearest_and_can_be_quantised(tmp_path: Path) -> None:
    folder, (adapter, named) = write_checkpoint(tmp_path / "base", dtype="BF16"), small(tmp_path / "adapter")
    made = convert(folder, tmp_path / "made", bits=None, adapter=adapter).folder
    assert mdsample.inspect(made).stored.keys() == {"BF16"} and "quantization" not in (made / "config.json").read_text()
    q, merged_q = whole(folder)["layers.0.q"], whole(made)["layers.0.q"]
    exact = q + 3.0 * named[f"{Q}.lora_B.weight"] @ named[f"{Q}.lora_A.weight"]
    below = (to_bfloat16(exact).astype(np.uint32) << 16).view(np.float32)
    above = ((to_bfloat16(exact).astype(np.uint32) + 1) << 16).view(np.float32)
    np.testing.assert_array_equal(merged_q, np.where(abs(exact - below) < abs(above - exact), below, above))
    card = (made / "README.md").read_text()
    assert "the adapter adapter, " in card and "convert" in card and "--adapter adapter`" in card
    wide = {"d_model": 32, "mlp_hidden_size": 32}
    folder = write_checkpoint(tmp_path / "wide", config=wide)
    adapter = write_adapter(
        tmp_path / "b", {f"{Q}.{name}": x for name, x in pair(np.random.default_rng(0), (32, 32), 2).items()}
    )
    at_once = convert(folder, tmp_path / "once", bits=8, group_size=32, adapter=adapter).folder
    first = convert(folder, tmp_path / "first", bits=None, adapter=adapter).folder
    then = convert(first, tmp_path / "then", bits=8, group_size=32).folder
    assert (at_once / "model.safetensors").read_bytes() == (then / "model.safetensors").read_bytes()
    with pytest.raises(ModelError, match="neither fewer bits nor an adapter"):
        convert(folder, tmp_path / "never", bits=None)


def test_the_name_tells_which_adapter(tmp_path: Path) -> None:
    folder, (adapter, named) = write_checkpoint(tmp_path / "base"), small(tmp_path / "adapter")
    first = mdsample.load(folder, "reference", adapter=adapter).name
    assert first.startswith("base+adapter@") and mdsample.load(folder, "reference").name == "base"
    assert mdsample.load(folder, "reference", adapter=str(adapter)).name == first
    changed = named | {f"{Q}.lora_A.weight": named[f"{Q}.lora_A.weight"] + np.float32(1e-6)}
    names = {first, "base"}
    for tensors, settings in ((changed, {}), (named, {"lora_alpha": 7})):
        names.add(mdsample.load(folder, "reference", adapter=write_adapter(adapter, tensors, **settings)).name)
    assert len(names) == 4


def test_a_backend_that_merges_none_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, (adapter, _) = write_checkpoint(tmp_path / "base"), small(tmp_path / "adapter")

    def deaf(folder: Path, setup: Setup) -> Any:
        return opener(folder, attrs.evolve(setup, adapter=None))

    opener = loading.imported(loading.choose_backend(folder, "reference"))
    monkeypatch.setattr(loading, "imported", lambda entry: deaf)
    with pytest.raises(ModelError, match="the backend 'reference' merges no adapters"):
        mdsample.load(folder, "reference", adapter=adapter)
    with pytest.raises(TypeError, match="adapter is the path of a folder; got 'x'"):
        Setup(adapter="x")  # pyright: ignore[reportArgumentType]


# what is refused


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3', and LORA is read; merge it with peft"),
        ({"peft_type": None}, "peft_type None"),
        ({"r": 0}, "r must be a positive whole number; found 0"),
        ({"r": "8"}, "r must be a positive whole number; found '8'"),
        ({"lora_alpha": None}, "lora_alpha must be a number; found None"),
        ({"use_dora": 1}, "use_dora must be true or false; found 1"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern must be an object from a module's name to its rank"),
        ({"rank_pattern": {"q_proj": -1}}, "rank_pattern of q_proj must be a positive whole number; found -1"),
        ({"rank_pattern": {"(a*)*b": 1}}, r"rank_pattern has '\(a\*\)\*b', and of regular"),
        ({"alpha_pattern": {".*.*.*b": 1}}, "write the names of the modules out"),
        ({"alpha_pattern": {"(q": 1}}, "write the names of the modules out"),
        ({"alpha_pattern": {"q": "x"}}, "alpha_pattern of q must be a number; found 'x'"),
        ({"alora_invocation_tokens": [1, 2]}, r"alora_invocation_tokens = \[1, 2\], which is not merged here; merge"),
        ({"target_parameters": ["experts"]}, "target_parameters = "),
        ({"trainable_token_indices": [3]}, "trainable_token_indices = "),
        ({"layer_replication": [[0, 1]]}, "layer_replication = "),
        ({"use_qalora": True}, "use_qalora = True"),
        ({"something_new": 1}, "something_new = 1"),
        ({"init_lora_weights": "pissa_niter_4"}, "which changes the model's own weights too: save"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights 'loftq'"),
    ],
)
def test_settings_that_are_not_merged(settings: dict[str, object], told: str, tmp_path: Path) -> None:
    adapter, _ = small(tmp_path / "adapter", **settings)
    (adapter / "adapter_model.safetensors").unlink()  # it is not looked at
    with pytest.raises(ModelError, match=told) as error:
        mdsample.load(write_checkpoint(tmp_path / "base"), "reference", adapter=adapter)
    assert "adapter_config.json" in str(error.value)


THIN = np.zeros((2, 16), np.float32)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({f"{Q}.lora_A.weight": None}, f"{Q}.lora_A.weight is missing"),
        ({f"{Q}.lora_B.weight": None}, f"{Q}.lora_B.weight is missing"),
        ({f"{Q}.lora_A.weight": THIN[:, :9]}, r"q_proj.lora_A.weight should be \[2, 16\]; found \[2, 9\]"),
        ({f"{Q}.lora_A.weight": THIN[:1]}, r"q_proj.lora_A.weight should be \[2, 16\]; found \[1, 16\]"),
        ({f"{Q}.lora_B.weight": THIN}, r"q_proj.lora_B.weight should be \[16, 2\]; found \[2, 16\]"),
        ({f"{Q}.lora_magnitude_vector": THIN[0]}, "magnitude_vector is there, but use_dora is false"),
        ({f"{Q}.lora_C.weight": THIN}, "q_proj.lora_C.weight is not known"),
        ({f"{Q}.lora_B.bias": THIN[0]}, "q_proj.lora_B.bias is for .*q_proj.bias, which they do not have"),
        ({"model.nothing.lora_A.weight": THIN, "model.nothing.lora_B.weight": THIN}, "model.nothing is not a matrix"),
        (
            {"model.transformer.ln_f.lora_A.weight": THIN, "model.transformer.ln_f.lora_B.weight": THIN},
            "ln_f is not a matrix",
        ),
        (
            {"model.transformer.wte.lora_A.weight": THIN, "model.transformer.wte.lora_B.weight": THIN},
            "wte is not a linear layer",
        ),
        ({f"{Q}.lora_embedding_A": THIN, f"{Q}.lora_embedding_B": THIN}, "q_proj is not an embedding"),
        ({"model.transformer.ln_g.weight": THIN[0]}, "ln_g.weight is for .*ln_g.weight, which they do not have"),
        ({"model.transformer.ln_f.weight": THIN}, r"ln_f.weight should be \[16\]; found \[2, 16\]"),
        ({"model.transformer.ln_f.modules_to_save.weight": THIN[0]}, "ln_f.weight is there twice"),
        ({f"{Q}.lora_A.default.weight": THIN}, "q_proj.lora_A.weight twice, as base_model"),
        (dict.fromkeys([f"{Q}.lora_A.weight", f"{Q}.lora_B.weight", "model.transformer.ln_f.weight"]), "no tensors"),
    ],
)
def test_tensors_that_do_not_fit(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    adapter, named = small(tmp_path / "adapter")
    write_adapter(adapter, {name: x for name, x in (named | change).items() if x is not None})
    folder = write_checkpoint(tmp_path / "base")
    with pytest.raises(ModelError, match=told) as error:
        mdsample.load(folder, "reference", adapter=adapter)
    assert "adapter" in str(error.value) and len(str(error.value)) < 600
    with pytest.raises(ModelError, match=told):
        mdsample.inspect(folder, adapter=adapter)


def test_dora_needs_every_length(tmp_path: Path) -> None:
    adapter, _ = small(tmp_path / "adapter", use_dora=True)
    with pytest.raises(ModelError, match=r"q_proj.lora_magnitude_vector is missing"):
        mdsample.load(write_checkpoint(tmp_path / "base"), "reference", adapter=adapter)


def test_other_refusals(tmp_path: Path) -> None:
    folder, (adapter, named) = write_checkpoint(tmp_path / "base"), small(tmp_path / "adapter")
    with pytest.raises(ModelError, match="there is no adapter 'nothing': it is not a folder, and not a hub id"):
        mdsample.load(folder, adapter="nothing")
    with pytest.raises(ModelError, match=r"base holds no adapter_config.json, so it is not an adapter"):
        mdsample.load(folder, adapter=folder)
    write_adapter(adapter, named | {f"{Q}.lora_A.weight": np.full((2, 16), np.nan, np.float32)})
    mdsample.inspect(folder, adapter=adapter)  # no weight is read
    with pytest.raises(ModelError, match=r"adapter are damaged: .*q_proj.lora_A.weight is nan at \[0, 0\]"):
        mdsample.load(folder, "reference", adapter=adapter)
    write_adapter(adapter, named | {f"{Q}.lora_A.weight": np.full((2, 16), 1e38, np.float32)}, lora_alpha=100)
    with pytest.raises(ModelError, match=r"q_proj.weight is -?inf at .* once the adapter is merged into it, in F32"):
        mdsample.load(folder, "reference", adapter=adapter)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"no adapter_model.safetensors; adapter_model.bin is a pickle"):
        mdsample.load(folder, "reference", adapter=adapter)
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(ModelError, match=r"no adapter_model.safetensors; fetch it again"):
        mdsample.load(folder, "reference", adapter=adapter)
    (adapter / "adapter_config.json").unlink()
    (adapter / "adapter_config.json").symlink_to("adapter_config.json")
    with pytest.raises(ModelError, match=r"adapter_config.json cannot be read: Too many levels"):
        mdsample.load(folder, "reference", adapter=adapter)


def test_a_quantised_model_is_not_the_one_it_was_made_for(tmp_path: Path) -> None:
    wide = write_checkpoint(tmp_path / "base", config={"d_model": 32, "mlp_hidden_size": 32})
    packed = convert(wide, tmp_path / "packed", bits=8, group_size=32).folder
    parts = pair(np.random.default_rng(0), (32, 32), 2)
    adapter = write_adapter(tmp_path / "adapter", {f"{Q}.{name}": x for name, x in parts.items()})
    with pytest.raises(ModelError, match=r"packed is quantised, .* quantise what comes of it \(mdsample convert"):
        mdsample.load(packed, "reference", adapter=adapter)
    norm = write_adapter(tmp_path / "norm", {"model.transformer.ln_f.weight": np.ones(32, np.float32)})
    assert mdsample.load(packed, "reference", adapter=norm).name.startswith("packed+norm@")


# on the hub, and on the command line


def test_of_an_adapter_on_the_hub_facts_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, (adapter, named) = write_checkpoint(tmp_path / "base"), small(tmp_path / "adapter")
    here = mdsample.load(folder, "reference", adapter=adapter).name.partition("@")[2]
    with serving(folder, tmp_path / "cache", monkeypatch) as hub:
        hub.others = {"org/lora": adapter}
        assert mdsample.load(folder, "reference", adapter="org/lora").name == f"base+org/lora@{here}"
        assert hub.whole == {"adapter_model.safetensors"}
        assert mdsample.load("org/tiny", "reference", adapter="org/lora").name == f"org/tiny+org/lora@{here}"
        assert hub.whole == {"adapter_model.safetensors", "model.safetensors"}
    with serving(folder, tmp_path / "other", monkeypatch) as hub:
        hub.others = {"org/lora": write_adapter(adapter, named | {"model.lm_head.weight": THIN})}
        with pytest.raises(ModelError, match="the adapter org/lora does not fit llada models"):
            mdsample.load("org/tiny", "reference", adapter="org/lora")
        assert not hub.whole
        assert main(["inspect", "org/lora", "--json"]) == 0 and not hub.whole


def test_a_revision_of_an_adapter_stands_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, (adapter, _) = write_checkpoint(tmp_path / "base"), small(tmp_path / "adapter")
    here = mdsample.load(folder, "reference", adapter=adapter).name.partition("@")[2]
    with serving(folder, tmp_path / "cache", monkeypatch) as hub:
        hub.others = {"org/lora": adapter}
        model = mdsample.load("org/tiny", "reference", revision="main", adapter="org/lora@v2")
        assert model.name == f"org/tiny+org/lora@{here}", "the digits are those of its files"
        assert {"org/tiny@main", "org/lora@v2"} <= hub.revisions and "org/lora@main" not in hub.revisions
        assert inspect_adapter("org/lora@v2", revision="v2").name == "org/lora"
        with pytest.raises(ModelError, match="org/lora@v2 names a revision, and revision='v1' another"):
            inspect_adapter("org/lora@v2", revision="v1")
    for name in ("org/lora@", "@v2", "lora@v2"):
        with pytest.raises(ModelError, match="or organisation/adapter@revision"):
            mdsample.load(folder, adapter=name)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, (adapter, _) = write_checkpoint(tmp_path / "base"), small(tmp_path / "adapter")
    base, lora = str(folder), str(adapter)
    asked = ["run", "--model", base, "--template", "Ann{answer:3}", "--backend", "reference"]
    rows: list[dict[str, Any]] = []
    for more in ([], ["--adapter", lora]):
        assert main([*asked, *more, "--json"]) == 0
        rows.append(json.loads(capsys.readouterr().out))
    assert rows[0]["model"] == "base" and rows[1]["model"].startswith("base+adapter@")
    # a file of answers without it is not gone on with
    out = str(tmp_path / "out.jsonl")
    assert main([*asked, "--output", out]) == 0
    capsys.readouterr()
    is_refused([*asked, "--output", out, "--adapter", lora], "model now: 'base+adapter@", capsys)
    assert main(["inspect", base, "--adapter", lora, "--backend", "reference"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "adapter adapter, of org/base" in told and "rank 2, alpha 6" in told and "1 q_proj; in the place of" in told
    assert main(["inspect", lora]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "its weights 80, " in told and f"mdsample run --model org/base --adapter {lora}" in told
    assert main(["inspect", lora, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["ranks"], facts["changed"], facts["dora"]) == ([2], {"q_proj": 1}, False)
    made = str(tmp_path / "made")
    assert main(["convert", base, made, "--adapter", lora, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["bits"], record["group_size"], record["packed"], record["adapter"]) == (None, None, 0, lora)
    is_refused(
        ["convert", base, made + "2", "--adapter", lora, "--group-size", "32"], "--group-size is of a copy", capsys
    )
    is_refused(["inspect", lora, "--adapter", lora], "holds an adapter of org/base", capsys)
