"""Folders that are almost right: one sentence says what is wrong and what to do, before weights are read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from adapters import write_adapter
from checkpoints import (
    FAMILIES,
    as_dream_is_published,
    family_weights,
    random_weights,
    write_checkpoint,
    write_family,
    write_safetensors,
)
from hubs import serving
from numpy.typing import NDArray

import mdsample
from mdsample.errors import ModelError
from mdsample.models.files import FolderFiles

SINGLE, INDEX, SHARD = "model.safetensors", "model.safetensors.index.json", "model-00002-of-00003.safetensors"
Q = "model.transformer.blocks.0.q_proj.weight"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 4976698672\n"
LOGIN = "\n<!doctype HTML>\n<html><head><title>Sign in</title></head><body>…</body></html>"

Change = Callable[[Path], object]


@attrs.frozen
class Case:
    """A change of a good folder, and what the sentence about it must say."""

    change: Change
    says: tuple[str, ...]
    #: what may be looked at before: none of the weights' files, their `headers`, or all of them
    looks_at: str = "nothing"
    shards: int = 1


def config(**fields: object) -> Change:
    return lambda folder: rewrite(folder / "config.json", lambda whole: whole | fields)


def rewrite(path: Path, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content)


def gone(*names: str) -> Change:
    return lambda folder: [(folder / name).unlink() for name in names]


def renamed(name: str, new: str) -> Change:
    return lambda folder: (folder / name).rename(folder / new)


def cut(name: str, bytes: int) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:bytes])


def weights(**changes: NDArray[np.float32] | None) -> Change:
    def change(folder: Path) -> None:
        tensors = random_weights() | {name.replace("__", "."): x for name, x in changes.items()}
        write_safetensors(folder / SINGLE, {name: x for name, x in tensors.items() if x is not None})

    return change


def places(change: Callable[[dict[str, str]], Mapping[str, str]]) -> Change:
    return lambda folder: rewrite(folder / INDEX, lambda whole: whole | {"weight_map": change(whole["weight_map"])})


def moved_into(*parts: str) -> Change:
    def change(folder: Path) -> None:
        files, inner = list(folder.iterdir()), folder.joinpath(*parts)
        inner.mkdir(parents=True)
        for path in files:
            path.rename(inner / path.name)

    return change


def in_bytes(folder: Path) -> None:
    """Every weight as an 8-bit whole number."""
    write_safetensors(folder / SINGLE, {name: x.reshape(-1)[: x.size // 4] for name, x in random_weights().items()})
    data = (folder / SINGLE).read_bytes()
    size = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:size])
    for name, x in random_weights().items():
        header[name] |= {"dtype": "I8", "shape": x.shape}
    new = json.dumps(header).encode()
    (folder / SINGLE).write_bytes(len(new).to_bytes(8, "little") + new + data[size:])


def quantised(method: str, **settings: object) -> Change:
    return config(quantization_config={"quant_method": method, **settings})


KEY = {Q.replace(".", "__"): random_weights()[Q]}
CASES: dict[str, Case] = {
    # config.json
    "no config": Case(gone("config.json"), ("holds no config.json", "give the folder")),
    "empty config": Case(text("config.json", " \n"), ("config.json is empty", "fetch it again")),
    "config cut off": Case(cut("config.json", 80), ("config.json is not valid JSON", "line 1", "fetch it again")),
    "config is a list": Case(text("config.json", "[]"), ("must hold a JSON object", "found list", "fetch it again")),
    "config is a login page": Case(text("config.json", LOGIN), ("config.json is a web page", "hf download")),
    "config is a pointer": Case(text("config.json", LFS), ("config.json is a pointer of git-lfs", "git lfs pull")),
    "a key twice": Case(
        lambda folder: (folder / "config.json").write_text(
            (folder / "config.json").read_text()[:-1] + ', "n_layers": 1}'
        ),
        ("config.json", "the key 'n_layers' is there twice", "correct it"),
    ),
    "another model_type": Case(config(model_type="gemma"), ("model_type 'gemma'", "supported: Dream", "a2d-llama")),
    "a plain Llama": Case(config(model_type="llama"), ("model_type 'llama'", "only Stable-DiffCoder", "a2d-llama")),
    "no model_type": Case(config(model_type=None), ("has no model_type", "supported: Dream")),
    "a number as text": Case(config(n_heads="4"), ("n_heads must be a positive whole number", "found '4'")),
    "too small a vocabulary": Case(
        config(vocab_size=100, embedding_size=100), ("tokenizer.json has token ids up to 288", "100 logits", "belong")
    ),
    "another vocabulary": Case(
        config(embedding_size=336), ("wte.weight should be [336, 16]; found [320, 16]", "fetch both again"), "headers"
    ),
    # tokens
    "no mask": Case(config(mask_token_id=None), ("M: llada: config.json lacks mask_token_id",)),
    "a mask without logits": Case(config(mask_token_id=400), ("the mask token is 400", "from 0 to 319")),
    "a mask that is no token": Case(
        config(mask_token_id=319), ("the mask token is 319", "its ids end at 288", "belong")
    ),
    "an end that is no token": Case(config(eos_token_id=310), ("the end token is 310", "its ids end at 288", "belong")),
    "an end below 0": Case(config(eos_token_id=-1), ("the end token is -1", "from 0 to 319")),
    "the mask ends a text": Case(config(mask_token_id=1), ("token 1 both as the mask and", "correct mask_token_id")),
    "the mask ends a text, elsewhere": Case(
        text("generation_config.json", '{"eos_token_id": [1, 2]}'), ("token 2 both as the mask and", "correct")
    ),
    "another end elsewhere": Case(
        text("generation_config.json", '{"eos_token_id": 999}'), ("999 by generation_config.json", "belong together")
    ),
    # the tokenizer and the chat template
    "no tokenizer": Case(gone("tokenizer.json"), ("holds no tokenizer.json", "transformers writes")),
    "SentencePiece alone": Case(
        renamed("tokenizer.json", "tokenizer.model"),
        ("found tokenizer.model alone", "transformers writes", "python -c"),
    ),
    "a vocabulary without merges": Case(
        renamed("tokenizer.json", "vocab.json"), ("found vocab.json alone", "vocab.json with merges.txt")
    ),
    "an empty tokenizer": Case(text("tokenizer.json", ""), ("tokenizer.json", "fetch it again")),
    "the tokenizer is a pointer": Case(text("tokenizer.json", LFS), ("tokenizer.json is a pointer of git-lfs",)),
    "a broken chat template": Case(
        text("chat_template.json", "{"), ("chat_template.json is not valid JSON", "fetch it")
    ),
    "a chat template that is none": Case(
        text("chat_template.json", '{"chat_template": 3}'), ("chat_template must be a text", "got 3")
    ),
    # adapters
    "an adapter beside the weights": Case(
        lambda folder: write_adapter(folder, {}), ("an adapter of org/base", "--adapter", "move its files away")
    ),
    "an adapter alone": Case(
        lambda folder: [gone("config.json", SINGLE)(folder), write_adapter(folder, {})],
        ("an adapter of org/base", "give org/base as the model (--model)", "this folder as the adapter (--adapter)"),
    ),
    # other formats
    "bitsandbytes": Case(quantised("bitsandbytes", load_in_4bit=True), ("quant_method 'bitsandbytes'", "bfloat16")),
    "GPTQ": Case(quantised("gptq", bits=4, group_size=128), ("quant_method 'gptq'", "MLX", "bfloat16")),
    "AWQ": Case(quantised("awq", bits=4), ("quant_method 'awq'", "MLX", "bfloat16")),
    "FP8": Case(quantised("fp8"), ("quant_method 'fp8'", "MLX", "bfloat16")),
    "pickles alone": Case(renamed(SINGLE, "pytorch_model.bin"), ("pytorch_model.bin", "unpickling", "to safetensors")),
    "GGUF alone": Case(renamed(SINGLE, "m-Q4_K_M.gguf"), ("GGUF (m-Q4_K_M.gguf)", "take the model in safetensors")),
    "GGUF and nothing else": Case(
        lambda folder: [gone("config.json", "tokenizer.json")(folder), renamed(SINGLE, "m-Q4_K_M.gguf")(folder)],
        ("holds no config.json", "m-Q4_K_M.gguf is GGUF", "give the model that it was made from"),
    ),
    "whole numbers": Case(in_bytes, ("stored as I8", "quantised", "F32, F16 or BF16"), "headers"),
    # files of weights
    "no weights": Case(gone(SINGLE), ("holds neither model.safetensors nor", "fetch them again")),
    "weights of another name": Case(
        renamed(SINGLE, "w.safetensors"), ("found w.safetensors", "is to be called model.safetensors")
    ),
    "weights are a link to nothing": Case(
        lambda folder: [gone(SINGLE)(folder), (folder / SINGLE).symlink_to(folder / "blob")],
        (f"{SINGLE} is not an ordinary file, or a link to one that is gone", "fetch it again"),
    ),
    "weights are a pointer": Case(text(SINGLE, LFS), (f"{SINGLE} is a pointer of git-lfs", "git lfs pull"), "headers"),
    "weights are a login page": Case(text(SINGLE, LOGIN), (f"{SINGLE} is a web page", "hf download"), "headers"),
    "weights cut off": Case(
        cut(SINGLE, -4), (f"{SINGLE} is damaged", "tensors end at byte", "fetch it again"), "headers"
    ),
    "no bytes of weights": Case(cut(SINGLE, 0), (f"{SINGLE} is damaged", "at least 8 bytes", "fetch it again")),
    "an index without its map": Case(text(INDEX, "{}"), (INDEX, "lacks weight_map"), shards=3),
    "the index is a pointer": Case(text(INDEX, LFS), (f"{INDEX} is a pointer of git-lfs",), shards=3),
    "no index": Case(gone(INDEX), ("holds neither", SHARD, "with their index, which is to be fetched"), shards=3),
    "a path in the index": Case(
        places(lambda of: of | {Q: f"../../{SINGLE}"}), (f"names the shard '../../{SINGLE}'", "plain name"), shards=3
    ),
    "a shard is missing": Case(gone(SHARD), (INDEX, f"'{SHARD}'", "not in the folder", "fetch it again"), shards=3),
    "a shard is cut off": Case(cut(SHARD, -4), (f"{SHARD} is damaged", "fetch it again"), "headers", shards=3),
    "a shard is a pointer": Case(text(SHARD, LFS), (f"{SHARD} is a pointer of git-lfs",), "headers", shards=3),
    "a tensor that no shard has": Case(
        places(lambda of: of | {"model.more.weight": SHARD}),
        ("do not belong together", f"model.more.weight is not in {SHARD}", "fetch them again"),
        "headers",
        shards=3,
    ),
    # tensors
    "a tensor is missing": Case(
        weights(**dict.fromkeys(KEY)), ("do not fit config.json", f"{Q} [16, 16] is missing"), "headers"
    ),
    "a tensor of another shape": Case(
        weights(**{name: x[:, :8] for name, x in KEY.items()}), (f"{Q} should be [16, 16]; found [16, 8]",), "headers"
    ),
    "a tensor too many": Case(
        weights(model__extra__weight=random_weights()[Q]),
        ("model.extra.weight [16, 16] is not a tensor of llada models",),
        "headers",
    ),
    "not a number": Case(
        weights(**{name: x * np.float32("nan") for name, x in KEY.items()}),
        ("are damaged", f"{Q} is nan at [0, 0]", "fetch them again"),
        "weights",
    ),
    # the wrong folder
    "the folder above": Case(moved_into("llada"), ("holds no config.json", "in the folder", "llada; give that")),
    "the top of a hub's cache": Case(
        moved_into("snapshots", "0123abc"), ("holds no config.json", "snapshots/0123abc; give that")
    ),
}


class Looks:
    """What is read of the files of weights."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.headers, self.weights = False, False
        read, memmap = FolderFiles.read, np.memmap

        def looked(files: FolderFiles, name: str, start: int, stop: int) -> bytes:
            self.headers |= name.endswith(".safetensors")
            return read(files, name, start, stop)

        def mapped(*args: Any) -> Any:
            self.weights = True
            return memmap(*args)

        monkeypatch.setattr(FolderFiles, "read", looked)
        monkeypatch.setattr(np, "memmap", mapped)


