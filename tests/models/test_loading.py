"""From a name to a denoiser: what is read, and every sentence that refuses what is not."""

from __future__ import annotations

import json
import platform
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import attrs
import huggingface_hub
import numpy as np
import pytest
from checkpoints import CONFIG, END, MASK, START, tokenizer_json, write_checkpoint
from huggingface_hub import errors
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Engine
from tokenizers import processors

from mdsample.backend.load import GROUP, backends, choose_backend, load
from mdsample.backend.reference.backend import ReferenceDenoiser, open_model
from mdsample.backend.setup import Setup
from mdsample.core.tokens import Tokenizer
from mdsample.errors import ModelError
from mdsample.models import find
from mdsample.models.cache import Dual
from mdsample.models.card import TEMPLATE, read_card
from mdsample.models.denoiser import Denoiser
from mdsample.models.families import llada, read_config
from mdsample.models.families.trunk import Single
from mdsample.models.find import embedded_models
from mdsample.models.text.tokenizer import FileTokenizer

SPEC = llada.read(CONFIG)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny")


@pytest.fixture(scope="module")
def tokenizer() -> FileTokenizer:
    return FileTokenizer(Engine.from_str(tokenizer_json()), mask_id=2, end_id=1, start_id=0)


def without(name: str) -> dict[str, object]:
    return {k: v for k, v in CONFIG.items() if k != name}


class TestFamilies:
    def test_llada(self) -> None:
        assert (SPEC.vocab_size, SPEC.d_model, SPEC.layers, SPEC.heads, SPEC.kv_heads) == (320, 16, 2, 4, 2)
        assert (SPEC.head_dim, SPEC.mlp_size, SPEC.rope_theta, SPEC.norm_eps) == (4, 24, 10000.0, 1e-5)
        assert (SPEC.mask_id, SPEC.end_id, SPEC.start_id, SPEC.max_length, SPEC.tied) == (2, 1, 0, 48, False)
        published, converted = SPEC.layouts
        assert published["layers.1.gate"] == Single("model.transformer.blocks.1.ff_proj.weight")
        assert published["head"] == Single("model.transformer.ff_out.weight")
        assert converted["layers.1.gate"] == Single("model.layers.1.mlp.gate_proj.weight")
        assert SPEC.shapes["layers.0.k"] == (8, 16)

    def test_published_llada_8b(self) -> None:
        """The fields of GSAI-ML/LLaDA-8B-Instruct's config.json that bear on the forward pass."""
        spec = llada.read(
            {
                **without("bos_token_id"),
                **{"d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "mlp_hidden_size": 12288},
                **{"vocab_size": 126464, "embedding_size": 126464, "max_sequence_length": 4096, "rope_theta": 500000.0},
                **{
                    "mask_token_id": 126336,
                    "eos_token_id": 126081,
                    "multi_query_attention": None,
                    "scale_logits": False,
                },
                **{
                    "attention_layer_norm": False,
                    "attention_layer_norm_with_affine": True,
                    "layer_norm_with_affine": True,
                },
                **{"bias_for_layer_norm": False, "block_group_size": 1, "input_emb_norm": False, "mlp_ratio": 4},
            }
        )
        assert sum(int(np.prod(shape)) for shape in spec.shapes.values()) == 8_015_581_184
        assert spec.start_id is None

    def test_absent_choices(self) -> None:
        spec = llada.read({**without("embedding_size"), "n_kv_heads": None, "vocab_size": 300, "weight_tying": True})
        assert (spec.vocab_size, spec.kv_heads) == (300, 4)
        assert "head" not in spec.shapes

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"alibi": True}, "llada: alibi = True is not implemented; False is"),
            ({"include_bias": True}, "include_bias = True is not implemented"),
            ({"include_qkv_bias": True}, "include_qkv_bias = True is not implemented"),
            ({"bias_for_layer_norm": True}, "bias_for_layer_norm = True is not implemented"),
            ({"attention_layer_norm": True}, "attention_layer_norm = True is not implemented"),
            ({"input_emb_norm": True}, "input_emb_norm = True is not implemented"),
            ({"scale_logits": True}, "scale_logits = True is not implemented"),
            ({"multi_query_attention": True}, "multi_query_attention = True is not implemented"),
            ({"layer_norm_with_affine": False}, "layer_norm_with_affine = False is not implemented; True is"),
            ({"rope": False}, "rope = False is not implemented; True is"),
            ({"block_group_size": True}, "block_group_size = True is not implemented; 1 is"),
            ({"block_group_size": 2}, "block_group_size = 2 is not implemented; 1 is"),
            ({"activation_type": "gelu"}, "activation_type = 'gelu' is not implemented; 'silu' is"),
            ({"layer_norm_type": "default"}, "layer_norm_type = 'default' is not implemented; 'rms' is"),
            ({"block_type": "sequential"}, "block_type = 'sequential' is not implemented; 'llama' is"),
            ({"d_model": 18}, "d_model = 18 cannot be split into n_heads = 4 heads"),
            ({"d_model": 12}, "an even width of at most a head's, 3; found 3"),
            ({"n_kv_heads": 3}, "4 heads cannot share 3 key-value heads"),
            ({"n_layers": 0}, "n_layers must be a positive whole number; found 0"),
            ({"n_layers": True}, "n_layers must be a positive whole number; found True"),
            ({"mlp_hidden_size": 2.0}, "mlp_hidden_size must be a positive whole number; found 2.0"),
            ({"rope_theta": -1}, "rope_theta must be a positive number; found -1"),
            ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a positive number; found nan"),
            ({"rms_norm_eps": True}, "rms_norm_eps must be a positive number; found True"),
            ({"weight_tying": "no"}, "weight_tying must be true or false; found 'no'"),
            ({"eos_token_id": [5, 6]}, r"eos_token_id = \[5, 6\] names several tokens, and neither"),
            ({"mask_token_id": 320}, "the mask token is 320, but ids go from 0 to 319"),
            ({"bos_token_id": -1}, "the start token is -1"),
        ],
    )
    def test_llada_refuses(self, change: dict[str, object], message: str) -> None:
        with pytest.raises(ModelError, match=message):
            llada.read({**CONFIG, **change})

    def test_llada_names_all_missing_fields(self) -> None:
        with pytest.raises(ModelError, match=r"llada: config\.json lacks n_layers, rope, mask_token_id$"):
            llada.read({k: v for k, v in CONFIG.items() if k not in ("n_layers", "rope", "mask_token_id")})

    def test_layouts_and_tensors_must_agree(self) -> None:
        layout = {k: v for k, v in SPEC.layouts[0].items() if k != "norm"}
        with pytest.raises(ModelError, match="differ in norm"):
            attrs.evolve(SPEC, layouts=(layout,))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (None, "holds no config.json"),
            ("{", "is not valid JSON"),
            ("[]", "must hold a JSON object; found list"),
            ("{}", "has no model_type; supported: Dream, Fast_dLLM_Qwen, a2d-llama, "),
            ('{"model_type": "gpt2"}', "has model_type 'gpt2'; supported: Dream, "),
            ('{"model_type": ["llada"]}', "supported: Dream, "),
        ],
    )
    def test_config_refusals(self, tmp_path: Path, text: str | None, message: str) -> None:
        if text is not None:
            (tmp_path / "config.json").write_text(text)
        with pytest.raises(ModelError, match=message):
            read_config(tmp_path)


