"""Credit against a dense table of all tokens, and on every backend; blocks from the row's beginning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from installed import on

import mdsample
from mdsample import exact, testing
from mdsample.backend.reference.prediction import NumpyPrediction
from mdsample.core.canvas import Canvas
from mdsample.core.credits import Credits
from mdsample.core.language import Span
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.models.denoiser import Query
from mdsample.policy.base import Policy
from mdsample.policy.guide import Credit, NoGuide
from mdsample.policy.window import Window
from mdsample.sampling.engine import fill
from mdsample.sampling.prepared import Prepared
from mdsample.testing import ScriptedDenoiser, Symbols
from mdsample.testing.languages import random_language
from mdsample.testing.promises import speculation_changes_nothing
from mdsample.testing.worlds import LETTERS, TEXTS, canvases, denoisers

CREDITS = st.builds(
    Credit,
    st.floats(0, 4),
    power=st.sampled_from([0.0, 0.2, 1.0]),
    decay=st.sampled_from([0.0, 0.8, 1.0]) | st.floats(0, 1),
)
WINDOWS: Any = st.sampled_from([mdsample.Whole(), mdsample.Blocks(3), mdsample.RowBlocks(4)])
MODEL = ScriptedDenoiser(Symbols(6), 3, 2.0)
POLICY = mdsample.parse("blocks(8)+confidence+above-confidence(0.6)+temperature(0.7)+credit")


def raw_logits(model: ScriptedDenoiser, canvas: Canvas, tokens: Any, window: Window) -> tuple[Any, Any]:
    """Positions on offer in the only row, and the log-probabilities `[n, V]` of the model's own there."""
    plan = mdsample.Sampler(window).plan(model, canvas)
    blank = canvas.blank & (tokens == model.tokenizer.mask_id)
    group = {
        mdsample.Whole(): 0 * tokens,
        mdsample.Blocks(3): (np.cumsum(canvas.blank, 1) - 1) // 3,
        mdsample.RowBlocks(4): np.arange(tokens.shape[1])[None] // 4,
    }[window]
    wanted = blank & (group == group[blank].min())
    names = Rows([(0, 0)], np.zeros(1, np.int32))
    query = Query(tokens, canvas.valid, wanted, ~canvas.blank, plan.restriction, NoGuide(), names)
    place = np.flatnonzero(wanted[0]).astype(np.int32)
    positions = np.repeat(place, model.vocab_size)
    every = np.tile(np.arange(model.vocab_size, dtype=np.int32), len(place))
    stated = model.predict(query).log_probabilities(0 * every, positions, every)
    return place, stated.reshape(len(place), -1).astype(np.float64)


@settings(max_examples=20)
@given(CREDITS, WINDOWS, st.floats(0.2, 0.95), denoisers(), canvases(rows=1))
def test_credit_is_a_table_of_all_tokens(
    guide: Credit, window: Window, threshold: float, model: ScriptedDenoiser, canvas: Canvas
) -> None:
    policy = window + mdsample.Confidence() + mdsample.AboveConfidence(threshold) + guide
    table = np.zeros((canvas.tokens.shape[1], model.vocab_size))
    tokens = canvas.tokens.copy()
    for event in testing.run(policy, model, canvas).state.events:
        if not len(event.row):
            continue
        place, raw = raw_logits(model, canvas, tokens, window)
        table *= guide.decay
        table[place, raw.argmax(1)] += np.exp(raw.max(1)) ** guide.power
        fused = raw + guide.weight * np.log(table[place] + 1)
        fused -= np.logaddexp.reduce(fused, 1, keepdims=True)
        top, second = np.sort(fused, 1)[:, :-3:-1].T
        entropy = -(np.exp(fused) * np.maximum(fused, -700)).sum(1)
        n = np.searchsorted(place, event.position)
        clear = top[n] - second[n] > 1e-5
        assert (event.token == fused[n].argmax(1))[clear].all()
        np.testing.assert_allclose(event.confidence, np.exp(top[n]), atol=1e-4)
        np.testing.assert_allclose(event.entropy, entropy[n], atol=1e-4)
        above = np.exp(top) >= threshold
        if not (abs(np.exp(top) - threshold) < 1e-5).any():
            assert sorted(event.position.tolist()) == place[above].tolist() or (not above.any() and len(n) == 1)
        tokens[0, event.position] = event.token
    assert not (canvas.blank & (tokens == model.tokenizer.mask_id)).any()


@settings(max_examples=4, phases=[Phase.generate])
@given(testing.policies(("answer",), vocab=LETTERS, texts=TEXTS), CREDITS, denoisers(), canvases(), st.integers(0, 3))
def test_a_policy_with_credit_keeps_its_promises(
    policy: Policy, guide: Credit, model: ScriptedDenoiser, canvas: Canvas, seed: int
) -> None:
    policy = policy.without("revise").replace(guide)
    testing.keeps_its_promises(policy, model, canvas, seed)
    speculation_changes_nothing(policy, model, canvas, seed)