@pytest.mark.parametrize("name", CASES)
def test_one_sentence_and_nothing_before_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    folder = write_checkpoint(tmp_path / "model", shards=case.shards)
    case.change(folder)
    looks = Looks(monkeypatch)
    with pytest.raises(ModelError) as error:
        mdsample.load(folder, "reference")
    told = str(error.value).replace(str(folder), "M")
    assert [words for words in case.says if words not in told] == [], told
    assert "\n" not in told and "Traceback" not in told and 15 < len(told) < 400, told
    assert (looks.headers, looks.weights) == {
        "nothing": (False, False),
        "headers": (True, False),
        "weights": (True, True),
    }[case.looks_at]


#: what the files that are fetched first say, or that there are others, and no other test asks of a hub
OF_A_HUB = [
    *("config is a login page", "a key twice", "too small a vocabulary", "the mask ends a text", "FP8", "no weights"),
    *("the tokenizer is a pointer", "a chat template that is none", "an adapter beside the weights", "GGUF alone"),
]


def test_of_a_hub_nothing_but_facts_is_asked_before_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path, tmp_path / "cache", monkeypatch) as hub:
        for number, name in enumerate(OF_A_HUB):
            case = CASES[name]
            hub.folder, hub.commit = write_checkpoint(tmp_path / str(number)), f"{number:040x}"
            case.change(hub.folder)
            with pytest.raises(ModelError) as error:
                mdsample.load("org/tiny", "reference")
            assert [words for words in case.says if words not in str(error.value)] == [], error.value
            assert not hub.whole and not hub.sent, name


