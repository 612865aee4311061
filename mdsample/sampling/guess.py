"""Guesses: the texts that rows may have after their next steps, if the model goes on saying nearly what it said.

A guess takes the policy's own steps, from what the model said of the texts nearest to its own. Beside them come steps
that the policy would take if the model said something a little different: the policy chooses on many such predictions,
and the texts that come out most often are asked. Nothing hangs on a guess being right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TypeVar

import attrs
import numpy as np
from numpy.typing import NDArray

from mdsample.core.arrays import Bools, Doubles, Indices, Ints, any_in_row
from mdsample.models.denoiser import Prediction, Query
from mdsample.policy.guide import Tuned
from mdsample.sampling.likely import Drift, Step, likely
from mdsample.sampling.observe import Asking, Kept, Observation, observe
from mdsample.sampling.picked import Picked
from mdsample.sampling.plan import Plan
from mdsample.sampling.shared import rows_of
from mdsample.sampling.state import State

T = TypeVar("T", np.bool_, np.int32)

#: on how many predictions the policy chooses, where a guess has company
_COPIES = 64
#: a token that a text has and another one lacks sets them apart by 1, a different token by this
_DIFFERENT = 3


@attrs.frozen(eq=False)
class Said:
    """What the model says of one text of a row."""

    prediction: Prediction
    #: the row in the prediction
    line: int
    #: where it was asked, and the text, over the row
    wanted: Bools
    text: Ints


@attrs.frozen(eq=False)
class Guess:
    """What the model is to be asked: T texts."""

    #: the row of the plan that each is a text of, `[T]`, and its name among that row's texts
    of: Ints
    names: Sequence[bytes]
    query: Query


@attrs.frozen(eq=False)
class Lines:
    """T texts, from which further ones are guessed."""

    plan: Plan
    state: State
    of: Ints
    #: what evidence kept at their last steps
    before: Sequence[Kept]
    #: how likely each seems, `[T]`
    chance: Doubles

    def take(self, lines: Indices) -> Lines:
        """Some of them, in any number."""
        before = [self.before[int(line)] for line in lines]
        return Lines(self.plan.take(lines), self.state.take(lines), self.of[lines], before, self.chance[lines])

    @cached_property
    def started(self) -> tuple[Asking[Observation], Query]:
        """What tells what their steps would see, once, and the query that it asks first."""
        plan, everything = self.plan, np.arange(len(self.of), dtype=np.int32)
        asking = observe(plan, plan.batch(self.state, everything), everything, self.before)
        return asking, next(asking)


def name(plan: Plan, state: State, row: int) -> bytes:
    """Names a row's text among all that it may have, with the step wherever what the model says of it hangs on that."""
    text = state.tokens[row, state.canvas.valid[row]].tobytes()
    if plan.denoiser.noise == "mask" and not isinstance(plan.policy.guide, Tuned):
        return text
    return text + state.step[row].tobytes() + state.opened[row].tobytes()


