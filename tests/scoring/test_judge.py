"""Judging a finished reasoning: against plain scores, against a joint, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from checkpoints import write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

import mdsample
from mdsample.backend.load import load
from mdsample.core.template import Template
from mdsample.errors import ScoreError
from mdsample.exact.joint import Joint
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.trace import Trace
from mdsample.scoring.judge import WAYS, By, judge
from mdsample.scoring.methods import MarginalProduct
from mdsample.scoring.score import score

TEMPLATE = Template.parse("Q {prompt} R{reasoning:7} so{answer:2}")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    return load(write_checkpoint(tmp_path_factory.mktemp("m") / "m"), "reference")


def record(model: Denoiser, policy: str, seed: int = 0) -> Trace:
    canvas = TEMPLATE.canvas(model.tokenizer, [{"prompt": "the cat"}, {"prompt": "a"}], ["x", "y"])
    return Trace.of(Sampler(mdsample.parse(policy), seed=seed).run(model, canvas))


@pytest.mark.parametrize("by", WAYS)
def test_first_and_last_are_plain_scores(model: Denoiser, by: By) -> None:
    trace = record(model, "temperature(1)+entropy+top(2)")
    last = trace.replay()
    for row, judged in enumerate(judge(model, trace, by=by, batch_size=3)):
        slot = last.canvas.slot[row]
        tokens = last.tokens[row, slot == 1].tolist()
        fields = [{"prompt": ("the cat", "a")[row]}]
        scores = []
        for part, told in ((0, judged.before), (1, judged.parts[-1].log_probability)):
            canvas = TEMPLATE.canvas(model.tokenizer, fields)
            if part:
                tokens_now = canvas.tokens.copy()
                where = canvas.slot == 0
                tokens_now[where] = last.tokens[row][slot == 0]
                canvas = mdsample.Canvas(
                    tokens_now, canvas.blank & ~where, canvas.slot, canvas.valid, canvas.names, canvas.ids
                )
            from mdsample.scoring.scorer import marginal_scores

            right = np.where(canvas.slot == 1, 0, canvas.tokens)
            right[canvas.slot == 1] = tokens
            expected = marginal_scores(model, canvas, canvas.slot == 1, right)[0]
            scores.append(expected)
            assert told == pytest.approx(expected, abs=1e-4)
        changes = sum(part.change for part in judged.parts)
        assert judged.before + changes == pytest.approx(judged.parts[-1].log_probability, abs=1e-9)
        assert judged.worst is None or judged.worst.change == min(part.change for part in judged.parts)
    assert len(next(iter(judge(model, trace, by="token"))).parts) == 7


def test_a_given_answer_is_asked_for(model: Denoiser) -> None:
    trace = record(model, "left-to-right+top(1)")
    own = list(judge(model, trace))
    other = list(judge(model, trace, answers={"x": " 12", "y": "7"}))
    assert [judged.answer for judged in other] == ["12", "7"]
    (plain,) = score(model, TEMPLATE, [{"prompt": "a"}], "answer", [["7", "8"]], method=MarginalProduct())
    assert other[1].before == pytest.approx(plain.candidates[0].log_probability, abs=1e-4)
    assert [judged.id for judged in own] == ["x", "y"]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), by=st.sampled_from(WAYS))
def test_on_a_toy_it_is_the_joints_own_conditional(seed: int, by: By) -> None:
    table = np.random.default_rng(seed).dirichlet(np.ones(16)).reshape(2, 2, 2, 2)
    toy = Joint(table)
    canvas = toy.canvas(slots={"reasoning": 3, "answer": 1})
    run = Sampler(mdsample.parse("random+top(1)+temperature(1)"), seed=seed).run(toy, canvas)
    (judged,) = judge(toy, Trace.of(run), by=by)
    a, b, c, d = run.rows[0].tokens.tolist()
    assert judged.before == pytest.approx(math.log(table.sum((0, 1, 2))[d]), abs=1e-5)
    assert judged.parts[-1].log_probability == pytest.approx(
        math.log(table[a, b, c, d] / table[a, b, c].sum()), abs=1e-5
    )
    if by == "token":
        first = table[a].sum((0, 1))
        assert judged.parts[0].log_probability == pytest.approx(math.log(first[d] / first.sum()), abs=1e-5)


def test_sentences() -> None:
    model = load("tiny-gsm")
    template = Template.parse("Question: {prompt}\nReasoning:{reasoning:30}\nAnswer:{answer:4}")
    canvas = template.canvas(model.tokenizer, [{"prompt": "Ann has 3 apples."}])
    tokens = canvas.tokens.copy()
    said = model.tokenizer.encode(" Ann has 3 + 4 = 7. So 7 - 2 = 5; Ann has 5 apples.")
    where = np.flatnonzero(canvas.slot[0] == 0)
    tokens[0, where] = said + [model.tokenizer.end_id or 0] * (30 - len(said))
    blank = canvas.blank & (canvas.slot == 1)
    done = mdsample.Canvas(tokens, blank, canvas.slot, canvas.valid, canvas.names, canvas.ids)
    trace = Trace.of(Sampler(mdsample.parse("top(4)")).run(model, done))
    with pytest.raises(ScoreError, match="nothing is written in the trace beside slot 'answer'"):
        judge(model, trace)
    from mdsample.scoring.judge import _groups, _text

    opened = mdsample.Canvas(tokens, canvas.blank, canvas.slot, canvas.valid, canvas.names, canvas.ids)
    state = mdsample.State.begin(opened)
    from attrs import evolve

    state = evolve(state, tokens=tokens, blank=np.zeros_like(canvas.blank))
    groups = _groups(model.tokenizer, state, 0, 1, "sentence")
    texts = [_text(model.tokenizer, state, 0, group) for group in groups]
    assert texts == [" Ann has 3 + 4 = 7.", " So 7 - 2 = 5;", " Ann has 5 apples."]
    assert sum(len(group) for group in groups) == 30


def test_refusals(model: Denoiser) -> None:
    trace = record(model, "top(3)")
    for slot, answers, message in (
        ("nothing", None, "the trace has no slot 'nothing'; slots there: reasoning, answer"),
        ("answer", {"x": "a long answer that does not fit"}, "the slot has 2"),
    ):
        with pytest.raises(ScoreError, match=message):
            judge(model, trace, slot, answers)
    with pytest.raises(ScoreError, match="whose tokens are not those of"):
        judge(Joint(np.ones((3, 3)) / 9), trace)
