"""Masked language models of transformers, and modules of one's own: transformers' logits, the promises, refusals."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import END, MASK, START, tokenizer_json, write_checkpoint
from hypothesis import given, settings

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mdsample_cli.main import main
from mdsample_torch import from_module, masked_lm, module
from mdsample_torch.backend import open_model
from mdsample_torch.denoiser import TorchDenoiser
from mdsample_torch.module import ModuleBody

import mdsample
from mdsample import testing
from mdsample.backend.setup import Setup
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.errors import CacheError, ModelError
from mdsample.models.cache import Dual
from mdsample.models.denoiser import Denoiser, Query
from mdsample.policy.base import Policy
from mdsample.policy.guide import Cfg, NoGuide

VOCAB = 320
_SMALL: dict[str, Any] = {
    **{"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"intermediate_size": 24, "max_position_embeddings": 48, "initializer_range": 0.5},
}
#: by model_type: the class of the configuration, its fields, the texts of start, end and mask token
KINDS: dict[str, tuple[str, dict[str, Any], tuple[str, str, str]]] = {
    "bert": ("Bert", _SMALL, ("[CLS]", "[SEP]", "[MASK]")),
    "roberta": ("Roberta", {**_SMALL, "max_position_embeddings": 50}, ("<s>", "</s>", "<mask>")),
    "distilbert": (
        "DistilBert",
        {**_SMALL, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
        ("[CLS]", "[SEP]", "[MASK]"),
    ),
    "modernbert": (
        "ModernBert",
        {
            **_SMALL,
            "local_attention": 8,
            "pad_token_id": 5,
            "cls_token_id": 0,
            "sep_token_id": 1,
            "global_attn_every_n_layers": 2,
        },
        ("[CLS]", "[SEP]", "[MASK]"),
    ),
}


def write(folder: Path, model: Any, texts: tuple[str, str, str]) -> Path:
    model.save_pretrained(folder)
    said = tokenizer_json()
    for ours, text in zip((START, END, MASK), texts, strict=True):
        said = said.replace(ours, text)
    (folder / "tokenizer.json").write_text(said)
    return folder


def make(kind: str) -> Any:
    name, fields, _ = KINDS[kind]
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForMaskedLM")(getattr(transformers, f"{name}Config")(**fields)).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # biases and norms are all alike otherwise
            parameter.data.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    where = tmp_path_factory.mktemp("models")
    return {kind: write(where / kind, make(kind), KINDS[kind][2]) for kind in KINDS}


@pytest.fixture(scope="module")
def bert(folders: dict[str, Path]) -> TorchDenoiser:
    return open_model(folders["bert"], Setup(device="cpu"))


def query(guide: Any = None) -> Query:
    # tokens 0, 1 and 5, the padding tokens of these models, stand inside rows as text
    tokens = np.array([[0, 9, 1, 2, 12, 2, 5, 1], [0, 2, 8, 1, 2, 2, 2, 2], [0, 5, 6, 0, 9, 1, 2, 2]], np.int32)
    valid = np.arange(8) < np.array([[8], [4], [6]])
    wanted = (tokens == 2) & valid
    sets = (np.arange(VOCAB) < 300) & (np.arange(VOCAB) != 2)
    restriction = Restriction(sets[None], np.zeros(tokens.shape, np.int32))
    rows = Rows([(0, 0), (1, 0), (2, 0)], np.zeros(3, np.int32))
    return Query(tokens, valid, wanted, (tokens != 2) & valid, restriction, guide or NoGuide(), rows)


def expected(kind: str, tokens: Any) -> Any:
    """Transformers' own logits of one row without padding, float64 `[L, V]`, restricted as in `query`."""
    model = make(kind)
    numbers = {} if kind != "roberta" else {"position_ids": torch.arange(len(tokens))[None] + 2}
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(tokens[None].astype(np.int64)), **numbers).logits[0].double().numpy()
    logits[:, 300:] = logits[:, 2] = -np.inf
    return logits


