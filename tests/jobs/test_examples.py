"""Examples to train on: every kind of line, what is left out, how texts are written into their slots."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from mdsample.backend.load import load
from mdsample.core.template import Template
from mdsample.core.tokens import Tokenizer
from mdsample.errors import RecordError, TemplateError
from mdsample.jobs.examples import read_examples
from mdsample.sampling.result import read

TEMPLATE = Template.parse("{prompt}:{reasoning:20} so{answer:4}")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load(write_checkpoint(tmp_path_factory.mktemp("m") / "m"), "reference").tokenizer


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


ROW = {"prompt": "2+2", "reasoning": "Ann has 4", "answer": 4}


def contents(tokenizer: Tokenizer, tokens: list[int], slot: list[int]) -> dict[str, str]:
    import numpy as np

    array = np.array(tokens)
    return read(tokenizer, array, np.zeros(len(array), bool), np.array(slot), TEMPLATE.slots)[1]


def test_every_kind_of_line_gives_the_same(tokenizer: Tokenizer) -> None:
    slots = {"reasoning": "Ann has 4", "answer": "4"}
    record = {"id": 0, "prompt": "2+2", "text": "x", "slots": slots, "model": "m"}
    traces = {"id": 0, "prompt": "2+2", "given": {"answer": "4"}, "traces": [{"slots": slots, "kept": True}]}
    found = [read_examples(lines(row), TEMPLATE, tokenizer).examples for row in (ROW, record, traces)]
    assert found[0] == found[1] == found[2]
    (example,) = found[0]
    assert contents(tokenizer, example.tokens, example.slot) == slots
    assert example.slot.count(0) == 20
    assert example.slot.count(1) == 4
    assert tokenizer.mask_id not in example.tokens


def test_traces_that_were_not_kept_are_not_learned(tokenizer: Tokenizer) -> None:
    slots = {"reasoning": "a", "answer": "4"}
    traces = [{"slots": slots, "kept": False}, {"slots": slots | {"reasoning": "b"}, "kept": True}]
    found = read_examples(lines({"prompt": "x", "traces": traces}), TEMPLATE, tokenizer)
    assert [contents(tokenizer, e.tokens, e.slot)["reasoning"] for e in found.examples] == ["b"]
    assert not found.faults


@settings(max_examples=30, deadline=None)
@given(text=st.text("abc 7", max_size=12), answer=st.integers(0, 99))
def test_texts_are_written_as_told_and_end_tokens_follow(tokenizer: Tokenizer, text: str, answer: int) -> None:
    row = {"prompt": "p", "reasoning": text, "answer": answer}
    told = {"answer": " {}"}
    (example,) = read_examples(lines(row), TEMPLATE, tokenizer, "", told).examples
    inside = [t for t, s in zip(example.tokens, example.slot, strict=True) if s == 1]
    said = tokenizer.encode(f" {answer}")
    assert inside == said + [tokenizer.end_id] * (4 - len(said))
    inside = [t for t, s in zip(example.tokens, example.slot, strict=True) if s == 0]
    said = tokenizer.encode(text)
    assert inside == said + [tokenizer.end_id] * (20 - len(said))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"{", "this is not JSON"),
        (lines([1]), "must be a JSON object"),
        (lines({"prompt": "x", "reasoning": "y"}), "the row lacks 'answer'; it has: prompt, reasoning"),
        (lines(ROW | {"answer": 1.5}), "'answer' must be text or a whole number; got 1.5"),
        (lines(ROW | {"answer": True}), "'answer' must be text or a whole number"),
        (lines(ROW | {"reasoning": "z" * 90}), "slot 'reasoning' has 20 positions"),
        (lines({"id": 3, "error": "bad"}), "the record is of a row that failed: bad"),
        (lines({"prompt": "x", "traces": 3}), "'traces' must be a list"),
        (lines({"prompt": "x", "traces": [{"slots": {"answer": "1"}}]}), "a trace lacks 'reasoning'"),
        (lines(ROW | {"prompt": "z" * 200}), "the model takes at most 48"),
    ],
)
def test_what_cannot_be_used_is_left_out_and_told(tokenizer: Tokenizer, row: bytes, message: str) -> None:
    found = read_examples(lines(ROW) + row, TEMPLATE, tokenizer, max_length=48)
    assert len(found.examples) == 1
    (fault,) = found.faults
    assert fault.startswith("line 2: ")
    assert message in fault
    with pytest.raises(RecordError, match=r"data\.jsonl holds no example that can be used: line 1: "):
        read_examples(row, TEMPLATE, tokenizer, "data.jsonl", max_length=48)


def test_nothing_and_wrong_forms(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="it is empty"):
        read_examples(b"\n", TEMPLATE, tokenizer)
    with pytest.raises(TemplateError, match=r"write \{\} once"):
        read_examples(lines(ROW), TEMPLATE, tokenizer, "", {"answer": " "})
    with pytest.raises(TemplateError, match="not a slot of the template"):
        read_examples(lines(ROW), TEMPLATE, tokenizer, "", {"nothing": "{}"})
