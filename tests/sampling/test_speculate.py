"""Speculation changes how many passes follow one another, and nothing else."""

from __future__ import annotations

from typing import ClassVar

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mdsample
from mdsample import testing
from mdsample.backend.kv_plan import CachePlanner
from mdsample.core.arrays import Bools
from mdsample.core.canvas import Canvas
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.errors import PolicyError
from mdsample.models.cache import Dual, Exact
from mdsample.models.denoiser import Query
from mdsample.policy.base import Part, Policy
from mdsample.policy.presets import PRESETS
from mdsample.policy.view import Batch
from mdsample.policy.window import Window
from mdsample.sampling.observe import answered
from mdsample.sampling.sampler import Sampler, steps
from mdsample.sampling.speculate import Speculation, as_speculation, read_speculation
from mdsample.testing import ScriptedDenoiser
from mdsample.testing.promises import speculation_changes_nothing
from mdsample.testing.worlds import LETTERS, TEXTS, canvases, denoisers

SYMBOLS = testing.Symbols(LETTERS)
MODEL = ScriptedDenoiser(SYMBOLS)
CANVAS = mdsample.Template.parse("a{reasoning:9}b{answer:3}").canvas(SYMBOLS, [{}, {}])
POLICIES = testing.policies(("answer",), vocab=LETTERS, texts=TEXTS)
SHAPES = st.sampled_from([1, "3", "4x2", "2x4"])


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(POLICIES, denoisers(), canvases(), st.integers(0, 3), SHAPES, st.sampled_from([None, 2]))
def test_a_speculated_run_is_the_same_run(
    policy: Policy, model: ScriptedDenoiser, canvas: Canvas, seed: int, shape: int | str, size: int | None
) -> None:
    speculation_changes_nothing(policy, model, canvas, seed, shape, size)


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("draw", [mdsample.Greedy(), mdsample.Temperature(1.0)])
def test_every_preset_is_the_same_run(name: str, draw: Part) -> None:
    # p2 takes nearly as many passes as it has steps, however few blanks there are
    policy = mdsample.parse({"p2": "p2(steps=16)"}.get(name, name)).replace(draw)
    speculation_changes_nothing(policy, MODEL, CANVAS, 0, "3x2")


def test_an_approximate_cache_is_refused_before_a_pass() -> None:
    model = ScriptedDenoiser(SYMBOLS, cache=Dual())
    with pytest.raises(PolicyError, match="approximate"):
        Sampler("med").run(model, CANVAS, speculate=2)