class TestTokenizer:
    def test_satisfies_the_protocol(self, tokenizer: FileTokenizer) -> None:
        typed: Tokenizer = tokenizer
        assert (typed.mask_id, typed.end_id, typed.start) == (2, 1, (0,))
        assert typed.size == len(json.loads(tokenizer_json())["model"]["vocab"])
        assert list(typed.special) == [START, END, MASK]
        assert [typed.special_id(text) for text in typed.special] == [0, 1, 2]

    @settings(max_examples=100, deadline=None)
    @given(st.text())
    def test_any_text_comes_back_and_special_tokens_are_spelled_out(self, text: str) -> None:
        tokenizer = FileTokenizer(Engine.from_str(tokenizer_json()), mask_id=2)
        for written in (text, text + MASK + END):
            tokens = tokenizer.encode(written)
            assert not {0, 1, 2} & set(tokens)
            assert tokenizer.decode(tokens) == written

    def test_decode_leaves_special_tokens_out(self, tokenizer: FileTokenizer) -> None:
        assert tokenizer.decode([0, *tokenizer.encode("the cat"), 2, 1]) == "the cat"
        assert tokenizer.decode(np.array([0, 1], np.int32).tolist()) == tokenizer.decode([]) == ""
        assert tokenizer.encode("") == []

    def test_a_lone_surrogate_is_a_clear_error(self, tokenizer: FileTokenizer) -> None:
        with pytest.raises(ValueError, match=r"character 2 of the text is U\+D800, half of a surrogate pair"):
            tokenizer.encode("ab\ud800c")

    def test_unknown_special_token(self, tokenizer: FileTokenizer) -> None:
        with pytest.raises(ValueError, match=r"'<x>' is not a special token; special tokens: <\|startoftext\|>, "):
            tokenizer.special_id("<x>")

    def test_tokens_that_the_file_forgot_to_mark_are_special_all_the_same(self) -> None:
        said = json.loads(tokenizer_json())
        for added in said["added_tokens"]:
            added["special"] = False
        tokenizer = FileTokenizer(Engine.from_str(json.dumps(said)), mask_id=2, end_id=1)
        assert list(tokenizer.special) == [END, MASK] and tokenizer.special_id(MASK) == 2
        assert 2 not in tokenizer.encode(f"a{MASK}b") and tokenizer.decode([2, 1]) == ""

    def test_padding_truncation_and_additions_of_the_file_are_off(self, tokenizer: FileTokenizer) -> None:
        engine = Engine.from_str(tokenizer_json())
        engine.enable_truncation(2)
        engine.enable_padding(length=99)
        engine.post_processor = processors.TemplateProcessing(f"{START} $A", special_tokens=[(START, 0)])
        assert FileTokenizer(engine, mask_id=2).encode("x y z w") == tokenizer.encode("x y z w")

    @pytest.mark.parametrize("token", [319, 10**6, -1])
    def test_ids_must_exist(self, token: int) -> None:
        with pytest.raises(
            ModelError, match=f"the mask token is {token} by config.json, but tokenizer.json has no such"
        ):
            FileTokenizer(Engine.from_str(tokenizer_json()), mask_id=token)

    def test_folder_refusals(self, folder: Path) -> None:
        with pytest.raises(ModelError, match=r"token ids up to \d+, but the model has 100 logits"):
            FileTokenizer.read(folder, attrs.evolve(SPEC, vocab_size=100))
        (folder / "tokenizer.json").write_text("{}")
        with pytest.raises(ModelError, match=r"tokenizer.json cannot be read: "):
            FileTokenizer.read(folder, SPEC)
        (folder / "tokenizer.json").unlink()
        with pytest.raises(ModelError, match=r"holds no tokenizer.json"):
            FileTokenizer.read(folder, SPEC)


