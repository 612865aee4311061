"""Guesses: the texts that rows may have after their next steps, if the model kept saying what it said last.

A guess takes the policy's own steps, from the last prediction; beside them it takes steps that the policy nearly took
(`Way`). Nothing hangs on a guess being right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Indices, Ints
from mdsample.models.denoiser import Prediction, Query
from mdsample.policy.guide import Tuned
from mdsample.sampling.observe import Asking, Kept, Observation, observe
from mdsample.sampling.picked import Picked
from mdsample.sampling.plan import Plan
from mdsample.sampling.shared import rows_of
from mdsample.sampling.state import Event, State

#: how a guessed step departs from the policy's: how many more of the ranking go, and whether the last of them gives
#: its place to the next
Way = tuple[int, bool]


def ways(width: int) -> list[Way]:
    """The policy's own step, then those that it nearly took."""
    return [(0, False), (0, True), *((longer, False) for longer in range(1, width))]


@attrs.frozen(eq=False)
class Step:
    """How a step is taken: `advance` and `alternatives` of `mdsample.sampling.sampler`."""

    advance: Callable[[Plan, State, Ints], Asking[tuple[State, Event]]]
    alternatives: Callable[[Plan, State, Observation, Sequence[Way]], tuple[Indices, State]]


@attrs.frozen(eq=False)
class Said:
    """What the model says of one text of a row."""

    prediction: Prediction
    #: the row in the prediction
    line: int
    #: where it was asked, over the row
    wanted: Bools


@attrs.frozen(eq=False)
class Guess:
    """What the model is to be asked: T texts."""

    #: the row of the plan that each is a text of, `[T]`, and its name among that row's texts
    of: Ints
    names: Sequence[bytes]
    query: Query


@attrs.frozen(eq=False)
class _Lines:
    """T texts, from which further ones are guessed."""

    plan: Plan
    state: State
    of: Ints
    #: what evidence kept at their last steps
    before: Sequence[Kept]

    def take(self, lines: Indices) -> _Lines:
        """Some of them, in any number."""
        before = [self.before[int(line)] for line in lines]
        return _Lines(self.plan.take(lines), self.state.take(lines), self.of[lines], before)

    def observed(self) -> Asking[Observation]:
        """What their steps would see."""
        plan, everything = self.plan, np.arange(len(self.of), dtype=np.int32)
        return observe(plan, plan.batch(self.state, everything), everything, self.before)


def name(plan: Plan, state: State, row: int) -> bytes:
    """Names a row's text among all that it may have, with the step wherever what the model says of it hangs on that."""
    text = state.tokens[row, state.canvas.valid[row]].tobytes()
    if plan.denoiser.noise == "mask" and not isinstance(plan.policy.guide, Tuned):
        return text
    return text + state.step[row].tobytes() + state.opened[row].tobytes()


def guesses(plan: Plan, state: State, last: Mapping[int, Said], shape: tuple[int, int], step: Step) -> list[Guess]:
    """Texts of the rows of `last`, which has what their last steps were told.

    `shape`: how many steps are guessed, and how many texts at most of each row in each.
    """
    depth, width = shape
    rows = np.array(list(last), np.int32)
    before: list[Kept] = [plan.kept[row][1] if row in plan.kept else {} for row in last]
    lines = _Lines(plan.take(rows), state.take(rows), rows, before)
    known = {(row, name(plan, state, row)) for row in last}
    made: list[Guess] = []
    for _ in range(depth if last else 0):
        grown = _grown(lines, last, known, width, step)
        if grown is None:
            break
        lines, new = grown
        if new.any():
            names = [name(plan, lines.state, line) for line in np.flatnonzero(new).tolist()]
            made.append(Guess(lines.of[new], names, rows_of(next(lines.observed()), new)))
    return made


def _grown(
    lines: _Lines, last: Mapping[int, Said], known: set[tuple[int, bytes]], width: int, step: Step
) -> tuple[_Lines, Bools] | None:
    """The texts one step on, at most `width` of a row, and which were not `known`; `None` if there are none."""
    query = next(lines.observed())
    told = np.stack([_padded(last[row].wanted, query.wanted.shape[1]) for row in lines.of.tolist()]) & query.wanted
    # evidence asks wherever it wants to, ranks and draws do not
    enough = (told == query.wanted).all(1) if lines.plan.evidence else told.any(1)
    if not enough.any():
        return None
    if not enough.all():
        return _grown(lines.take(np.flatnonzero(enough)), last, known, width, step)
    said = [last[row] for row in lines.of.tolist()]
    stale = Picked([what.prediction for what in said], [what.line for what in said], told)
    asking = lines.observed()
    next(asking)
    try:
        asking.send(stale)
    except StopIteration as end:
        seen: Observation = end.value
    else:
        return None
    different = ways(width)
    parent, after = step.alternatives(lines.plan, lines.state, seen, different)
    new = np.zeros(len(parent), np.bool_)
    count: dict[int, int] = {}
    chosen: list[int] = []
    # the policy's own steps first
    for line in sorted(range(len(parent)), key=lambda line: line % len(different)):
        row = int(lines.of[parent[line]])
        text = (row, name(lines.plan, after, line))
        new[line] = text not in known
        own = line % len(different) == 0
        moved = text[1] != name(lines.plan, lines.state, int(parent[line]))
        if after.active[line] and moved and (own or new[line]) and count.get(row, 0) < width:
            known.add(text)
            count[row] = count.get(row, 0) + 1
            chosen.append(line)
    if not chosen:
        return None
    kept = [seen.kept[int(line)] for line in parent[chosen]]
    grown = _Lines(lines.plan.take(parent[chosen]), after.take(np.array(chosen)), lines.of[parent[chosen]], kept)
    return grown, new[chosen]


def _padded(where: Bools, width: int) -> Bools:
    return np.pad(where, (0, max(0, width - len(where))))[:width]
