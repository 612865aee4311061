"""A reasoning in numbered steps, each a slot: windows, stops, traces, scores, training and judgements take them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from mdsample_cli.main import main

import mdsample
from mdsample.core.template import Template
from mdsample.jobs.examples import read_examples
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.result import Row, read
from mdsample.scoring.judge import judge
from mdsample.testing import ScriptedDenoiser, Symbols

TEMPLATE = "Question: {prompt}\nStep 1:{step1:10}\nStep 2:{step2:10}\nAnswer:{answer:4}"
LAYOUT = Template.parse(TEMPLATE)
PROMPTS = ["the cat sat", "Ann has 12 coins", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "tiny", config={"max_sequence_length": 200})


@pytest.fixture(scope="module")
def model(folder: Path) -> Denoiser:
    return mdsample.load(folder, "reference")


def rows(model: Denoiser, policy: str, given: dict[str, str] | None = None) -> tuple[Row, ...]:
    canvas = LAYOUT.canvas(model.tokenizer, [{"prompt": text} for text in PROMPTS], given=[given or {}] * len(PROMPTS))
    return mdsample.Sampler(mdsample.parse(policy), seed=0).run(model, canvas).rows


@pytest.mark.parametrize("size", [1, 4, 8, 32])
def test_blocks_run_on_over_the_slots(model: Denoiser, size: int) -> None:
    for row in rows(model, f"entropy+top(1)+blocks({size})"):
        places = np.flatnonzero(row.slot >= 0).tolist()
        order = [places.index(commit.position) // size for commit in row.commits]
        assert order == sorted(order) and len(order) == 24
        assert list(row.slots) == ["step1", "step2", "answer"]
        assert "\nStep 2:" in row.text and "\nAnswer:" in row.text


def test_early_exit_leaves_in_the_midst_of_a_step(model: Denoiser) -> None:
    for slot, filled in (("answer", 4), ("step2", 10)):
        for row in rows(model, f"left-to-right+top(1)+early-exit(1000,slot='{slot}')"):
            assert (row.outcome.name, row.nfe, row.filled) == ("early-exit", 1, filled)
    [first, *_] = rows(model, "left-to-right+top(1)+whole+early-exit(0.000001,slot='step1')")
    assert (first.outcome.name, first.nfe, first.unfilled) == ("early-exit", 10, 14)
    assert first.slots["step2"] == first.slots["answer"] == ""


def test_an_end_token_ends_its_own_step(model: Denoiser) -> None:
    for row in rows(model, "left-to-right+top(1)+ended", {"step1": "the cat"}):
        assert row.slots["step1"] == "the cat"
        assert {int(row.slot[commit.position]) for commit in row.commits} == {1, 2}


def test_any_step_is_written_between_the_others(model: Denoiser) -> None:
    for row in rows(model, "med", {"step1": "cat", "answer": "12"}):
        assert (row.slots["step1"], row.slots["answer"], row.filled) == ("cat", "12", 10)


@pytest.mark.parametrize("method", [mdsample.ChainRule(), mdsample.MarginalProduct(), mdsample.MonteCarloBound(2)])
def test_a_step_is_scored(model: Denoiser, method: Any) -> None:
    for slot in LAYOUT.slots:
        given = [{name: "cat" for name in LAYOUT.slots[: LAYOUT.slots.index(slot)]}]
        [scores] = mdsample.score(model, LAYOUT, [{"prompt": "Ann"}], slot, ["the", "12"], method=method, given=given)
        assert scores.slot == slot and all(candidate.log_probability < 0 for candidate in scores.candidates)


def command(capsys: pytest.CaptureFixture[str], *told: object) -> str:
    assert main([str(word) for word in told]) == 0
    return capsys.readouterr().out


def test_traces_are_training_data(
    folder: Path, model: Denoiser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems, template = tmp_path / "problems.jsonl", tmp_path / "steps.txt"
    problems.write_text("".join(json.dumps({"prompt": text, "answer": "12"}) + "\n" for text in PROMPTS))
    template.write_text(TEMPLATE + "\n")
    asked = ("traces", "--input", problems, "--model", folder, "--backend", "reference", "-t", f"@{template}", "-n", 2)
    out = command(capsys, *asked)
    records = [json.loads(text) for text in out.splitlines()]
    traces = [trace for record in records for trace in record["traces"]]
    assert len(records) == 3 and all(trace["slots"]["answer"] == "12" for trace in traces)
    assert all(list(trace["slots"]) == ["step1", "step2", "answer"] for trace in traces)
    # random tokens spell what is read as other tokens; so the texts of a step are put in the place of these
    texts = {"step1": "the cat", "step2": "sat", "answer": "12"}
    written = [record | {"traces": [trace | {"slots": texts} for trace in record["traces"]]} for record in records]
    found = read_examples("\n".join(map(json.dumps, written)).encode(), LAYOUT, model.tokenizer)
    assert (len(found.examples), found.faults) == (len(traces), [])
    for example in found.examples:
        tokens, slot = np.array(example.tokens), np.array(example.slot)
        assert np.bincount(slot + 1).tolist()[1:] == [10, 10, 4]
        assert read(model.tokenizer, tokens, slot < -1, slot, LAYOUT.slots)[1] == texts


def test_a_recorded_reasoning_is_judged_step_by_step(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "t.jsonl"
    on = ("--model", folder, "--backend", "reference")
    command(capsys, "run", "the cat", *on, "-t", TEMPLATE, "-p", "entropy+top(1)", "--trace", trace)
    assert command(capsys, "judge", trace, *on, "--by", "sentence")
    [judged] = judge(mdsample.load(folder, "reference"), mdsample.Trace.load(trace))
    assert len(judged.parts) >= 2  # a step's end is a part's end


def test_an_end_that_is_reached_is_one_that_is_seen_from_left_to_right() -> None:
    """What stands before an end is written there; in another order `reached` waits for it."""
    ends = 0
    for seed in range(20):
        toy = ScriptedDenoiser(Symbols(3), seed=seed)
        template = Template.parse("ab{reasoning:8}c{answer:4}")
        for order in ("left-to-right", "right-to-left"):
            seen, reached = (
                mdsample.sample(toy, {}, template=template, policy=f"whole+{order}+top(1)+ended(when='{when}')")
                for when in ("seen", "reached")
            )
            ends += seen.nfe < 12
            if order == "left-to-right":
                assert (seen.tokens.tolist(), seen.nfe) == (reached.tokens.tolist(), reached.nfe)
            else:
                assert seen.nfe <= reached.nfe == 12
    assert ends > 10


def test_a_bound_is_asked_of_each_row_for_itself() -> None:
    """A language weighs nothing in a slot with one blank, however many rows have one."""
    toy = ScriptedDenoiser(Symbols(6))
    for length, known in ((1, True), (2, False)):
        template = Template.parse(f"ab{{prompt}}{{answer:{length}}}")
        samples = mdsample.sample(toy, ["c", "d"], template=template, policy="med+regex('[ab]+', slot='answer')")
        assert [np.isfinite(row.error_bound) for row in samples] == [known, known]