def test_a_file_in_the_place_of_its_folder(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    with pytest.raises(ModelError, match=r"'.*/model.safetensors' is a file; a model is a folder: give the one"):
        mdsample.load(folder / SINGLE, "reference")


def test_several_models_in_a_folder(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write_checkpoint(tmp_path / name)
    with pytest.raises(ModelError, match=re.escape(f"is in the folder {tmp_path / 'a'} (and 2 more); give that")):
        mdsample.load(tmp_path, "reference")


def test_what_is_almost_wrong_loads(tmp_path: Path) -> None:
    """A head beside tied weights is used; of files that contradict one another config.json comes first."""
    config = {"tie_word_embeddings": True}
    own = family_weights("a2d-qwen3", {**FAMILIES["a2d-qwen3"][0], "tie_word_embeddings": False})
    tied = mdsample.load(write_family(tmp_path / "tied", "a2d-qwen3", config=config, weights=own), "reference")
    assert "head" in str(getattr(tied, "trunk").spec.shapes.keys())  # noqa: B009
    folder = write_checkpoint(tmp_path / "model")
    says = {"added_tokens_decoder": {"5": {"content": "<|mdm_mask|>"}, "x": 7}, "mask_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(says))
    assert mdsample.load(folder, "reference").tokenizer.mask_id == 2
    # published without tokenizer.json, all ids are those of the other files
    dream = as_dream_is_published(write_family(tmp_path / "dream", "dream"))
    assert (
        mdsample.load(dream, "reference").tokenizer.mask_id
        == json.loads((dream / "config.json").read_text())["mask_token_id"]
    )