def test_guesses_are_right_where_the_text_changes_nothing() -> None:
    model = ScriptedDenoiser(SYMBOLS, sharpness=0.0)
    for row in Sampler("whole+left-to-right+top(1)+temperature(1)").run(model, CANVAS, speculate=4).rows:
        # the first pass has nothing to guess from; each later one takes a step and its four guesses
        assert (row.steps, row.rounds) == (12, 1 + -(-11 // 5))
        assert row.nfe >= row.steps


@attrs.frozen
class Widening(Window):
    """On offer are two blanks more in every step, so what is asked of a text depends on how a row came to it."""

    name: ClassVar[str] = "widening"

    def eligible(self, batch: Batch) -> Bools:
        """The first blanks."""
        return batch.blank & (batch.open_index < 2 * (batch.step[:, None] + 1))


def test_a_window_that_depends_on_steps_is_the_same_run() -> None:
    policy = Policy.of(Widening(), mdsample.parse("eb").at("selection")[0])
    for seed in range(4):
        speculation_changes_nothing(policy, ScriptedDenoiser(SYMBOLS, seed), CANVAS, 0, "4x4")


def test_the_inputs_of_a_query_are_those_that_its_text_decides() -> None:
    # a further field must be a function of the text too, or of what guesses are named by: noise and tuning of the step;
    # a model with a memory is refused, and under a guide with credits nothing is guessed
    names = [field.name for field in attrs.fields(Query)]
    of_text = ["tokens", "valid", "wanted", "fixed", "restriction", "guide", "rows", "tuning"]
    assert names == [*of_text, "memory", "remember", "credits"]
    assert [field.name for field in attrs.fields(Restriction)] == ["sets", "index", "spans"]


@pytest.mark.parametrize("text", ["", "0", "8x", "x2", "8x0", "-1", "8y", "1.5", "1024x2"])
def test_what_is_no_speculation(text: str) -> None:
    with pytest.raises(ValueError, match=r"speculat|guesses"):
        read_speculation(text)


@pytest.mark.parametrize("how", [Speculation(8), Speculation(4, 2)])
def test_text_round_trip(how: Speculation) -> None:
    assert as_speculation(str(how)) == how


def test_guesses_take_up_what_any_text_of_their_row_left() -> None:
    planner = CachePlanner(Exact(), 2)
    valid, wanted = np.ones((2, 6), np.bool_), np.arange(6)[None] // 2 == np.array([[1], [2]])
    tokens = np.array([[1, 2, 9, 9, 9, 9], [1, 2, 3, 4, 9, 9]], np.int32)
    keys = Rows([(0, 1), (0, 1)], np.array([0, 1], np.int32))
    planner.commit(planner.plan(keys, tokens, valid, wanted))
    later = np.array([[1, 2, 3, 4, 5, 9]], np.int32)
    plan = planner.plan(Rows([(0, 1)], np.array([2], np.int32)), later, valid[:1], wanted[1:])
    assert plan.source.tolist() == [1]
    assert np.flatnonzero(plan.active[0]).tolist() == [4, 5]


@pytest.mark.parametrize(
    "policy",
    [
        "whole+lookahead(3)",
        "whole+lookahead(3)+temperature(1)",
        "lookahead(2)+entropy-bound",
        # what takes tokens back looks at written ones, of which a trial told nothing
        "whole+lookahead(3)+below-confidence(0.9)",
        "lookahead(3)+p2-reveal(0.5,steps=12)+p2-remask(0.5,steps=12)",
    ],
)
@pytest.mark.parametrize("size", [None, 1])
def test_what_was_tried_out_is_not_asked_again(policy: str, size: int | None) -> None:
    rows = speculation_changes_nothing(mdsample.parse(policy), MODEL, CANVAS, 0, 1, size).rows
    plain = Sampler(policy).run(MODEL, CANVAS).rows
    for row, other in zip(rows, plain, strict=True):
        assert row.rounds - other.rounds == row.nfe - other.nfe <= 0
    if policy == "whole+lookahead(3)":
        # the best of what was tried is written, so only the first step has to look
        assert all(row.rounds == row.steps for row in rows)


@pytest.mark.parametrize("draw", ["greedy", "temperature(1)"])
def test_slots_with_a_language_are_guessed(draw: str) -> None:
    model = ScriptedDenoiser(SYMBOLS, sharpness=0.0)
    policy = mdsample.parse(f"whole+left-to-right+top(1)+regex('(a|b|c|d)+',slot='reasoning')+{draw}")
    for row in speculation_changes_nothing(policy, model, CANVAS, 0, "4").rows:
        assert (row.steps, row.rounds) == (12, 1 + -(-11 // 5))


def test_a_tree_finds_what_a_chain_misses() -> None:
    rounds = {
        shape: sum(
            speculation_changes_nothing(
                mdsample.parse("whole+eb"), ScriptedDenoiser(SYMBOLS, seed, 2.0), CANVAS, 0, shape
            ).rows[0].rounds
            for seed in range(6)
        )
        for shape in ("2", "2x16")
    }  # fmt: skip
    assert rounds["2x16"] < rounds["2"]


@pytest.mark.parametrize("text", ["1", "8", "4x2"])
def test_a_speculation_is_written_as_it_is_read(text: str) -> None:
    assert str(as_speculation(text)) == text


def test_of_rows_that_have_left_nothing_is_kept() -> None:
    canvas = mdsample.Template.parse("a{reasoning:9}b{answer:3}").canvas(SYMBOLS, [{}, {}], given=[{}, {"answer": "b"}])
    sampler = Sampler("one-by-one")
    plan = sampler.plan(MODEL, canvas)
    speculator, state = sampler.speculator(plan, canvas, 2), sampler.start(MODEL, canvas, plan)
    assert speculator is not None
    while not state.done:
        rows = np.flatnonzero(state.active).astype(np.int32)
        for after, _ in answered(steps(plan, state, rows, speculator), MODEL):
            state = after
        kept = {*speculator._last, *speculator._known}
        assert kept <= {*np.flatnonzero(state.active).tolist()}
