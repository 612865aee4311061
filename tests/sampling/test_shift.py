"""Shifts: looks compared with the look before, in any company, after a refill, a resume and a move to another model."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mdsample
from mdsample import testing
from mdsample.sampling.engine import fill
from mdsample.sampling.observe import answered, observe
from mdsample.sampling.prepared import Prepared
from mdsample.testing import ScriptedDenoiser, Symbols

SYMBOLS = Symbols(6)
CANVAS = mdsample.Template.parse("{reasoning:8}{answer:3}").canvas(SYMBOLS, [{}] * 4)
POLICY = mdsample.parse("confidence+stable(0.2,shift=0.4)+temperature(1)")
toys = st.builds(ScriptedDenoiser, st.just(SYMBOLS), st.integers(0, 99), st.sampled_from([0.3, 1.0, 3.0]))


class Listening(ScriptedDenoiser):
    """Keeps count of its looks."""

    def predict(self, query: Any) -> Any:
        found = super().predict(query)
        LOOKS.append(weakref.ref(found))
        return found


LOOKS: list[weakref.ref[Any]] = []


def sets_of(row: mdsample.Row) -> list[set[int]]:
    return [{c.position for c in row.commits if c.step == step} for step in range(row.steps)]


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(toys, st.floats(0.05, 0.9), st.floats(0.01, 2), st.integers(1, 3))
def test_what_stands_still_is_committed_and_else_one(
    toy: ScriptedDenoiser, probability: float, shift: float, looks: int
) -> None:
    policy = mdsample.Whole() + mdsample.Confidence() + mdsample.Stable(probability, shift=shift, looks=looks)
    sampler = mdsample.Sampler(policy)
    plan = sampler.plan(toy, CANVAS)
    states = [sampler.start(toy, CANVAS, plan), *(state for state, _ in sampler.steps(toy, CANVAS))]
    every = np.arange(len(CANVAS), dtype=np.int32)
    # laws [B, L, V] of every state, from looks that know of no others
    laws, tops = [], []
    for state in states[:-1]:
        alone = observe(attrs.evolve(plan, evidence=()), state.batch(every, 1, SYMBOLS), every, [{}] * len(every))
        seen = answered(alone, toy)
        view, prediction = seen.view, seen.prediction
        table = np.zeros((*view.eligible.shape, toy.vocab_size))
        rows, positions = (x.astype(np.int32) for x in np.nonzero(view.eligible))
        table[rows, positions] = prediction.probabilities(rows, positions, mdsample.Temperature())  # type: ignore[attr-defined]
        laws.append(table)
        tops.append(view.marginals.confidence)
    for i, row in enumerate(mdsample.Sampler(policy).run(toy, CANVAS).rows):
        for step, chosen in enumerate(sets_of(row)):
            blank = states[step].blank[i]
            still = blank & (step >= looks)
            for k in range(looks if step >= looks else 0):
                now, before = laws[step - k][i], laws[step - k - 1][i]
                ratio = np.where(now > 0, now, 1) / np.where(now > 0, before, 1)
                still &= (now * np.log(ratio)).sum(1).astype(np.float32) < shift
            ready = set(np.flatnonzero(still & (tops[step][i] >= probability)).tolist())
            assert chosen == ready or (not ready and chosen == {int(np.where(blank, tops[step][i], -1).argmax())})


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(toys, st.sampled_from(["whole", "blocks(3)", "blocks(4)+early-exit(3)"]), st.integers(1, 3))
def test_a_run_goes_on_from_any_state_at_the_same_price(toy: ScriptedDenoiser, rest: str, looks: int) -> None:
    policy = mdsample.parse(f"random+stable(0.15,shift=0.7,looks={looks})+temperature(1)+{rest}")
    result = testing.run(policy, toy, CANVAS)
    sampler = mdsample.Sampler(policy)
    for state in mdsample.Trace.of(result).states():
        moved = toy
        while not state.done:
            moved = copy.copy(moved)  # another model in every step: its looks cannot be compared with the others'
            state, _ = sampler.step(moved, state)
        assert (state.tokens == result.state.tokens).all() and (state.nfe == result.state.nfe).all()


def test_a_resumed_run_looks_again_once() -> None:
    toy = Listening(SYMBOLS, 3, 1.0)
    sampler = mdsample.Sampler(POLICY)
    state = list(sampler.steps(toy, CANVAS))[3][0]
    plan = sampler.plan(toy, CANVAS)
    LOOKS.clear()
    state, _ = sampler.step(toy, state, plan)
    assert len(LOOKS) == 2 + 1
    sampler.step(toy, state, plan)
    assert len(LOOKS) == 4


def test_rows_of_different_age_share_a_pass() -> None:
    toy = ScriptedDenoiser(SYMBOLS, 5, 1.0)
    lengths = (9, 2, 7, 3, 11, 5, 1, 8)
    rows = [Prepared(i, [SYMBOLS.mask_id] * n, [0] * n, [True] * n) for i, n in enumerate(lengths)]
    found = {row.id: row for row in fill(mdsample.Sampler(POLICY), toy, ("text",), rows, batch_size=3)}
    for row in rows:
        (alone,) = fill(mdsample.Sampler(POLICY), toy, ("text",), [row])
        assert found[row.id].tokens.tolist() == alone.tokens.tolist()
        assert sets_of(found[row.id]) == sets_of(alone)


@pytest.mark.slow
def test_looks_of_rows_that_left_are_let_go() -> None:
    toy = Listening(SYMBOLS, 5, 1.0)
    LOOKS.clear()
    sampler = mdsample.Sampler(POLICY)
    plan, state = sampler.plan(toy, CANVAS), sampler.start(toy, CANVAS)
    while not state.done:
        state, _ = sampler.step(toy, state, plan)
        gc.collect()
        assert sum(ref() is not None for ref in LOOKS) == (not state.done)
        assert set(plan.kept) == set(np.flatnonzero(state.active).tolist())


def test_others_keep_nothing() -> None:
    toy = ScriptedDenoiser(SYMBOLS, 5, 1.0)
    sampler = mdsample.Sampler(mdsample.med())
    plan = sampler.plan(toy, CANVAS)
    sampler.step(toy, sampler.start(toy, CANVAS, plan), plan)
    assert not plan.kept


def test_runs_of_one_plan_do_not_mix_their_predictions() -> None:
    toy = ScriptedDenoiser(SYMBOLS, 3, 1.0)
    sampler, other = mdsample.Sampler(POLICY), mdsample.Sampler(POLICY, seed=9)
    plan = sampler.plan(toy, CANVAS)
    mixed, apart = sampler.start(toy, CANVAS, plan), sampler.start(toy, CANVAS)
    strange = other.start(toy, CANVAS)
    while not mixed.done:
        if not strange.done:  # another run leaves what it saw in the plan
            strange, _ = sampler.step(toy, strange, plan)
            strange, _ = other.step(toy, strange) if not strange.done else (strange, None)
        mixed, _ = sampler.step(toy, mixed, plan)
        apart, _ = sampler.step(toy, apart)
        assert (mixed.tokens == apart.tokens).all()


def test_klass_is_the_sum_of_its_parts() -> None:
    assert str(mdsample.parse("klass")) == "blocks(64)+confidence+stable"
    assert str(mdsample.parse("klass(0.6,shift=0.015)")) == "blocks(64)+confidence+stable(0.6,shift=0.015)"
    with pytest.raises(mdsample.SpecError, match="shift"):
        mdsample.parse("klass(shift=0)")
