"""The loop's promises as functions that raise `AssertionError`: for any policy, denoiser and canvas, yours included."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args, get_origin, get_type_hints

import numpy as np

from mdsample.core.canvas import Canvas
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Policy
from mdsample.policy.complete import CompletePolicy, complete
from mdsample.policy.holding import Holding
from mdsample.sampling.life import final
from mdsample.sampling.result import Result, bounded
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.speculate import Speculation
from mdsample.sampling.state import State
from mdsample.sampling.trace import Trace


def run(policy: Policy, denoiser: Denoiser, canvas: Canvas, seed: int = 0) -> Result:
    """A run with its steps counted; asserts that it ends in time and that every state obeys the rules on the way."""
    sampler = Sampler(policy, seed=seed)
    plan = sampler.plan(denoiser, canvas)
    state = sampler.start(denoiser, canvas, plan)
    _lawful(state, denoiser)
    most = _most_steps(plan.policy, int(canvas.blank.sum(1).max(initial=0)))
    for _ in range(most):
        if state.done:
            break
        before = state
        state, event = sampler.step(denoiser, state, plan)
        _lawful(state, denoiser)
        _only_grows(plan.policy, before, state)
        kept = np.setdiff1d(event.rows, event.left)
        if not isinstance(plan.policy.revise, Holding):
            assert set(kept.tolist()) <= set(event.row.tolist()), "a row that stays must have a commit in every step"
        assert not before.active[~np.isin(np.arange(len(canvas)), event.rows)].any(), "an active row was left out"
    assert state.done, f"the run did not end within {most} steps"
    return sampler.result(denoiser, state)


def _most_steps(policy: CompletePolicy, blanks: int) -> int:
    """The most steps of a row."""
    match policy.revise:
        case Holding() as part:
            # nobody says where windows end: whether one for each blank or one for all takes longer
            alone, together = (int(part.most(np.array([size], np.int32))[0]) for size in (1, blanks))
            return max(blanks * alone, together)
        case part:
            return blanks + part.budget


def _only_grows(policy: CompletePolicy, before: State, after: State) -> None:
    was = final(policy, before)
    assert (final(policy, after) | ~was).all(), "what was final is no longer"
    assert (before.tokens == after.tokens)[was].all(), "what was final has changed"
    assert not (after.held & (after.blank | ~after.canvas.blank | ~after.active[:, None])).any(), "nothing to be held"


def _lawful(state: State, denoiser: Denoiser) -> None:
    canvas, mask_id = state.canvas, denoiser.tokenizer.mask_id
    fixed = ~canvas.blank
    assert (state.tokens[fixed] == canvas.tokens[fixed]).all(), "fixed text was changed"
    assert not (state.blank & fixed).any(), "fixed text became blank"
    assert (state.tokens[state.blank] == mask_id).all(), "a blank must hold the mask token"
    written = state.tokens[canvas.blank & ~state.blank]
    assert (written != mask_id).all(), "the mask token was written"
    assert (written < denoiser.tokenizer.size).all(), "a token beyond the vocabulary was written"
    for value in (state, *state.events[-1:]):
        for name, dtype in _dtypes(type(value)):
            assert getattr(value, name).dtype == dtype, f"{name} must have the dtype {np.dtype(dtype)}"


@cache
def _dtypes(record: type) -> list[tuple[str, type]]:
    """The array fields of a class and the dtypes that their annotations say."""
    hints = get_type_hints(record).items()
    return [(name, get_args(get_args(hint)[1])[0]) for name, hint in hints if get_origin(hint) is np.ndarray]


def keeps_its_promises(policy: Policy, denoiser: Denoiser, canvas: Canvas, seed: int = 0) -> Result:
    """Asserts all that is promised of any policy on any denoiser: the run ends, adds up, replays, repeats."""
    result = run(policy, denoiser, canvas, seed)
    whole = complete(policy)
    further = sum(evidence.passes for part in whole.parts for evidence in part.needs)
    known = bounded(whole, denoiser.noise, canvas.slot, canvas.blank, canvas.names)
    for i, row in enumerate(result.rows):
        again, instead = int(result.state.remasked[i]), int(result.state.rewritten[i])
        assert row.filled == len(row.commits) - again - instead
        assert (row.error_bound == math.inf) == (again + instead > 0 or not known[i])
        assert row.filled + row.unfilled == canvas.blank[i].sum()
        assert row.error_bound >= 0 and row.tv_bound >= 0 and 0 <= row.certain <= 1
        # no step costs more than Pinsker's inequality says
        pinsker = math.sqrt(row.steps * row.error_bound / 2) + 1e-6
        assert row.tv_bound == math.inf if row.error_bound == math.inf else row.tv_bound <= pinsker
        least = row.steps * whole.guide.passes
        assert least <= row.nfe <= least * (1 + further), "a step costs what was paid, and no more than was announced"
    a_trace_replays(result, denoiser)
    rows_are_independent(policy, denoiser, canvas, seed)
    again = run(policy, denoiser, canvas, seed)
    for i in range(len(canvas)):
        same_row(result, i, again, i)
    return result


def same_row(one: Result, i: int, other: Result, j: int) -> None:
    """Asserts that two rows of two results agree: tokens, outcome, cost, commits."""
    a, b = one.rows[i], other.rows[j]
    assert a.tokens.tolist() == b.tokens.tolist()
    assert (a.nfe, a.steps, a.outcome, a.filled, a.unfilled) == (b.nfe, b.steps, b.outcome, b.filled, b.unfilled)
    assert [(c.step, c.position, c.token, c.by_rule) for c in a.commits] == [
        (c.step, c.position, c.token, c.by_rule) for c in b.commits
    ]
    numbers = [[(c.probability, c.entropy) for c in row.commits] for row in (a, b)]
    np.testing.assert_allclose(*(np.array(n).reshape(-1, 2) for n in numbers), rtol=0, atol=1e-4)
    np.testing.assert_allclose([a.error_bound, a.tv_bound], [b.error_bound, b.tv_bound], rtol=0, atol=1e-3)


def speculation_changes_nothing(
    policy: Policy,
    denoiser: Denoiser,
    canvas: Canvas,
    seed: int = 0,
    speculate: Speculation | int | str = 4,
    batch_size: int | None = None,
) -> Result:
    """Asserts that guessing changes passes and nothing else: steps, commits, outcomes, prices, bounds of every row.

    Which rows share an event is a matter of schedule. Returns the speculated run.
    """
    sampler = Sampler(policy, seed=seed)
    plain = sampler.run(denoiser, canvas)
    guessed = sampler.run(denoiser, canvas, batch_size=batch_size, speculate=speculate)
    told = "tokens", "blank", "held", "written", "step", "nfe", "active", "opened", "idle", "remasked", "rewritten"
    for name in told:
        np.testing.assert_array_equal(getattr(guessed.state, name), getattr(plain.state, name), name)
    for name in ("probability", "error_bound", "tv_sum"):
        np.testing.assert_allclose(getattr(guessed.state, name), getattr(plain.state, name), 0, 1e-3, err_msg=name)
    for i in range(len(canvas)):
        for one, other in zip(_events(plain, i), _events(guessed, i), strict=True):
            for name, values in one.items():
                np.testing.assert_allclose(other[name], values, 0, 1e-4, err_msg=name)
        row, other = guessed.rows[i], plain.rows[i]
        assert row.outcome == other.outcome
        assert row.rounds <= other.rounds
        # what was tried out need not be asked again, so only then there are fewer passes
        assert row.nfe >= other.nfe or row.nfe > row.steps, "a guess is a pass more, and saves one at most"
    np.testing.assert_array_equal(Trace.of(guessed).replay().tokens, plain.state.tokens)
    return guessed


def _events(result: Result, row: int) -> list[dict[str, np.ndarray]]:
    """What each step did to one row."""
    steps: list[dict[str, np.ndarray]] = []
    for event in result.state.events:
        mine, again = event.row == row, event.remasked_row == row
        columns = ("position", "token", "by_rule", "probability", "entropy", "confidence")
        step = {name: getattr(event, name)[mine] for name in columns}
        step |= {"passes": event.passes[event.rows == row], "again": event.remasked_position[again]}
        step |= {"left": event.left[event.left == row]}
        if any(map(len, step.values())):
            steps.append(step)
    return steps


def rows_are_independent(policy: Policy, denoiser: Denoiser, canvas: Canvas, seed: int = 0) -> None:
    """Asserts that every row is the same in the batch, alone, and in the batch backwards."""
    together = run(policy, denoiser, canvas, seed)
    rows = list(range(len(canvas)))
    backwards = run(policy, denoiser, canvas.take(rows[::-1]), seed)
    for i in rows:
        same_row(together, i, backwards, len(rows) - 1 - i)
        same_row(together, i, run(policy, denoiser, canvas.take([i]), seed), 0)


def a_trace_replays(result: Result, denoiser: Denoiser) -> None:
    """Asserts that the saved trace replays to the same state, and that the run goes on from any of its states."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        Trace.of(result).save(path)
        trace = Trace.load(path)
    last = trace.replay()
    assert (last.tokens == result.state.tokens).all()
    assert (last.blank == result.state.blank).all()
    assert (last.rewritten == result.state.rewritten).all()
    assert (last.nfe == result.state.nfe).all()
    np.testing.assert_array_equal(last.error_bound, result.state.error_bound)
    np.testing.assert_array_equal(last.tv_sum, result.state.tv_sum)
    states = list(trace.states())
    middle = states[len(states) // 2]
    sampler = Sampler(result.policy, seed=result.seed)
    while not middle.done:
        middle, _ = sampler.step(denoiser, middle)
    assert (middle.tokens == result.state.tokens).all()
    assert (middle.nfe == result.state.nfe).all()