class TestCard:
    def test_defaults(self, folder: Path) -> None:
        assert attrs.astuple(read_card(folder)) == ("tiny", TEMPLATE, "", TEMPLATE, False)

    def test_what_it_says(self, folder: Path) -> None:
        (folder / "mdsample.toml").write_text('template = "Q: {prompt}\\nA:{answer:4}"\ndescription = "Sums."\n')
        card = read_card(folder)
        assert (card.template, card.description) == ("Q: {prompt}\nA:{answer:4}", "Sums.")
        assert open_model(folder).template == card.template

    def test_a_hub_snapshot_is_called_by_its_id(self, tmp_path: Path) -> None:
        folder = tmp_path / "models--GSAI-ML--LLaDA-8B-Base" / "snapshots" / "0f2787f2d87eac5eb8a087a33ea35b7d8a3a9b7c"
        assert read_card(folder).name == "GSAI-ML/LLaDA-8B-Base"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("template = ", "is not valid TOML"),
            ('temlate = ""', "unknown key 'temlate'; known keys: template, description"),
            ("template = 3", "template must be a text; got 3"),
        ],
    )
    def test_refusals(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "mdsample.toml").write_text(text)
        with pytest.raises(ModelError, match=message):
            read_card(tmp_path)


def pretend(monkeypatch: pytest.MonkeyPatch, **entries: str) -> None:
    found = tuple(EntryPoint(name, value, GROUP) for name, value in entries.items())

    def entry_points(*, group: str) -> tuple[EntryPoint, ...]:
        assert group == "mdsample.backends"
        return found

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)


def open_elsewhere(folder: Path, setup: Setup) -> Denoiser:
    """A third party's backend."""
    name = " ".join(filter(None, ("elsewhere", setup.device, setup.dtype, setup.cache and str(setup.cache))))
    model = open_model(folder)
    return ReferenceDenoiser(name, model.trunk, model.tokenizer, model.template)


def hub_error(kind: type[errors.HfHubHTTPError]) -> Exception:
    """As the library raises it, without the response that it was made from."""
    return kind.__new__(kind, "401 Client Error. (Request ID: 1)\n\nRepository Not Found")


