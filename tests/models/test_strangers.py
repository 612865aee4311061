"""What strangers wrote into a model folder: it is read within bounds, and what is wrong with it is one sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import FAMILIES, MASK, tokenizer_json, write_checkpoint, write_family
from mdsample_cli.main import main
from tokenizers import Tokenizer as Engine

import mdsample
from mdsample.errors import ModelError
from mdsample.models.convert import convert
from mdsample.models.files import MOST
from mdsample.models.text.tokenizer import FileTokenizer

HUGE = 10**400


def told(read: Callable[[], object], message: str) -> None:
    with pytest.raises(ModelError) as fault:
        read()
    said = str(fault.value)
    assert message in said and "\n" not in said and len(said) < 1000, said


# numbers of config.json


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("llada", {"n_layers": 10**6}, "llada: n_layers must be at most 1,000; found 1000000"),
        ("llada", {"n_layers": 10**9}, "n_layers must be at most 1,000"),
        ("llada", {"rope_theta": HUGE}, "llada: rope_theta must be a positive number; found 1000"),
        ("llada", {"rms_norm_eps": HUGE}, "rms_norm_eps must be a positive number"),
        ("llada", {"d_model": HUGE}, "d_model must be at most 1,099,511,627,776; found 1000"),
        ("llada", {"mask_token_id": -HUGE}, "mask_token_id must be one token id; found -1000"),
        ("llada", {"max_sequence_length": 10**13}, "max_sequence_length must be at most 1,099,511,627,776"),
        ("llada", {"vocab_size": "448"}, "llada: vocab_size must be a positive whole number; found '448'"),
        ("llada", {"vocab_size": -1}, "vocab_size must be a positive whole number; found -1"),
        ("llada", {"vocab_size": 1e12}, "vocab_size must be a positive whole number; found 1000000000000.0"),
        (
            "llada",
            {"vocab_size": 10**12},
            "tokens do not fit into embedding_size = 320 rows",
        ),
        ("llada", {"model_type": "x" * 9999}, "has model_type 'xxx"),
        ("dream", {"num_hidden_layers": 10**9}, "Dream: num_hidden_layers must be at most 1,000"),
        ("sdar_moe", {"num_experts": 10**9}, "sdar_moe: num_hidden_layers must be at most 1; found 2"),
        ("llada_moe", {"num_hidden_layers": 10**9, "moe_layer_freq": 1}, "num_hidden_layers must be at most 1,000"),
        (
            "llada2_moe",
            {"num_experts": 10**6, "n_group": 1},
            "num_hidden_layers must be at most 1; found 3",
        ),
        ("llada2_moe", {"partial_rotary_factor": 1e29}, "rotary embeddings need an even width"),
        (
            "llada2_moe",
            {"max_position_embeddings": 10**13},
            "max_position_embeddings must be at most 1,099,511,627,776",
        ),
    ],
)
def test_numbers_that_no_model_has(family: str, fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path, family)
    (folder / "config.json").write_text(json.dumps({**FAMILIES[family][0], **fields}))
    told(lambda: mdsample.inspect(folder), message)


# files that are none

FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
FILES += ("mdsample.toml", "model.safetensors.index.json")
#: name: what stands where a file should, and what is said of it; for the index, whose shards are looked for first
ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (Path.mkdir, "must be an ordinary file, but is a folder"),
    "pipe": (os.mkfifo, "must be an ordinary file, but is a pipe"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "must be an ordinary file, but is a device"),
    "circle": (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
    "long": (
        lambda path: os.truncate(path.write_text("") * 0 or path, 1 << 40),
        "bytes, so it is not what its name says",
    ),
    "deep": (lambda path: path.write_text("[" * 60 + "]" * 60), "not valid JSON: it is nested too deeply"),
    "deeper": (lambda path: path.write_text("[" * 10**6), "not valid JSON: it is nested too deeply"),
    "digits": (lambda path: path.write_text('{"a": ' + "1" * 5000 + "}"), "not valid JSON: Exceeds the limit"),
    "binary": (lambda path: path.write_bytes(b"\xff{}"), ""),
    "empty": (Path.touch, "is empty; fetch it again"),
}
NO_FILE = ("folder", "pipe", "device", "circle")


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", FILES)
def test_odd_files(name: str, odd: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # a family that looks into all of them
    folder = write_family(tmp_path, "a2d-qwen2", shards=2)
    (folder / name).unlink(missing_ok=True)
    make, message = ODD[odd]
    make(folder / name)
    code, (out, err) = main(["inspect", str(folder)]), capsys.readouterr()
    if odd == "empty" and name in ("chat_template.jinja", "mdsample.toml"):
        message = "must write the user's message once" if name == "chat_template.jinja" else ""
        assert code == (2 if message else 0) and message in err
        return
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1 and len(err) < 1000, err
    if name.startswith("model") and odd in NO_FILE:
        message = "not an ordinary file"
    if name.endswith(".json") or odd in NO_FILE:
        assert message.removeprefix("not valid JSON: ") in err and str(folder) in err, err


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("template = '{prompt}'", "mdsample.toml: template: a template needs at least one slot"),
        ("template = '{prompt}{'", "mdsample.toml: template: "),
        (f"template = {'9' * 5000}", "mdsample.toml is not valid TOML: Exceeds the limit"),
        (f"template = {'[' * 5000}", "mdsample.toml is not valid TOML: "),
        (f"{'a' * 999} = 1", "mdsample.toml: unknown key 'aaa"),
        ("#" * (1 << 16) + "#", "mdsample.toml has more than 65,536 bytes"),
    ],
)
def test_cards(said: str, message: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    (folder / "mdsample.toml").write_text(said)
    told(lambda: mdsample.inspect(folder), message)


def test_a_copy_leaves_odd_files_out(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model", config={"d_model": 32, "mlp_hidden_size": 32})
    (folder / "endless.txt").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.json")
    out = convert(folder, tmp_path / "out", group_size=32).folder
    assert not {"endless.txt", "pipe.json"} & {path.name for path in out.iterdir()}


# tokenizers


def tokenizer(**parts: object) -> str:
    return json.dumps({**json.loads(tokenizer_json()), **parts})


def split(regex: str) -> dict[str, object]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def replace(old: object, new: str) -> dict[str, object]:
    return {"type": "Replace", "pattern": old, "content": new}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        # a panic inside the library is no Exception
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "cannot be read: Precompiled: Error"),
        ({"pre_tokenizer": split("(a+")}, "cannot be read: Oniguruma error: end pattern with unmatched parenthesis"),
        (
            {"normalizer": {"type": "Sequence", "normalizers": [replace({"String": "a"}, "aa")] * 40}},
            "the normalizer of tokenizer.json makes up to 1,099,511,627,776 characters out of one",
        ),
        ({"decoder": replace({"String": "a"}, "a" * 999)}, "the decoder of tokenizer.json makes up to 999 characters"),
        ({"decoder": replace({"Regex": "(a+)+$"}, "")}, "the decoder of tokenizer.json has a regular expression"),
    ],
)
def test_tokenizers_that_are_refused(parts: dict[str, object], message: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    (folder / "tokenizer.json").write_text(tokenizer(**parts))
    told(lambda: mdsample.inspect(folder), message)


def test_a_panic_is_the_rows_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_checkpoint(tmp_path / "model")
    (folder / "tokenizer.json").write_text(tokenizer(pre_tokenizer=split("(a+)+$")))
    (tmp_path / "in.txt").write_text("a" * 60 + "b\ncat\n")
    options = ["--model", str(folder), "--template", "{q}{a:2}", "-p", "steps(1)", "--input", str(tmp_path / "in.txt")]
    assert main(["run", *options, "--output", str(tmp_path / "out.jsonl")]) == 1
    bad, good = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert "the rules of tokenizer.json cannot cut 'aaa" in bad["error"] and "retry-limit" in bad["error"]
    assert good["id"] == 1 and "text" in good


@pytest.mark.parametrize(
    ("parts", "bounded"),
    [
        ({}, True),
        ({"normalizer": {"type": "NFC"}}, True),
        ({"normalizer": replace({"String": "a"}, "")}, False),
        ({"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}}, False),
        ({"pre_tokenizer": {"type": "Whitespace"}}, False),
        ({"pre_tokenizer": {**split("a"), "behavior": "Removed"}}, False),
    ],
)
def test_a_text_that_is_certain_to_be_too_long_is_not_cut_into_tokens(parts: dict[str, object], bounded: bool) -> None:
    engine = Engine.from_str(tokenizer(**parts))
    longest = max(map(len, engine.get_vocab()))
    read = FileTokenizer(engine, mask_id=2, max_length=10)
    most = 10 * 4 * longest
    assert len(read.encode("a" * most)) != 1
    if bounded:
        with pytest.raises(ValueError, match=f"{most + 1} characters has more tokens than a row may have, 10; shorten"):
            read.encode(" " * (most + 1))
    else:
        read.encode(" " * (most + 1))


def test_the_longest_row_there_is_passes() -> None:
    """As many of the longest tokens as a row may have."""
    engine = Engine.from_str(tokenizer_json())
    longest = max((word for word in engine.get_vocab() if word not in (MASK,) and "<|" not in word), key=len)
    text = engine.decode([engine.token_to_id(longest)]) * 10
    assert len(FileTokenizer(engine, mask_id=2, max_length=10).encode(text)) >= 10


def test_small_files_are_read_whole(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config).ljust(MOST))
    assert mdsample.inspect(folder).parameters
    (folder / "config.json").write_text(json.dumps(config).ljust(MOST + 1))
    told(lambda: mdsample.inspect(folder), "config.json has more than 4,194,304 bytes, so it is not what its name says")