@pytest.mark.parametrize("kind", KINDS)
def test_marginals_are_those_of_transformers(
    folders: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(folders[kind], Setup(device="cpu"))
    assert model.trunk.head is not None, "logits are made where they are wanted"
    assert (model.vocab_size, model.max_length) == (VOCAB, 48)
    asked = query()
    found = model.predict(asked).marginals
    monkeypatch.setattr(masked_lm, "_linear", lambda _: None)
    monkeypatch.setattr(module, "LOGITS_BYTES", 1)  # row by row
    whole = open_model(folders[kind], Setup(device="cpu"))
    assert whole.trunk.head is None
    np.testing.assert_allclose(whole.predict(asked).marginals.entropy, found.entropy, atol=1e-5)
    for row in (0, 2):
        length = int(asked.valid[row].sum())
        logits = expected(kind, asked.tokens[row, :length])
        for position in np.flatnonzero(asked.wanted[row]):
            one = logits[position]
            probability = np.exp(one - one.max())
            probability /= probability.sum()
            some = probability[probability > 0]
            best, second = np.sort(probability)[::-1][:2]
            assert found.token[row, position] == probability.argmax()
            assert np.exp(found.log_probability[row, position]) == pytest.approx(best, abs=1e-5)
            assert np.exp(found.second[row, position]) == pytest.approx(second, abs=1e-5)
            assert found.entropy[row, position] == pytest.approx(-(some * np.log(some)).sum(), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_end_to_end(folders: dict[str, Path], kind: str) -> None:
    model: Denoiser = mdsample.load(folders[kind], "torch", device="cpu")
    start, end, _ = KINDS[kind][2]
    assert model.template == f"{{prompt}}{{answer:16}}{end}"
    assert model.tokenizer.start == (model.tokenizer.special_id(start),)
    canvas = mdsample.Template.parse("the {prompt} cat{answer:5} mat" + end).canvas(
        model.tokenizer, [{"prompt": "Ann has 12 coins"}, {"prompt": ""}]
    )
    testing.rows_are_independent(mdsample.med(), model, canvas)
    testing.rows_are_independent(mdsample.med() + mdsample.Temperature(1.0), model, canvas)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(testing.policies(("reasoning", "answer"), vocab=290, texts=("at", "12", "the")))
def test_the_promises_hold(bert: TorchDenoiser, policy: Policy) -> None:
    template = mdsample.Template.parse("Q {prompt} R{reasoning:4} A{answer:3}[SEP]")
    canvas = template.canvas(bert.tokenizer, [{"prompt": "Ann has 12 coins"}, {"prompt": ""}])
    testing.a_trace_replays(testing.run(policy, bert, canvas), bert)
    testing.rows_are_independent(policy, bert, canvas)


def test_guidance(bert: TorchDenoiser) -> None:
    asked = query()
    bare = np.where(asked.fixed, np.int32(2), asked.tokens)
    c, u = (expected("bert", tokens[0]) for tokens in (asked.tokens, bare))
    allowed = np.isfinite(c[0])
    guided = (u[:, allowed] + 2.5 * (c[:, allowed] - u[:, allowed]))[asked.wanted[0]]
    found = bert.predict(query(Cfg(1.5))).marginals.log_probability[0, asked.wanted[0]]
    top = guided.max(1)
    assert np.allclose(found, -np.log(np.exp(guided - top[:, None]).sum(1)), atol=1e-4)


@pytest.mark.slow
def test_the_command(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--backend", "torch", "--device", "cpu", "--policy", "med", "--json"]
    assert main(["run", "the cat", "--model", str(folders["roberta"]), *options]) == 0
    out, err = capsys.readouterr()
    assert "answer" in json.loads(out)["slots"] and err == "", "transformers' own bars and reports are not shown"


def test_every_dtype(folders: dict[str, Path]) -> None:
    full = open_model(folders["bert"], Setup(device="cpu")).predict(query()).marginals
    for dtype in ("bfloat16", "float16"):
        found = open_model(folders["bert"], Setup(device="cpu", dtype=dtype)).predict(query()).marginals
        np.testing.assert_allclose(found.entropy[query().wanted], full.entropy[query().wanted], atol=0.6)


def test_special_tokens_by_role(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["bert"], tmp_path / "own")
    said = (folder / "tokenizer.json").read_text().replace("[MASK]", "<hole>").replace("[SEP]", "<stop>")
    (folder / "tokenizer.json").write_text(said)
    with pytest.raises(ModelError, match=r"own names no mask token: config\.json lacks mask_token_id"):
        open_model(folder, Setup(device="cpu"))
    (folder / "special_tokens_map.json").write_text(json.dumps({"mask_token": "[MASK]", "sep_token": "<stop>"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"mask_token": {"content": "<hole>"}}))
    tokenizer = open_model(folder, Setup(device="cpu")).tokenizer
    assert (tokenizer.mask_id, tokenizer.end_id, tokenizer.start) == (2, 1, (0,))


class TestRefusals:
    @pytest.fixture
    def folder(self, folders: dict[str, Path], tmp_path: Path) -> Path:
        return shutil.copytree(folders["bert"], tmp_path / "damaged")

    def refused(self, folder: Path, message: str) -> None:
        with pytest.raises(ModelError, match=message) as caught:
            open_model(folder, Setup(device="cpu"))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"auto_map": {"AutoModelForMaskedLM": "modeling.Own"}}, "has auto_map: .* code of its own, .* never run"),
            ({"model_type": "gpt2"}, "has model_type 'gpt2'; supported: Dream, .*AutoModelForMaskedLM"),
            ({"model_type": "never-heard-of"}, "has model_type 'never-heard-of'; supported: Dream, .*AutoModelFor"),
            ({"model_type": None}, "has no model_type; supported: Dream, "),
            ({"is_decoder": True}, "bert with is_decoder = True is not a masked language model"),
            ({"quantization_config": {}}, r"has quantization_config with \{\}: of quantised weights"),
            ({"hidden_size": 15}, "transformers cannot open .*15"),
            ({"hidden_size": 32}, "do not make a BertForMaskedLM: .* or of another shape"),
            ({"vocab_size": 100}, r"token ids up to \d+, but the model has 100 logits"),
        ],
    )
    def test_configurations(self, folder: Path, change: dict[str, Any], message: str) -> None:
        said = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(said | change))
        self.refused(folder, message)

    def test_pickles(self, folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        self.refused(folder, r"holds pickled weights only \(pytorch_model.bin\); unpickling runs code")

    def test_a_bare_encoder(self, folder: Path) -> None:
        make("bert").bert.save_pretrained(folder)
        self.refused(
            folder, "do not make a BertForMaskedLM: cls.predictions.*the checkpoint that has its language model"
        )

    def test_a_weight_that_cannot_be(self, folder: Path) -> None:
        model = make("bert")
        model.cls.predictions.bias.data[3] = np.nan
        model.save_pretrained(folder)
        self.refused(folder, "damaged: .*bias is not finite in float32")

    def test_models_that_mix_padding_in(self, folder: Path) -> None:
        config = transformers.MobileBertConfig(**_SMALL, embedding_size=8, intra_bottleneck_size=16)
        write(folder, transformers.MobileBertForMaskedLM(config), KINDS["bert"][2])
        self.refused(folder, "what this mobilebert says of a row depends on the padding")

    def test_memory(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(masked_lm, "free_memory", lambda _: 1000)
        self.refused(folder, r"damaged has .* weights, which take .* but .* are available")

    def test_caches_and_compile(self, folder: Path) -> None:
        with pytest.raises(ModelError, match=r"the cache 'dual\(2\)' is for the families of mdsample"):
            open_model(folder, Setup(device="cpu", cache=Dual(2)))
        with pytest.raises(ModelError, match=r"compile is for the families of mdsample; .* leave it out"):
            open_model(folder, Setup(device="cpu", compile=True))

    def test_adapters(self, folder: Path) -> None:
        with pytest.raises(ModelError, match=r"merged into the families of mdsample; .* merge it with peft"):
            open_model(folder, Setup(device="cpu", adapter=folder))

    def test_without_transformers(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "transformers", None)
        self.refused(
            folder, r"'bert'; supported: Dream.*cannot be imported here .*pip install 'mdsample\[transformers\]'"
        )


class Own(torch.nn.Module):
    """Sensitive to every valid token of a row."""

    def __init__(self, size: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed = torch.nn.Embedding(size, 8)
        self.head = torch.nn.Linear(8, size)

    def forward(self, tokens: Any, valid: Any) -> Any:
        x = self.embed(tokens) * valid[:, :, None]
        return self.head(x + x.cumsum(1) + x.sum(1, keepdim=True))


class TestOwnModules:
    def test_the_promises_hold_with_and_without_a_head(self) -> None:
        tokenizer = testing.Symbols(6)
        plain = Own(tokenizer.size).eval()
        parted = Own(tokenizer.size).eval()
        head, parted.head = parted.head, torch.nn.Identity()
        template = mdsample.Template.parse("{prompt}{text:6}")
        canvas = template.canvas(tokenizer, [{"prompt": "abc"}, {"prompt": ""}, {"prompt": "fa"}])
        one = from_module(plain, tokenizer, max_length=16)
        other = from_module(parted, tokenizer, max_length=16, head=head)
        results = [testing.run(mdsample.med(), model, canvas) for model in (one, other)]
        for row in range(3):
            testing.same_row(results[0], row, results[1], row)
        testing.rows_are_independent(mdsample.parse("random+top(2)+temperature(1)+cfg(1)"), one, canvas)

    @pytest.mark.parametrize(
        ("made", "message"),
        [
            (lambda t, v: torch.zeros(*t.shape, 7), r"the module must give a tensor \[1, 5, 8\]; it gave \[1, 5, 7\]"),
            (lambda t, v: torch.zeros(8), r"must give a tensor \[1, 5, 8\]; it gave \[8\]"),
            (lambda t, v: (t, v), r"must give a tensor \[1, 5, 8\]; it gave tuple"),
        ],
    )
    def test_other_shapes(self, made: Any, message: str) -> None:
        tokenizer = testing.Symbols(6)
        wrong = torch.nn.Identity().eval()
        wrong.forward = made
        canvas = mdsample.Template.parse("a{text:4}").canvas(tokenizer, [{}])
        with pytest.raises(ModelError, match=message):
            mdsample.Sampler(mdsample.med()).run(from_module(wrong, tokenizer, max_length=9), canvas)

    def test_caches(self) -> None:
        with pytest.raises(CacheError, match=r"the cache 'dual' is for .* leave the cache out"):
            ModuleBody(Own(8).eval(), None, module.Sizes(8, 9)).kv_cache(Dual())

    def test_training_mode(self) -> None:
        tokenizer = testing.Symbols(6)
        canvas = mdsample.Template.parse("a{text:4}").canvas(tokenizer, [{}])
        with pytest.raises(ModelError, match="the module is in training mode"):
            mdsample.Sampler(mdsample.med()).run(from_module(Own(8), tokenizer, max_length=9), canvas)


def test_our_own_families_need_no_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert open_model(write_checkpoint(tmp_path), Setup(device="cpu")).vocab_size == 320