class TestLoad:
    def test_a_folder(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in (folder, str(folder)):
            for backend in ("auto", "reference"):
                denoiser = load(name, backend)
                assert denoiser.name == "tiny"
        assert denoiser.backend == "reference"
        monkeypatch.chdir(folder.parent)
        assert load("tiny").name == load("./tiny").name == "tiny"
        monkeypatch.chdir(folder)
        assert load(".").name == "tiny"

    def test_embedded_models_come_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(find, "_EMBEDDED", tmp_path / "models")
        assert embedded_models() == []
        write_checkpoint(tmp_path / "models" / "small")
        (tmp_path / "models" / "__pycache__").mkdir()
        (tmp_path / "small").mkdir()
        monkeypatch.chdir(tmp_path)
        assert embedded_models() == ["small"]
        assert load("small").name == "small"
        with pytest.raises(ModelError, match=r"small holds no config.json"):
            load("./small")
        with pytest.raises(ModelError, match=r"there is no model 'smal': .* \(there: small\)"):
            load("smal")

    @pytest.mark.parametrize("name", embedded_models())
    def test_every_embedded_model_opens(self, name: str) -> None:
        denoiser = load(name, "reference")
        assert denoiser.name == name and denoiser.template != TEMPLATE

    def test_unknown_names(self, tmp_path: Path) -> None:
        for name in ("no such model", str(tmp_path / "gone"), "./a/b", "../b", "a/b/c", "", tmp_path / "gone"):
            with pytest.raises(ModelError, match=r"there is no model .*, not a folder, and not a hub id"):
                load(name)

    def test_revision_is_for_the_hub(self, folder: Path) -> None:
        with pytest.raises(ModelError, match="revision='main' is for models on the hub"):
            load(folder, revision="main")

    def test_backends(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend(monkeypatch)
        assert backends() == ["reference"]
        pretend(monkeypatch, torch="no_such_framework:open_model", other=f"{__name__}:open_elsewhere")
        assert backends() == ["other", "reference", "torch"]
        assert load(folder, "other").name == "elsewhere"
        assert load(folder, "other", device="tpu", dtype="float8").name == "elsewhere tpu float8"
        assert (
            load(folder, "other", cache="dual(2)").name
            == load(folder, "other", cache=Dual(2)).name
            == "elsewhere dual(2)"
        )
        assert load(folder).backend == "reference", "auto passes over a backend whose framework is missing"
        with pytest.raises(ModelError, match=r"'torch' cannot be imported \(No module named 'no_such_framework'\)"):
            load(folder, "torch")
        with pytest.raises(ModelError, match="no backend 'jax'; installed: other, reference, or 'auto'"):
            load(folder, "jax")
        pretend(monkeypatch, torch=f"{__name__}:open_elsewhere")
        assert load(folder).name == "elsewhere", "auto prefers torch where it works"

    @pytest.mark.parametrize(
        ("system", "machine", "taken"),
        [("Darwin", "arm64", "mlx"), ("Darwin", "x86_64", "torch"), ("Linux", "aarch64", "torch")],
    )
    def test_auto_takes_mlx_on_apple_silicon_only(
        self, folder: Path, system: str, machine: str, taken: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(platform, "system", lambda: system)
        monkeypatch.setattr(platform, "machine", lambda: machine)
        pretend(monkeypatch, mlx=f"{__name__}:open_elsewhere", torch=f"{__name__}:open_elsewhere")
        assert choose_backend(folder).name == taken
        pretend(monkeypatch, mlx=f"{__name__}:open_elsewhere", torch="no_such_framework:open_model")
        assert choose_backend(folder).name == ("mlx" if taken == "mlx" else "reference")

    def test_the_reference_has_one_device_and_one_dtype(self, folder: Path) -> None:
        assert load(folder, "reference", device="cpu", dtype="float32").backend == "reference"
        with pytest.raises(ModelError, match="the reference backend runs on the cpu only, not on 'cuda'"):
            load(folder, "reference", device="cuda")
        with pytest.raises(ModelError, match="the reference backend computes in float32 only, not in 'bfloat16'"):
            load(folder, "reference", dtype="bfloat16")

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (OSError("no route\n\nto host "), "no route to host"),
            (RuntimeError(), "RuntimeError"),
            (hub_error(errors.GatedRepoError), "it is gated: accept its terms"),
            (hub_error(errors.RepositoryNotFoundError), "there is no such model, or it is private"),
            (hub_error(errors.RevisionNotFoundError), "the model is there, but not this revision"),
            (errors.LocalEntryNotFoundError("x"), "the hub cannot be reached, and the model is not in the cache"),
        ],
    )
    def test_hub_failures_are_one_sentence(
        self, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
    ) -> None:
        def snapshot_download(*args: Any, **kwargs: Any) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        with pytest.raises(ModelError, match=rf"^org/model at revision v1 is not a folder here .* hub: {reason}"):
            load("org/model", revision="v1")

    def test_offline_only_the_cache_is_searched(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(ModelError, match=r"hub: HF_HUB_OFFLINE is set, and the model is not in the cache$"):
            load("org/model")


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("said", ['{"base_model_name_or_path": "org/base"}', "{}", "[]"])
def test_an_adapter_is_not_passed_over(alone: bool, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir() if alone else write_checkpoint(folder)
    (folder / "adapter_config.json").write_text(said)
    (folder / "adapter_model.safetensors").write_bytes(b"x")
    base = " of org/base" if "org" in said else ""
    model = "org/base" if base else "the model that it was made for"
    with pytest.raises(ModelError) as e:
        load(folder)
    whole = f"{folder} holds an adapter{base} (adapter_config.json): give {model} as the model (--model), and this"
    assert str(e.value).startswith(whole) and "as the adapter (--adapter)" in str(e.value)
    assert ("move its files away" in str(e.value)) != alone