@pytest.mark.parametrize("asks_more", ["early-exit(0.001)", "lookahead(2)"])
def test_credit_counts_on_offer_only_whatever_else_is_asked(asks_more: str) -> None:
    asked: list[Query] = []

    class Spy(ScriptedDenoiser):
        def predict(self, query: Query) -> NumpyPrediction:
            asked.append(query)
            return super().predict(query)

    mdsample.sample(Spy(Symbols(6)), {}, template="a{answer:8}", policy=f"blocks(3)+top(1)+{asks_more}+credit")
    assert all(query.credits is not None and query.credits.here.sum(1).max() <= 3 for query in asked)
    assert any(query.wanted.sum(1).max() > 3 for query in asked)


@pytest.mark.parametrize("policy", ["med+credit", "whole+lookahead(2)+credit"])
def test_nothing_is_guessed(policy: str) -> None:
    canvas = mdsample.Template.parse("a{answer:6}").canvas(MODEL.tokenizer, [{}, {}])
    rows = speculation_changes_nothing(mdsample.parse(policy), MODEL, canvas, 0, "3x2", 1).rows
    plain = mdsample.Sampler(policy).run(MODEL, canvas).rows
    assert [(row.nfe, row.rounds) for row in rows] == [(row.nfe, row.rounds) for row in plain]


def test_rows_that_leave_and_enter_and_runs_that_are_resumed_keep_their_credit() -> None:
    canvas = mdsample.Template.parse("{text:24}").canvas(MODEL.tokenizer, [{}] * 5)
    result = mdsample.Sampler(POLICY).run(MODEL, canvas)
    plain = mdsample.Sampler(POLICY.without("guide")).run(MODEL, canvas)
    assert result.state.nfe.sum() < plain.state.nfe.sum()
    mask = MODEL.tokenizer.mask_id
    rows = [Prepared(i, [mask] * 24, [0] * 24, [True] * 24) for i in range(5)]
    found = {row.id: row for row in fill(mdsample.Sampler(POLICY), MODEL, ("text",), rows, batch_size=2)}
    for i, row in enumerate(result.rows):
        assert (found[i].tokens.tolist(), found[i].nfe) == (row.tokens.tolist(), row.nfe)
    states = list(mdsample.Trace.of(result).states())
    for state in (states[1], states[-3]):
        while not state.done:  # without a plan nothing is remembered from step to step
            state, _ = mdsample.Sampler(POLICY).step(MODEL, state)
        assert (state.tokens == result.state.tokens).all() and (state.nfe == result.state.nfe).all()


def test_its_exact_law_is_what_runs_show() -> None:
    toy = exact.coupled(1.0, 2, length=3)
    policy = mdsample.parse("whole+entropy+top(1)+temperature(1)+credit(3,decay=1)")
    law = exact.law(policy, toy)
    assert law.probability.sum() == pytest.approx(1) and law.kl_bound == np.inf
    assert exact.tv(toy, law) > 0.05  # one at a time, but no longer the model's own law
    one, runs = toy.canvas(), 3000
    many = mdsample.Canvas(
        *(np.repeat(array, runs, 0) for array in (one.tokens, one.blank, one.slot, one.valid)), one.names, range(runs)
    )
    rows, counts = np.unique(mdsample.Sampler(policy).run(toy, many).state.tokens, axis=0, return_counts=True)
    shown = {tuple(row): n / runs for row, n in zip(rows.tolist(), counts.tolist(), strict=True)}
    assert sum(abs(p - shown.get(row, 0.0)) for row, p in law.outcomes.items()) / 2 < 0.05


def test_a_model_that_keeps_the_credits_to_itself_is_told() -> None:
    class Forgetful(ScriptedDenoiser):
        def predict(self, query: Query) -> NumpyPrediction:
            return NumpyPrediction(self._scores(query.tokens, query), query.wanted, query.restriction, query.guide)

    canvas = mdsample.Template.parse("{text:4}").canvas(MODEL.tokenizer, [{}])
    with pytest.raises(ValueError, match="must be given the credits of its query; pass them on"):
        mdsample.Sampler(mdsample.parse("credit")).run(Forgetful(Symbols(6)), canvas)


# --- on devices

Look = Callable[..., Any]
BLOCK = 512


