"""The policy that a checkpoint takes where nobody names one: that of its authors."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest
from checkpoints import write_family
from commands import is_refused
from mdsample_cli.main import main

import mdsample
from mdsample.models import families
from mdsample.models.decoding import DECODING
from mdsample.models.families import read_config
from mdsample.models.inspect import inspect
from mdsample.policy.complete import as_run
from mdsample.policy.parsing import parse

#: families whose authors publish no decoding of their own
WITHOUT = {"a2d-llama", "a2d-qwen2", "a2d-qwen3"}


def test_every_family_is_decoded_as_published_or_said_not_to_be() -> None:
    assert set(families.FAMILIES) - set(DECODING) == WITHOUT


@pytest.mark.parametrize(
    "family", ["llada", "dream", "sdar", "llada2_moe", "fast_dllm", "a2d-qwen3", "stable_diffcoder", "nemotron"]
)
def test_every_door_takes_the_same(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_family(tmp_path / family, family)
    model = mdsample.load(folder, "reference")
    expected = DECODING.get(read_config(folder).family, "")
    assert model.policy == inspect(folder).policy == expected
    asked = ["--template", "{prompt}{answer:5}", "--backend", "reference", "--model", str(folder), "--json"]
    assert main(["run", "Ann", *asked]) == 0
    record = json.loads(capsys.readouterr().out)
    row = mdsample.sample(model, "Ann", template="{prompt}{answer:5}")
    assert record["slots"]["answer"] == row.slots["answer"]
    own = parse(expected or "med+early-exit")
    assert record["policy"] == as_run(own, model.block)
    assert main(["explain", "--model", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["policy"] == str(own)
    assert ("published with it" if expected else "Nothing is published") in told["why"]


def test_what_only_a_name_tells(tmp_path: Path) -> None:
    for name, text in (
        ("DiffuCoder-7B-cpGRPO", "diffucoder"),
        ("Dream-Coder-v0", "dream-coder"),
        ("x", "dream-entropy"),
    ):
        assert inspect(write_family(tmp_path / name, "dream")).policy == text


def test_a_template_of_its_own_has_slots_of_its_own(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "own", "sdar")
    (folder / "mdsample.toml").write_text('template = "{prompt}{reasoning:8}{answer:4}"\n')
    assert inspect(folder).policy == ""
    assert inspect("tiny-gsm").policy == ""


def test_a_policy_or_a_model_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    is_refused(["explain"], "give a POLICY", capsys)


def test_a_language_is_counted_over_the_tokens_of_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    policy = "med+integer(min=7,max=999)+regex('a*',slot='x')+choices(['yes','no'],slot='y')+ban(['a'])"
    assert main(["explain", policy, "--model", "tiny-gsm", "--json"]) == 0
    seats = {seat["part"].split("(")[0]: seat.get("language") for seat in json.loads(capsys.readouterr().out)["seats"]}
    assert seats["ban"] is None and seats["regex"]["longest"] is None and seats["regex"]["shortest"] == 0
    tokenizer = mdsample.load("tiny-gsm").tokenizer
    integers = mdsample.Integer(min=7, max=999).facts(tokenizer)
    assert seats["integer"] == attrs.asdict(integers)
    # the longest way to write one: a space and three digits, a token each
    assert (integers.shortest, integers.longest) == (len(tokenizer.encode("7")), 4)
    assert {len(tokenizer.encode(text)) for text in ("yes", "no")} == {
        seats["choices"]["shortest"],
        seats["choices"]["longest"],
    }
    assert main(["explain", policy, "--model", "tiny-gsm"]) == 0
    assert f"Over this model's tokens: {integers.states} states" in " ".join(capsys.readouterr().out.split())
    assert main(["explain", policy]) == 0
    assert "this model's tokens" not in capsys.readouterr().out
