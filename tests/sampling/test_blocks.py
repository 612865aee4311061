"""A model's own blocks: counted from the beginning of the row, the default, and nothing passes for seen that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_family
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import mdsample
from mdsample.core.canvas import Canvas
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.errors import PolicyError, ScoreError, TemplateError
from mdsample.models.denoiser import Denoiser, Query
from mdsample.policy.guide import NoGuide
from mdsample.sampling.trace import Trace
from mdsample.scoring.judge import judge
from mdsample.scoring.score import score

BLOCK = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Denoiser]:
    """Models in blocks of 4 and of 32."""
    place, longer = tmp_path_factory.mktemp("models"), {"max_position_embeddings": 128}
    families = ("sdar", "llada2_moe", "nemotron")
    return {f: mdsample.load(write_family(place / f, f, config=longer), "reference") for f in families}


@pytest.fixture(scope="module")
def sdar(models: dict[str, Denoiser]) -> Denoiser:
    return models["sdar"]


def row_of(model: Denoiser, prompt: int, blanks: int, seed: int = 0) -> Canvas:
    """A prompt of so many tokens, and a slot after it."""
    tokens = np.random.default_rng(seed).integers(3, 200, prompt).tolist()
    where = [-1] * prompt + [0] * blanks
    return Canvas.of_rows([tokens + [0] * blanks], [where], ("answer",), model.tokenizer.mask_id)


def marginals(model: Denoiser, tokens: np.ndarray, blank: np.ndarray, opened: np.ndarray | None = None) -> Any:
    """Most probable token and its probability, `[L]`, of one forward pass over the whole row."""
    allowed = np.arange(model.vocab_size) < model.tokenizer.size
    allowed[model.tokenizer.mask_id] = False
    nowhere = np.zeros((1, len(tokens)), np.int32)
    query = Query(
        tokens=tokens[None].astype(np.int32),
        valid=np.ones((1, len(tokens)), np.bool_),
        wanted=blank[None],
        fixed=~(blank if opened is None else opened)[None],
        restriction=Restriction(allowed[None], nowhere),
        guide=NoGuide(),
        rows=Rows(((0, 0),), np.zeros(1, np.int32)),
    )
    seen = model.predict(query).marginals
    return seen.token[0], seen.confidence[0]


def published(model: Denoiser, tokens: np.ndarray, blank: np.ndarray, rule: str) -> tuple[list[int], int]:
    """Block decoding as SDAR and LLaDA2 publish it, told again: blocks of the grid one after the other, the one with
    the end of the prompt first; in each pass all above 0.9, else the best (`dynamic`), the best (`static`), or the
    first (`sequential`). Returns tokens and forward passes."""
    tokens, blank, passes = tokens.copy(), blank.copy(), 0
    block = model.block
    assert block is not None
    for start in range(0, len(tokens), block):
        inside = np.arange(start, min(start + block, len(tokens)))
        while blank[inside].any():
            token, probability = marginals(model, tokens, blank)
            passes += 1
            open_ = inside[blank[inside]]
            best = open_[[np.argmax(probability[open_])]]
            chosen = {
                "dynamic": above if len(above := open_[probability[open_] >= np.float32(0.02)]) else best,
                "static": best,
                "sequential": open_[:1],
            }[rule]
            tokens[chosen], blank[chosen] = token[chosen], False
    return tokens.tolist(), passes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "policy"),
    [("dynamic", "fast-dllm(0.02)"), ("static", "confidence+top(1)"), ("sequential", "left-to-right+top(1)")],
)
@pytest.mark.parametrize("family", ["sdar", "llada2_moe"])
def test_the_published_loop_token_for_token(models: dict[str, Denoiser], rule: str, policy: str, family: str) -> None:
    """Prompts of all lengths from 1 to 70: the same tokens in the same number of passes."""
    model = models[family]
    for prompt in range(1, 71):
        canvas = row_of(model, prompt, 11, seed=prompt)
        tokens, passes = published(model, canvas.tokens[0], canvas.blank[0], rule)
        (row,) = mdsample.Sampler(policy).run(model, canvas).rows
        assert (row.tokens.tolist(), row.nfe) == (tokens, passes), prompt


@pytest.mark.parametrize("prompt", [*range(9), 31, 32, 33])
def test_nemotrons_loop_token_for_token(models: dict[str, Denoiser], prompt: int) -> None:
    """Told again: blocks from the end of the prompt, each begun by one token, then all above 0.02 in it, else the best.

    What a pass says of the model's places is held to transformers in tests/backend/test_trunk.py.
    """
    model = models["nemotron"]
    canvas = row_of(model, prompt, 10, seed=prompt)
    tokens, blank, passes = canvas.tokens[0].copy(), canvas.blank[0].copy(), 0
    for start in range(prompt, len(tokens), 4):
        inside = np.arange(start, min(start + 4, len(tokens)))
        while blank[inside].any():
            token, probability = marginals(model, tokens, blank, canvas.blank[0])
            passes += 1
            open_ = inside[blank[inside]]
            above = open_[probability[open_] >= np.float32(0.02)]
            chosen = above if len(above) else open_[[np.argmax(probability[open_])]]
            chosen = inside[:1] if blank[start] else chosen
            tokens[chosen], blank[chosen] = token[chosen], False
    (row,) = mdsample.Sampler("nemotron(0.02)+never").run(model, canvas).rows
    assert (row.tokens.tolist(), row.nfe) == (tokens.tolist(), passes)


def test_no_number_and_the_models_own_are_the_same(sdar: Denoiser) -> None:
    canvas = row_of(sdar, 6, 9)
    runs = [mdsample.Sampler(policy).run(sdar, canvas) for policy in ("med", "med+blocks", "med+blocks(4)")]
    assert len({tuple(run.rows[0].tokens.tolist()) for run in runs}) == 1
    assert {Trace.of(run).policy for run in runs} == {Trace.of(runs[2]).policy}
    assert Trace.of(runs[0]).policy.startswith("blocks(size=4)")


@given(st.integers(1, 13), st.integers(1, 13), st.sampled_from([4, 8, 12]), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_blocks_fill_in_the_order_of_the_grid(sdar: Denoiser, prompt: int, blanks: int, size: int, seed: int) -> None:
    run = mdsample.Sampler(f"random+top(1)+temperature(1)+blocks({size})", seed=seed).run(
        sdar, row_of(sdar, prompt, blanks)
    )
    order = [commit.position // size for commit in run.rows[0].commits]
    assert order == sorted(order)


@pytest.mark.parametrize("policy", ["blocks(3)", "blocks(6)+med", "dilated(6)", "dilated(2)"])
def test_a_number_that_is_no_multiple_is_refused(sdar: Denoiser, policy: str) -> None:
    with pytest.raises(PolicyError, match="does not fit a model that was trained in blocks of 4"):
        mdsample.Sampler(policy).run(sdar, row_of(sdar, 5, 8))


@pytest.mark.parametrize(
    ("template", "given", "words"),
    [
        ("the {a:6} cat sat on the mat", {}, "slot 'a' cannot see the text after it, from position"),
        ("the {a:6}{b:6}", {"b": "cat"}, "slot 'a' cannot see what stands in slot 'b' after it"),
    ],
)
def test_text_that_a_slot_cannot_see_is_refused(
    sdar: Denoiser, template: str, given: dict[str, str], words: str
) -> None:
    """At every door: a template, a canvas, a score, a trace that is judged."""
    with pytest.raises(TemplateError, match=words):
        mdsample.sample(sdar, {}, template=template, given=given)
    canvas = mdsample.Template.parse(template).canvas(sdar.tokenizer, [{}], given=[given])
    with pytest.raises(PolicyError, match=words):
        mdsample.Sampler("med").run(sdar, canvas)
    if not given:
        with pytest.raises(ScoreError, match=words):
            score(sdar, mdsample.Template.parse(template), [{}], "a", ["cat"])
    meant = template.replace("{a:6}", "{a:6:blind}")
    assert str(mdsample.Template.parse(meant)) == meant
    mdsample.sample(sdar, {}, template=meant, given=given)
    run = mdsample.Sampler("med").run(sdar, mdsample.Template.parse(meant).canvas(sdar.tokenizer, [{}], given=[given]))
    assert Trace.of(run).canvas.blind == ("a",)


def test_an_answer_before_its_reasoning_cannot_be_judged(sdar: Denoiser) -> None:
    canvas = mdsample.Template.parse("the {answer:4}{why:8}").canvas(sdar.tokenizer, [{}])
    trace = Trace.of(mdsample.Sampler("med").run(sdar, canvas))
    with pytest.raises(ScoreError, match="slot 'answer' cannot see what stands in slot 'why' after it"):
        judge(sdar, trace)
    assert list(judge(sdar, trace, slot="why"))


def test_a_trace_of_a_blind_slot_is_saved_and_read(sdar: Denoiser, tmp_path: Path) -> None:
    template = mdsample.Template.parse("the {a:6:blind} cat sat on the mat {b:3}")
    trace = Trace.of(mdsample.Sampler("med").run(sdar, template.canvas(sdar.tokenizer, [{}])))
    trace.save(tmp_path / "t.jsonl")
    assert Trace.load(tmp_path / "t.jsonl").canvas.blind == ("a",)


@given(st.sampled_from(["sdar", "nemotron"]), st.integers(0, 9), st.integers(1, 9), st.integers(1, 9))
@example("nemotron", 1, 1, 3)
@example("nemotron", 3, 2, 3)
@settings(max_examples=60, deadline=None)
def test_what_is_let_through_is_seen(
    models: dict[str, Denoiser], family: str, before: int, blanks: int, after: int
) -> None:
    """Whatever is not refused changes what the first open place says, and what is refused does not."""
    model = models[family]
    ids, where = [7] * (before + blanks + after), [-1] * before + [0] * blanks + [-1] * after
    canvas = Canvas.of_rows([ids], [where], ("a",), model.tokenizer.mask_id)
    assume(canvas.valid.any())
    first = before
    other = canvas.tokens[0].copy()
    other[-1] = 9  # the last token of the later text
    said = [marginals(model, tokens, canvas.blank[0])[1][first] for tokens in (canvas.tokens[0], other)]
    refused = bool(canvas.unseen(model.block, model.led))
    assert (said[0] == said[1]) == refused


def test_a_model_that_sees_all_refuses_nothing() -> None:
    canvas = Canvas.of_rows([[1] * 12], [[-1, 0, *[-1] * 10]], ("a",), 0)
    assert canvas.unseen(None) == ""
    assert canvas.unseen(4).startswith("row 0: slot 'a' cannot see the text")


@pytest.mark.parametrize("text", ["{a:6:deaf}", "{a:6:}", "{a:6:blind:blind}"])
def test_only_blind_may_follow_a_length(text: str) -> None:
    with pytest.raises(TemplateError, match="only the word blind may stand"):
        mdsample.Template.parse(text)


@given(
    st.sampled_from(["sdar", "nemotron"]),
    st.integers(1, 13),
    st.integers(1, 20),
    st.sampled_from([1, 2, 3, 8]),
    st.integers(0, 9),
)
@settings(max_examples=30, deadline=None)
def test_a_led_block_begins_with_its_first_place(
    models: dict[str, Denoiser], family: str, prompt: int, blanks: int, size: int, seed: int
) -> None:
    policy = f"random+top(2)+temperature(1)+led-blocks({size})"
    model, origin = models[family], prompt if family == "nemotron" else 0
    row = mdsample.Sampler(policy, seed=seed).run(model, row_of(model, prompt, blanks)).rows[0]
    places = [commit.position - origin for commit in row.commits]
    group = [(place // 4, place % 4 > 0, place % 4 // size) for place in places]
    assert group == sorted(group)
    steps = {commit.step for commit in row.commits if (commit.position - origin) % 4 == 0}
    assert all(sum(commit.step == step for commit in row.commits) == 1 for step in steps)
