"""What always holds (docs/architecture.md), on random sums of every part, random templates, random toy models."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mdsample
from mdsample import testing
from mdsample.core.canvas import Canvas
from mdsample.policy.base import Policy
from mdsample.policy.catalog import PARTS
from mdsample.policy.complete import complete
from mdsample.testing import ScriptedDenoiser, Symbols

LETTERS = 6
TEXTS = ("a", "ab", "cab", "fff")


@st.composite
def canvases(draw: st.DrawFn, rows: int = 3, even: bool = False) -> Canvas:
    """Rows of fixed text (literal mask and end tokens included) and two slots, ragged unless `even`."""
    symbols = Symbols(LETTERS)
    fixed = st.lists(st.integers(0, symbols.size - 1), max_size=4)
    count = draw(st.integers(1, rows))
    slot_lengths = [(draw(st.integers(1, 7)), draw(st.integers(3, 4)))] * count
    if not even:
        slot_lengths = [(draw(st.integers(1, 7)), length) for _, length in slot_lengths]
    tokens: list[list[int]] = []
    slots: list[list[int]] = []
    for long, short in slot_lengths:
        parts = (draw(fixed), [symbols.mask_id] * long, draw(fixed), [symbols.mask_id] * short, draw(fixed))
        tokens.append([t for part in parts for t in part])
        numbers = (-1, 0, -1, 1, -1)
        slots.append([n for n, part in zip(numbers, parts, strict=True) for _ in part])
    ids = draw(st.lists(st.integers(0, 99) | st.text(max_size=3), min_size=count, max_size=count, unique=True))
    return Canvas.of_rows(tokens, slots, ("reasoning", "answer"), symbols.mask_id, ids)


@st.composite
def models(draw: st.DrawFn) -> ScriptedDenoiser:
    """Toy models, from indifferent to nearly certain."""
    return ScriptedDenoiser(Symbols(LETTERS), draw(st.integers(0, 9)), draw(st.sampled_from([0.0, 1.0, 4.0, 30.0])))


POLICIES = testing.policies(("answer",), vocab=LETTERS, texts=TEXTS)


@pytest.mark.slow
@given(POLICIES, models(), canvases(), st.integers(0, 3))
def test_it_ends_and_keeps_fixed_text_and_replays(
    policy: Policy, model: ScriptedDenoiser, canvas: Canvas, seed: int
) -> None:
    result = testing.run(policy, model, canvas, seed)  # asserts progress, termination, fixed text, no mask
    testing.a_trace_replays(result, model)
    for row in result.rows:
        again = int(result.state.remasked[canvas.ids.index(row.id)])
        assert row.filled == len(row.commits) - again
        assert (row.error_bound == math.inf) == (again > 0)
        assert row.filled + row.unfilled == canvas.blank[canvas.ids.index(row.id)].sum()
        assert row.unfilled == 0 or row.outcome.name == "early-exit"
        assert row.error_bound >= 0 and 0 <= row.tv_bound <= 1
        whole = complete(policy)
        most = row.steps * whole.guide.passes * (1 + sum(evidence.passes for evidence in whole.order.needs))
        assert row.nfe == most or (whole.order.needs and row.steps * whole.guide.passes <= row.nfe < most)


@pytest.mark.slow
@given(POLICIES, models(), canvases(), st.integers(0, 3))
def test_rows_are_independent(policy: Policy, model: ScriptedDenoiser, canvas: Canvas, seed: int) -> None:
    testing.rows_are_independent(policy, model, canvas, seed)


@pytest.mark.slow
@given(POLICIES, models(), canvases(), st.integers(0, 3))
def test_the_same_seed_gives_the_same_run(policy: Policy, model: ScriptedDenoiser, canvas: Canvas, seed: int) -> None:
    one, two = (testing.run(policy, model, canvas, seed) for _ in range(2))
    for i in range(len(canvas)):
        testing.same_row(one, i, two, i)


@pytest.mark.slow
@given(st.data(), models())
def test_a_fixed_order_is_followed(data: st.DataObject, model: ScriptedDenoiser) -> None:
    canvas = data.draw(canvases(even=True))
    blanks = int(canvas.blank.sum(1)[0])
    order = data.draw(st.permutations(range(blanks)))
    policy = mdsample.Whole() + mdsample.Fixed(tuple(order)) + mdsample.Top(1)
    for i, row in enumerate(testing.run(policy, model, canvas).rows):
        places = np.flatnonzero(canvas.blank[i])
        assert [c.position for c in row.commits] == places[order].tolist()


@pytest.mark.slow
@given(POLICIES, models(), canvases())
def test_constraints_hold(policy: Policy, model: ScriptedDenoiser, canvas: Canvas) -> None:
    symbols = model.tokenizer
    result = testing.run(policy, model, canvas)
    for part in policy.at("constraint"):
        for i, row in enumerate(result.rows):
            here = canvas.blank[i, : len(row.tokens)] & (row.tokens != symbols.mask_id)
            by_model = here.copy()
            by_model[[c.position for c in row.commits if c.by_rule]] = False
            if isinstance(part, mdsample.Ban):
                assert not set(row.tokens[by_model].tolist()) & set(part.tokens)
            if isinstance(part, mdsample.Allow):
                here = by_model & (canvas.slot[i, : len(row.tokens)] == canvas.names.index(part.slot))
                assert set(row.tokens[here].tolist()) <= set(part.tokens)
            if isinstance(part, mdsample.Characters):
                spelled = row.tokens[by_model & (canvas.slot[i, : len(row.tokens)] == 1)]
                assert set(symbols.decode(spelled.tolist())) <= set(part.characters)
            if isinstance(part, mdsample.Choices) and not row.unfilled:
                assert row.slots["answer"] in part.texts


@pytest.mark.slow
@given(models(), canvases(), st.integers(1, 12), POLICIES)
def test_a_budget_is_a_budget(model: ScriptedDenoiser, canvas: Canvas, nfe: int, policy: Policy) -> None:
    rest = policy.without("stop")
    passes = mdsample.Sampler(policy).plan(model, canvas).passes
    for row in testing.run(rest + mdsample.Budget(nfe), model, canvas).rows:
        assert row.nfe <= max(nfe, passes)
        assert row.unfilled == 0


@pytest.mark.slow
@given(models(), canvases(), st.just(0.0) | st.floats(0.001, 20), POLICIES)
def test_an_error_budget_is_a_budget(model: ScriptedDenoiser, canvas: Canvas, total: float, policy: Policy) -> None:
    # stop rules spend on top, so only the one that never fills by itself is here
    rest = policy.without("stop") + Policy(stop for stop in policy.at("stop") if isinstance(stop, mdsample.Ended))
    match rest.at("revise"):
        case [mdsample.P2Remask(limit=limit)]:  # which has a selection of its own
            rest = rest.replace(mdsample.BelowConfidence(0.5, limit=limit))
        case _:
            pass
    result = testing.run(rest.replace(mdsample.ErrorBudget(total)), model, canvas)
    assert (result.state.error_bound <= total).all()
    for row, again in zip(result.rows, result.state.remasked.tolist(), strict=True):
        assert row.error_bound <= total or again


@pytest.mark.slow
@given(models(), canvases(), st.integers(1, 12), st.integers(2, 4))
def test_rounds_are_filled_one_a_step(model: ScriptedDenoiser, canvas: Canvas, size: int, base: int) -> None:
    policy = mdsample.Dilated(size, base=base) + mdsample.Steps(1)
    for i, row in enumerate(testing.run(policy, model, canvas).rows):
        left = list(enumerate(np.flatnonzero(canvas.blank[i]).tolist()))
        step = 0
        while left:
            block = [(n, p) for n, p in left if n // size == left[0][0] // size]
            strides = (max(1, size // base**t) for t in range(1, 9))
            now = next(filter(None, ([p for n, p in block if n % size % stride == 0] for stride in strides)))
            assert sorted(c.position for c in row.commits if c.step == step) == now
            left, step = [(n, p) for n, p in left if p not in now], step + 1


@pytest.mark.slow
@given(models(), canvases(), st.integers(1, 16), POLICIES)
def test_an_even_split_ends_in_time(model: ScriptedDenoiser, canvas: Canvas, n: int, policy: Policy) -> None:
    # tokens that are masked again need steps beyond the split
    rest = policy.without("stop", "revise").replace(mdsample.Steps(n))
    match complete(rest).window:
        case mdsample.Blocks(size=size):
            rounds = 1
        case mdsample.Dilated(size=size):
            rounds = size.bit_length()
        case _:
            size, rounds = 1 << 20, 1
    for i, row in enumerate(testing.run(rest, model, canvas).rows):
        blocks = -(-int(canvas.blank[i].sum()) // size)
        assert row.steps <= max(n, blocks * rounds)


@pytest.mark.slow
@given(models(), canvases(), POLICIES)
def test_after_an_end_token_a_slot_counts_as_filled(model: ScriptedDenoiser, canvas: Canvas, policy: Policy) -> None:
    # an end token that is masked again may leave behind what was filled on its account
    ended = policy.without("stop", "constraint", "revise") + mdsample.Ended()
    result = testing.run(ended, model, canvas)
    end = model.tokenizer.end_id
    for i, row in enumerate(result.rows):
        order = {c.position: n for n, c in enumerate(row.commits)}
        for number in range(2):
            places = np.flatnonzero(canvas.slot[i] == number)
            ends = [p for p in places if row.tokens[p] == end]
            for p in places:
                by_rule = row.commits[order[p]].by_rule
                assert not by_rule or (row.tokens[p] == end and ends[0] < p)


def example_settings() -> dict[str, tuple[Policy, dict[str, list[Any]]]]:
    """For every part with settings: a policy around it, and other values for each of its fields."""
    law = mdsample.Whole() + mdsample.Temperature(1.0)
    by_name: dict[str, tuple[Policy, dict[str, list[Any]]]] = {
        "blocks": (law, {"size": [1, 3]}),
        "dilated": (law, {"size": [4, 8], "base": [3]}),
        "confidence": (law, {"noise": [4.0]}),
        "margin": (law, {"noise": [4.0]}),
        "entropy": (law, {"noise": [4.0]}),
        "position-biased": (law, {"decay": [0.0, 4.0]}),
        "lookahead": (law, {"k": [2], "own": [0.0]}),
        "fixed": (law, {"permutation": [(0, 1, 2, 3, 4, 5, 6, 7), (7, 6, 5, 4, 3, 2, 1, 0)]}),
        "top": (law, {"k": [2, 5]}),
        "steps": (law, {"n": [2, 6]}),
        "below-entropy": (law, {"entropy": [0.1, 3.0], "k": [2]}),
        "entropy-bound": (law, {"bound": [0.0, 5.0], "k": [1]}),
        "error-budget": (law, {"total": [0.0, 20.0]}),
        "above-confidence": (law, {"probability": [0.1, 0.999]}),
        "cumulative-confidence": (law, {"probability": [0.01, 0.999]}),
        "factor": (law, {"factor": [0.01, 6.0]}),
        "frechet": (law, {"margin": [-9.0, 0.9]}),
        "linear-time": (law, {"steps": [1, 9]}),
        "stable": (law, {"probability": [0.999], "shift": [1e-9], "looks": [9]}),
        "remdm-reveal": (
            law + mdsample.Random() + mdsample.RemdmRemask("cap", eta=0.9, steps=12),
            {"kind": ["rescale", "conf", "loop"], "eta": [0.0, 0.9], "steps": [2, 30]},
        ),
        "remdm-remask": (
            law + mdsample.Random() + mdsample.RemdmReveal("cap", eta=0.5, steps=6),
            {"kind": ["rescale", "conf", "loop"], "eta": [0.0, 1.0], "steps": [2, 30], "limit": [1]},
        ),
        "below-confidence": (law + mdsample.Top(3), {"probability": [0.01, 1.0], "limit": [1]}),
        "p2-reveal": (law + mdsample.Confidence(), {"eta": [0.0, 9.0], "steps": [2, 30]}),
        "p2-remask": (law + mdsample.Confidence(), {"eta": [0.0, 9.0], "steps": [2, 30], "limit": [1]}),
        "temperature": (
            mdsample.Whole() + mdsample.Top(1),
            {"t": [9.0], "top_p": [0.05], "top_k": [1], "min_p": [0.99]},
        ),
        "early-exit": (law, {"entropy": [0.001, 50.0], "slot": ["reasoning"]}),
        "budget": (law, {"nfe": [1, 3]}),
        "ended": (law, {"token": ["a", "b"]}),
        "ban": (law, {"tokens": [(0, 1), (2, 3)]}),
        "allow": (law, {"tokens": [(0, 1), (2, 6)], "slot": ["reasoning"]}),
        "characters": (law, {"characters": ["ab", "c"], "slot": ["reasoning"]}),
        "choices": (law, {"texts": [("a",), ("bcd",)], "slot": ["reasoning"]}),
        "cfg": (law, {"scale": [0.0, 6.0]}),
    }
    return by_name


def start_of(name: str) -> dict[str, Any]:
    """Arguments for a part's required fields."""
    required: dict[str, dict[str, Any]] = {
        "fixed": {"permutation": (3, 1, 2, 0, 4, 6, 5, 7)},
        "budget": {"nfe": 6},
        "ban": {"tokens": (4,)},
        "allow": {"tokens": (2, 3, 4)},
        "characters": {"characters": "abc"},
        "choices": {"texts": ("abc", "fed")},
        "early-exit": {"entropy": 5.0},
        "below-entropy": {"entropy": 1.0},
        "entropy-bound": {"bound": 2.0},
        "error-budget": {"total": 4.0},
        "remdm-reveal": {"kind": "cap", "eta": 0.5, "steps": 12},
        "remdm-remask": {"kind": "cap", "eta": 0.5, "steps": 6, "limit": 20},
        "below-confidence": {"probability": 0.3},
        "p2-reveal": {"eta": 2.0, "steps": 6},
        "p2-remask": {"eta": 2.0, "steps": 6},
        "cumulative-confidence": {"probability": 0.3},
        "dilated": {"size": 6},
        "confidence": {"noise": 0.0},
        "steps": {"n": 4},
        "stable": {"probability": 0.01, "shift": 5.0},
    }
    return required.get(name, {})


