"""Slots whose content a row brings: the sampler does not write there, and every part takes them as filled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import is_refused
from hypothesis import given, settings
from hypothesis import strategies as st
from mdsample_cli.main import main
from templates import LETTERS, WORD, templates

import mdsample
from mdsample import testing
from mdsample.core.template import Slot, Template
from mdsample.errors import TemplateError
from mdsample.exact.toy import ToyTokenizer
from mdsample.policy.base import Policy
from mdsample.sampling.engine import fill
from mdsample.sampling.prepared import prepare
from mdsample.sampling.result import read
from mdsample.testing import ScriptedDenoiser

MODEL = ScriptedDenoiser(LETTERS, max_length=200)
TEMPLATE = Template.parse("ab{question}c{reasoning:6}d{answer:3}")
POLICIES = testing.policies(("reasoning", "answer"), vocab=6, texts=("a", "bc"))


@pytest.mark.slow
@given(templates(WORD), st.data())
def test_what_is_given_is_read_back(template: Template, data: st.DataObject) -> None:
    slots = {piece.name: piece.length for piece in template.pieces if isinstance(piece, Slot)}
    chosen = data.draw(st.lists(st.sampled_from(sorted(slots)), unique=True))
    brought = {name: data.draw(st.text("abcdef", max_size=slots[name])) for name in chosen}
    texts = {name: data.draw(WORD) for name in template.fields}
    canvas = template.canvas(LETTERS, [texts], given=[brought])
    plain = template.canvas(LETTERS, [texts])
    assert (canvas.slot == plain.slot).all() and canvas.tokens.shape == plain.tokens.shape
    _, found = read(LETTERS, canvas.tokens[0], canvas.blank[0], canvas.slot[0], canvas.names)
    assert found == {name: brought.get(name, "") for name in slots}
    numbers = [canvas.names.index(name) for name in chosen]
    assert (canvas.blank == (plain.blank & ~np.isin(plain.slot, numbers))).all()
    assert (canvas.tokens[plain.slot < 0] == plain.tokens[plain.slot < 0]).all()


BROUGHT = st.sampled_from([{}, {"answer": "bc"}, {"reasoning": "abcab"}, {"answer": "a", "reasoning": ""}])


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(POLICIES, st.lists(BROUGHT, min_size=1, max_size=4), st.integers(0, 9))
def test_no_policy_touches_it(policy: Policy, brought: list[dict[str, str]], seed: int) -> None:
    canvas = TEMPLATE.canvas(LETTERS, [{"question": "abc"[: i % 4]} for i in range(len(brought))], given=brought)
    result = testing.run(policy, MODEL, canvas, seed)  # which asserts that nothing but blanks is written
    for row, slots in zip(result.rows, brought, strict=True):
        assert {name: row.slots[name] for name in slots} == slots
        assert row.filled + row.unfilled == canvas.blank[row.id].sum()
    testing.a_trace_replays(result, MODEL)
    testing.rows_are_independent(policy, MODEL, canvas)


def test_early_exit_does_not_wait_for_a_given_slot() -> None:
    policy = mdsample.parse("entropy+top(1)+early-exit(9)")
    canvas = TEMPLATE.canvas(LETTERS, [{"question": "a"}] * 2, given=[{"answer": "b"}, {}])
    pinned, free = testing.run(policy, MODEL, canvas).rows
    assert (pinned.outcome.name, pinned.nfe, pinned.unfilled) == ("filled", 6, 0)
    assert (free.outcome.name, free.nfe) == ("early-exit", 1)


def test_a_row_with_nothing_to_fill_is_done_at_once() -> None:
    canvas = TEMPLATE.canvas(LETTERS, [{"question": "a"}], given=[{"answer": "b", "reasoning": "abc"}])
    (row,) = mdsample.Sampler(mdsample.med()).run(MODEL, canvas).rows
    assert (row.nfe, row.steps, row.filled, row.outcome.name) == (0, 0, 0, "filled")
    assert row.slots == {"answer": "b", "reasoning": "abc"}


def test_guidance_hides_what_is_given_like_all_that_the_model_did_not_write() -> None:
    asks: list[Any] = []

    class Listening(ScriptedDenoiser):
        def predict(self, query: Any) -> Any:
            asks.append(query)
            return super().predict(query)

    canvas = TEMPLATE.canvas(LETTERS, [{"question": "a"}], given=[{"answer": "b"}])
    mdsample.Sampler(mdsample.parse("top(1)+cfg(1)")).run(Listening(LETTERS, max_length=200), canvas)
    assert (asks[0].fixed == ~canvas.blank).all()


def test_steps_of_a_reasoning_are_slots() -> None:
    template = Template.parse("{question}a{first:3}b{second:3}c{answer:2}")
    canvas = template.canvas(LETTERS, [{"question": "abc"}], given=[{"second": "ff"}])
    (row,) = testing.run(mdsample.med(), MODEL, canvas).rows
    assert row.slots["second"] == "ff" and set(row.slots) == {"first", "second", "answer"}
    assert canvas.blank.sum() == 5


def test_the_engine_takes_them() -> None:
    rows = [
        prepare(MODEL, TEMPLATE, i, {"question": "ab"[: i % 3]}, {"answer": "abc"[: i % 4]} if i % 2 else {})
        for i in range(9)
    ]
    for row in fill(mdsample.Sampler(mdsample.parse("med+early-exit")), MODEL, TEMPLATE.slots, rows, batch_size=3):
        assert int(row.id) % 2 == 0 or row.slots["answer"] == "abc"[: int(row.id) % 4]


@pytest.mark.parametrize(
    ("brought", "message"),
    [
        ({"answr": "a"}, "'answr' cannot be given: it is not a slot of the template; slots here: reasoning, answer"),
        ({"question": "a"}, "'question' cannot be given: it is a field; slots here"),
        ({"answer": "abcd"}, "slot 'answer' has 3 positions, but what is given for it is 4 tokens: 'abcd'"),
        ({"answer": 18}, "what is given for slot 'answer' must be text; got int"),
    ],
)
def test_what_cannot_be_given(brought: Any, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        TEMPLATE.row(LETTERS, {"question": "a"}, brought)


def test_without_an_end_token_it_must_fill_the_slot() -> None:
    template = Template.parse("{answer:3}")
    assert template.row(ToyTokenizer(4), {}, {"answer": "012"}).tokens == [0, 1, 2]
    with pytest.raises(TemplateError, match="is 2 tokens, the slot has 3, and the model has no end token"):
        template.row(ToyTokenizer(4), {}, {"answer": "01"})
    with pytest.raises(TemplateError, match="2 rows need as many mappings of what is given; got 1"):
        template.canvas(ToyTokenizer(4), [{}, {}], given=[{}])


SHORT = "Question: {prompt}\nReasoning:{reasoning:12}\nAnswer:{answer:4}"


def records(capsys: pytest.CaptureFixture[str], *told: str, template: str = SHORT) -> list[dict[str, Any]]:
    assert main(["run", "--json", "-t", template, *told]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.slow
def test_fill_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = records(capsys, "Ann has 3 coins.", "--fill", "answer= 18")
    assert row["slots"]["answer"] == "18" and row["given"] == {"answer": " 18"} and row["outcome"] == "filled"
    longer = "{prompt}{r:2}{answer:30}"
    (row,) = records(capsys, "Ann", "--fill", "answer=<|endoftext|>{x}", template=longer)
    assert row["slots"]["answer"] == "<|endoftext|>{x}", "special tokens and braces are plain text"


@pytest.mark.slow
def test_what_is_given_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "Ann has 3 coins.", "-t", SHORT, "--fill", "answer= 18", "--policy", "med+early-exit"]) == 0
    assert "answer       18\n" in capsys.readouterr().out


@pytest.mark.slow
def test_fill_from_a_key_of_each_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"prompt": "a", "gold": 7}, {"prompt": "b", "gold": " 12"}, {"prompt": "c"}, {"prompt": "d", "gold": 1.5}]
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = ["run", "--json", "-t", SHORT, "-i", str(file), "--fill-from", "answer=gold"]
    assert main(told) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("given") for row in rows] == [{"answer": "7"}, {"answer": " 12"}, None, None]
    assert rows[2]["error"] == "line 3: the row lacks 'gold', given for slot 'answer'"
    assert rows[3]["error"] == "line 4: 'gold', given for slot 'answer', must be text or a whole number; got a number"
    # a job with other fills is another job
    assert main([*told, "-o", str(out)]) == 1
    assert main(["run", "-t", SHORT, "-i", str(file), "-o", str(out)]) == 2
    assert "answers row 0 of another input" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (["--fill", "answer"], "--fill takes the name of a slot, = and what goes into it; got 'answer'"),
        (["--fill", "=3"], "--fill takes the name of a slot"),
        (["--fill", "answer=1", "--fill", "answer=2"], "--fill sets slot 'answer' twice; keep one"),
        (
            ["--fill", "anwser=1"],
            "'anwser' cannot be given: it is not a slot of the template; slots here: reasoning, answer",
        ),
        (["--fill", "prompt=1"], "'prompt' cannot be given: it is a field"),
        (["--fill", "answer=a very long answer indeed"], "slot 'answer' has 4 positions, but what is given"),
        (["--fill-from", "answer=gold"], "--fill-from takes keys of the rows of --input"),
    ],
)
def test_wrong_fills_are_one_line(told: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    is_refused(["run", "Ann", "-t", SHORT, *told], message, capsys)


def test_a_trace_of_a_given_slot_replays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "trace.jsonl"
    records(capsys, "Ann has 3 coins.", "--fill", "answer= 18", "--trace", str(file))
    assert main(["replay", str(file)]) == 0
    assert "18" in capsys.readouterr().out