def torch_look(scores: Any, wanted: Any, restriction: Restriction, guide: Any, credits: Any) -> Any:
    import torch
    from mdsample_torch.prediction import TorchPrediction

    table, size = torch.from_numpy(scores), scores.shape[1]

    def logits(places: Any, out: Any) -> None:
        out[:, :size] = table[places]
        out[:, size:] = 1e9  # what lies beyond the vocabulary is never seen

    width = -(-size // BLOCK) * BLOCK
    return TorchPrediction(logits, size, width, wanted, restriction, guide, torch.device("cpu"), credits=credits)


def mlx_look(scores: Any, wanted: Any, restriction: Restriction, guide: Any, credits: Any) -> Any:
    import mlx.core as mx
    from mdsample_mlx.prediction import MlxPrediction

    padded, where = mx.array(np.pad(scores, ((0, 0), (0, -scores.shape[1] % BLOCK)), constant_values=1e9)), mx.cpu
    width = padded.shape[1]
    return MlxPrediction(lambda at: padded[at], width, wanted, restriction, guide, mx.Device(where), credits=credits)


@st.composite
def questions(draw: st.DrawFn) -> tuple[Any, Any, Restriction, Credit, Credits]:
    """Two rows, some of whose positions earn; perhaps a slot that holds a language."""
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    size, columns = draw(st.sampled_from([9, 40, BLOCK + 7])), draw(st.integers(0, 3))
    wanted = rng.random((2, 9)) < 0.8
    wanted[0, :3] = True
    scores = rng.normal(size=(int(wanted.sum()), size)).astype(np.float32) * 3
    sets = np.ones((2, size), np.bool_)
    sets[1, ::2] = False
    spans: list[Span] = []
    if draw(st.booleans()):
        spans.append(Span(0, np.arange(3, dtype=np.int32), np.full(3, -1, np.int32), random_language(rng, size, 3)))
    index = np.zeros(wanted.shape, np.int32)
    index[1] = rng.integers(0, 2, 9)
    token = np.argsort(rng.random((2, 9, size)), 2)[:, :, :columns].astype(np.int32)
    token[np.arange(columns) >= rng.integers(0, columns + 1, (2, 9, 1))] = -1
    amount = np.where(token >= 0, rng.random(token.shape) * 4, 0).astype(np.float32)
    credits = Credits(wanted & (rng.random(wanted.shape) < 0.8), token, amount)
    return scores, wanted, Restriction(sets, index, tuple(spans)), draw(CREDITS), credits


@pytest.mark.parametrize("small", [False, True], ids=["at once", "in chunks"])
@pytest.mark.parametrize("look", [on("torch", torch_look), on("mlx", mlx_look)])
@settings(max_examples=8, deadline=None)
@given(question=questions(), seed=st.integers(0, 99))
def test_devices_agree_with_the_reference(look: Look, small: bool, question: Any, seed: int) -> None:
    scores, wanted, restriction, guide, credits = question
    expected = NumpyPrediction(scores.astype(np.float64), wanted, restriction, guide, credits=credits)
    with pytest.MonkeyPatch.context() as patched:
        if small:
            module = "mdsample_torch.prediction" if look is torch_look else "mdsample_mlx.prediction"
            patched.setattr(f"{module}.READ_TWICE_CHUNKS", 0)
            patched.setattr(f"{module}.CHUNK_BYTES", 3 * 4 * BLOCK)
        found = look(scores, wanted, restriction, guide, credits)
        for name in ("log_probability", "second", "entropy"):
            ours, theirs = getattr(found.marginals, name), getattr(expected.marginals, name)
            np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=5e-5, err_msg=name)
        ours, theirs = found.credits, expected.credits
        np.testing.assert_array_equal(ours.token, theirs.token)
        np.testing.assert_allclose(ours.amount, theirs.amount, rtol=1e-5)
        rng = np.random.default_rng(seed)
        rows, positions = (index.astype(np.int32) for index in np.nonzero(wanted))
        tokens = rng.integers(0, scores.shape[1], len(rows)).astype(np.int32)
        stated = [x.log_probabilities(rows, positions, tokens) for x in (found, expected)]
        np.testing.assert_allclose(np.maximum(stated[0], -500), np.maximum(stated[1], -500), rtol=2e-5, atol=5e-5)
        drawn = [x.draw(rows, positions, np.full(len(rows), 0.5), mdsample.Temperature(0.9)) for x in (found, expected)]
        assert (drawn[0][0] == drawn[1][0]).mean() > 0.8
        theirs = NumpyPrediction(scores.astype(np.float64), wanted, restriction, NoGuide())
        pairs = (found, look(scores, wanted, restriction, NoGuide(), None)), (expected, theirs)
        kl = [now.divergence(rows, positions, plain, rows) for now, plain in pairs]
        np.testing.assert_allclose(kl[0], kl[1], rtol=1e-3, atol=1e-4)


# --- blocks from the row's beginning


@settings(max_examples=10)
@given(st.integers(1, 9), canvases(), denoisers())
def test_row_blocks_are_counted_from_the_beginning(size: int, canvas: Canvas, model: ScriptedDenoiser) -> None:
    result = testing.run(mdsample.RowBlocks(size) + mdsample.Confidence() + mdsample.Top(1), model, canvas)
    for row in result.rows:
        blocks = [commit.position // size for commit in row.commits]
        assert blocks == sorted(blocks)
    assert all(mdsample.RowBlocks(fit).misfit(2 * size) == "" for fit in (size, 2 * size, 4 * size))
    assert "does not fit" in mdsample.RowBlocks(2 * size + 1).misfit(2 * size)