@pytest.mark.parametrize("name", sorted(name for name, part in PARTS.items() if attrs.fields(part)))
def test_every_setting_matters(name: str) -> None:
    """Changing any field of any part changes some result, on one of a few toy models."""
    part = PARTS[name]
    around, others = example_settings()[name]
    assert set(others) == {field.name for field in attrs.fields(part)}, "every field needs a value to try"
    symbols = Symbols(LETTERS)
    slots = [-1, -1, 0, 0, 0, 0, 0, -1, 1, 1, 1]
    tokens = [0, 1, *[symbols.mask_id] * 5, 2, *[symbols.mask_id] * 3]
    canvas = Canvas.of_rows([tokens] * 4, [slots] * 4, ("reasoning", "answer"), symbols.mask_id)
    toys = [ScriptedDenoiser(symbols, seed, sharpness) for seed in (0, 1) for sharpness in (1.0, 4.0)]

    def results(value: mdsample.Part) -> list[Any]:
        whole = around.replace(value)
        if isinstance(value, mdsample.P2Remask):
            whole = whole.replace(mdsample.P2Reveal(value.eta, steps=value.steps))
        runs = [testing.run(whole, toy, canvas) for toy in toys]
        return [(row.tokens.tolist(), [c.step for c in row.commits]) for run in runs for row in run.rows]

    base = part(**start_of(name))
    before = results(base)
    for field, values in others.items():
        for value in values:
            assert results(attrs.evolve(base, **{field: value})) != before, f"{name}({field}={value!r}) changes nothing"


@pytest.mark.parametrize("seed", range(8))
def test_choices_stay_whole_when_filled_in_one_step(seed: int) -> None:
    symbols = Symbols(LETTERS)
    texts = ("abc", "bca", "cab", "ddd")
    canvas = mdsample.Template.parse("{answer:3}").canvas(symbols, [{}] * 8)
    policy = mdsample.Choices(texts) + mdsample.Top(3) + mdsample.Temperature(1.0)
    rows = testing.run(policy, ScriptedDenoiser(symbols, sharpness=0.5), canvas, seed).rows
    assert all(row.nfe == 1 and row.slots["answer"] in texts for row in rows)
    assert len({row.slots["answer"] for row in rows}) > 1
