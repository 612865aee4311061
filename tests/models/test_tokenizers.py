"""Tokenizers as they are published: the ids of transformers, on every text, and one sentence for what does not fit."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import ADDED, END, as_dream_is_published, write_family
from hypothesis import given
from hypothesis import strategies as st

import mdsample
from mdsample.errors import ModelError
from mdsample.models.families import read_config
from mdsample.models.text.tokenizer import FileTokenizer


@pytest.fixture(scope="module")
def dream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_dream_is_published(write_family(tmp_path_factory.mktemp("models") / "dream", "dream"))


def read(folder: Path) -> FileTokenizer:
    return FileTokenizer.read(folder, read_config(folder))


#: all planes of Unicode, signs that normalisation changes, line ends and white space, what is added
PIECES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [*ADDED, "don't", "I'LL", "12345", " 12", "e\u0301", "\u1e9b\u0323", "\uac00", "\u0344", "カ\u3099"]
    ),
    st.text(" \t\n\r\u00a0\u2003\u200d\ufeff", max_size=6),
    st.text("the catsonm 0123456789.,!?'#", max_size=20),
)
TEXTS = st.lists(PIECES, max_size=6).map("".join)


@pytest.mark.slow
def test_ids_are_those_of_transformers(dream: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs: Any = transformers.Qwen2Tokenizer.from_pretrained(dream)
    ours = read(dream)
    assert theirs.get_vocab() == ours._engine.get_vocab(with_added_tokens=True)

    @given(TEXTS)
    def agree(text: str) -> None:
        ids = theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    agree()


def test_a_text_comes_back_composed_and_holds_no_special_token(dream: Path) -> None:
    ours = read(dream)

    @given(TEXTS)
    def holds(text: str) -> None:
        ids = ours.encode(text)
        assert ours.decode(ids) == unicodedata.normalize("NFC", text)
        assert not {ours.special_id(token) for token in ours.special} & {*ids}

    holds()


@pytest.mark.parametrize("backend", ["reference", "torch", "mlx"])
def test_dream_as_it_is_published_runs(dream: Path, backend: str) -> None:
    if backend != "reference":
        pytest.importorskip("mlx.core" if backend == "mlx" else backend)
    facts = mdsample.inspect(dream)
    assert (facts.mask.text, facts.end and facts.end.text) == ("<|mask|>", END)
    row = mdsample.sample(
        mdsample.load(dream, backend=backend), "Ann has 12", template="{prompt}{answer:5}", policy="med"
    )
    assert row.unfilled == 0 and np.array_equal(row.tokens[:-5], read(dream).encode("Ann has 12"))


def change(folder: Path, name: str, **values: object) -> None:
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))


def drop_first(folder: Path) -> None:
    vocabulary = json.loads((folder / "vocab.json").read_text())
    vocabulary.pop(next(iter(vocabulary)))
    (folder / "vocab.json").write_text(json.dumps(vocabulary))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: (f / "merges.txt").unlink(), r"vocab.json with merges.txt; found vocab.json alone; other"),
        (lambda f: (f / "vocab.json").unlink(), r"vocab.json with merges.txt; found merges.txt alone; other"),
        (
            lambda f: [(f / "vocab.json").rename(f / "tokenizer.model"), (f / "merges.txt").unlink()],
            r"found tokenizer.model alone; other .* are not read: transformers writes tokenizer.json there, with py",
        ),
        (lambda f: change(f, "config.json", mask_token_id=310), r"is 310 by config.json, but vocab.json has no"),
        (lambda f: change(f, "config.json", vocab_size=200, eos_token_id=0, mask_token_id=1), r"vocab.json has token"),
        (lambda f: (f / "merges.txt").write_text("a b c\n"), r"line 1 of .*merges.txt must be two tokens with a space"),
        (lambda f: (f / "merges.txt").write_text("t qqq\n"), r"merges.txt cannot be read: .*qqq"),
        (lambda f: (f / "merges.txt").write_bytes(b"\xff"), r"merges.txt is not UTF-8"),
        (lambda f: (f / "vocab.json").write_text('{"a": 7}'), r"vocab.json must give 1 tokens the ids 0 to 0"),
        (lambda f: (f / "vocab.json").write_text('{"a": true}'), r"vocab.json must give 1 tokens the ids 0 to 0"),
        (lambda f: (f / "vocab.json").write_text("{"), r"vocab.json is not valid JSON"),
        (drop_first, r"vocab.json must give \d+ tokens the ids"),
        (lambda f: change(f, "tokenizer_config.json", tokenizer_class="GPT2Tokenizer"), r"tokenizer_class 'GPT2To"),
        (lambda f: change(f, "tokenizer_config.json", added_tokens_decoder={"x": 3}), r"token 'x' needs a content"),
        (
            lambda f: change(f, "tokenizer_config.json", added_tokens_decoder={"900": {"content": "<q>"}}),
            r"gives the added token '<q>' the id 900, but the tokens before it end at",
        ),
        (lambda f: change(f, "added_tokens.json", odd="x"), r"added_tokens.json must give every token an id"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(damage: Callable[[Path], object], told: str, tmp_path: Path) -> None:
    folder = as_dream_is_published(write_family(tmp_path / "dream", "dream"))
    damage(folder)
    with pytest.raises(ModelError, match=told) as error:
        mdsample.load(folder, backend="reference")
    assert "\n" not in str(error.value)