class Guesses:
    """A tree of guesses for some rows; the likeliest texts of all its levels are kept, a stated number of each row."""

    def __init__(
        self, plan: Plan, state: State, said: Mapping[int, Sequence[Said]], shape: tuple[int, int], step: Step
    ) -> None:
        """`said`: of each row, what is known of texts of its own. `shape`: how many steps, how many texts for each."""
        depth, width = shape
        self._said, self._step, self._most = said, step, depth * width
        self._copies = 1 if width == 1 else _COPIES
        #: where further guesses would have had to be told, over each row
        self.ahead: dict[int, Bools] = {}
        #: of a model in blocks: what each row's next step asks
        self._here: dict[int, Bools] = {}
        #: chances of the texts found so far, and their names
        self._chances: dict[int, list[float]] = {row: [] for row in said}
        self._known = {(row, name(plan, state, row)) for row in said}
        rows = np.array(list(said), np.int32)
        before: list[Kept] = [plan.kept[row][1] if row in plan.kept else {} for row in said]
        lines: Lines | None = Lines(plan.take(rows), state.take(rows), rows, before, np.ones(len(rows)))
        self._levels: list[Lines] = []
        for level in range(depth):
            if (lines := self._grown(lines, level)) is None:
                break
            self._levels.append(lines)

    def queries(self) -> list[Guess]:
        """What to ask."""
        made: list[Guess] = []
        free = dict.fromkeys(self._chances, self._most)
        for lines in self._levels:
            which = np.zeros(len(lines.of), np.bool_)
            for line, row in enumerate(lines.of.tolist()):
                which[line] = free[row] > 0 and lines.chance[line] >= self._least(row)
                free[row] -= int(which[line])
            if which.any():
                names = [name(lines.plan, lines.state, line) for line in np.flatnonzero(which).tolist()]
                query = self.asking_ahead(rows_of(lines.started[1], which), lines.of[which])
                made.append(Guess(lines.of[which], names, query))
        return made

    def asking_ahead(self, query: Query, rows: Ints) -> Query:
        """A query about texts of rows, which also asks where further guesses would have had to be told."""
        if not self.ahead:
            return query
        wanted = query.wanted.copy()
        for line, row in enumerate(rows.tolist()):
            if row in self.ahead:
                wanted[line] |= _padded(self.ahead[row], wanted.shape[1])
        return attrs.evolve(query, wanted=wanted & query.valid)

    def _least(self, row: int) -> float:
        """The chance that a text of a row must have."""
        chances = self._chances[row]
        return sorted(chances)[-self._most] if len(chances) >= self._most else 0.0

    def _grown(self, lines: Lines, level: int) -> Lines | None:
        """The texts one step on that are new and likely enough; `None` if there are none."""
        asking, query = lines.started
        stale = _nearest(lines, query.wanted, self._said)
        told = stale.source >= 0
        # evidence asks wherever it wants to, ranks and draws do not
        enough = ~any_in_row(told != query.wanted) if lines.plan.evidence else any_in_row(told)
        if lines.plan.denoiser.block is not None:
            # one text of the next block may be asked, but what follows from it costs a second block each
            for line, row in enumerate(lines.of.tolist()):
                here = self._here.setdefault(row, query.wanted[line])
                enough[line] &= not (query.wanted[line] & ~_padded(here, query.wanted.shape[1])).any()
        if not enough.all():
            # a model in blocks cannot be asked beyond the one at hand
            for line in np.flatnonzero(~enough).tolist() if lines.plan.denoiser.block is None else ():
                row = int(lines.of[line])
                self.ahead[row] = self.ahead.get(row, False) | query.wanted[line]
            return self._grown(lines.take(np.flatnonzero(enough)), level) if enough.any() else None
        try:
            asking.send(stale)
        except StopIteration as end:
            return self._next(lines, end.value, level)
        return None  # evidence asks more

    def _next(self, lines: Lines, seen: Observation, level: int) -> Lines | None:
        """The same, once it is known what their steps would see."""

        def keep(parent: Indices, share: Doubles) -> Bools:
            rows: list[int] = lines.of[parent].tolist()
            return lines.chance[parent] * share >= np.array([self._least(row) for row in rows])

        drift = Drift.of(self._copies, lines.state.tokens.shape[1], level)
        parent, share, after = likely(self._step, lines.plan, lines.state, seen, drift, keep)
        chance = lines.chance[parent] * share
        possible = np.ones(len(parent), np.bool_)
        if lines.plan.restriction.spans:
            possible = lines.plan.take(parent).languages.possible(after.tokens, after.blank)
        chosen: list[int] = []
        for line in np.argsort(-chance, kind="stable").tolist():
            row = int(lines.of[parent[line]])
            text = (row, name(lines.plan, after, line))
            if possible[line] and after.active[line] and text not in self._known and chance[line] >= self._least(row):
                self._known.add(text)
                self._chances[row].append(float(chance[line]))
                chosen.append(line)
        if not chosen:
            return None
        parent = parent[chosen]
        kept = [seen.kept[int(line)] for line in parent]
        return Lines(lines.plan.take(parent), after.take(np.array(chosen)), lines.of[parent], kept, chance[chosen])


def _nearest(lines: Lines, wanted: Bools, said: Mapping[int, Sequence[Said]]) -> Picked:
    """What is wanted, each position as it was said of the nearest text of which it was asked."""
    mask_id, source = lines.plan.tokenizer.mask_id, np.full(wanted.shape, -1, np.int32)
    of: list[tuple[Prediction, int]] = []
    for row in dict.fromkeys(lines.of.tolist()):
        texts = np.stack([_padded(what.text, wanted.shape[1]) for what in said[row]])
        asked = np.stack([_padded(what.wanted, wanted.shape[1]) for what in said[row]])
        for line in np.flatnonzero(lines.of == row).tolist():
            text = lines.state.tokens[line, : wanted.shape[1]]
            length = len(said[row][0].text)
            differ = (texts != text)[:, :length]
            both = differ & (texts != mask_id)[:, :length] & (text != mask_id)[:length]
            order = np.argsort(differ.sum(1) + (_DIFFERENT - 1) * both.sum(1), kind="stable")
            known = asked[order]
            source[line] = np.where(known.any(0) & wanted[line], len(of) + order[known.argmax(0)], -1)
        of += [(what.prediction, what.line) for what in said[row]]
    return Picked(of, source)


def _padded(array: NDArray[T], width: int) -> NDArray[T]:
    out = np.zeros(width, array.dtype)
    out[: len(array)] = array[:width]
    return out
