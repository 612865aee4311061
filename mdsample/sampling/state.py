"""State and event: where a run stands, and what one step did. A state is its canvas plus the events so far."""

from __future__ import annotations

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Doubles, Floats, Indices, Ints, arange64
from mdsample.core.bounds import parallel_bounds
from mdsample.core.canvas import Canvas
from mdsample.core.tokens import Tokenizer
from mdsample.policy.view import Batch


@attrs.frozen
class Outcome:
    """Why a row left: the name of the part that decided it (or `filled`), and a sentence for a person."""

    name: str
    sentence: str

    def __str__(self) -> str:
        """The sentence."""
        return self.sentence


FILLED = Outcome("filled", "Every blank was filled.")
#: of a row that has not left, in the record of a run that was cut off
UNFINISHED = Outcome("unfinished", "The run was cut off before this row was done.")


_NONE: Ints = np.zeros(0, np.int32)


@attrs.frozen(eq=False)
class Commits:
    """N commits from a prediction."""

    row: Ints
    position: Ints
    token: Ints
    #: of the token, under the model
    probability: Floats
    #: of the position, nats
    entropy: Floats
    #: of the position's most probable token
    confidence: Floats


@attrs.frozen(eq=False)
class Event:
    """What one step did to the rows of a canvas. N commits, R rows in the forward pass."""

    #: rows that were in the forward pass, `[R]`
    rows: Ints
    #: forward passes that it cost each of them, `[R]`
    passes: Ints
    #: commits: where, which token, its probability under the model, the position's entropy (nats) and the probability
    #: of its most probable token (0 in traces from before it was kept); all `[N]`
    row: Ints
    position: Ints
    token: Ints
    probability: Floats
    entropy: Floats
    confidence: Floats
    #: written by rule (`ended`), without a look, `[N]`; such commits have probability and confidence 1 and entropy 0
    by_rule: Bools
    #: written into a window that a revision holds open, so not yet final, `[N]`
    held: Bools
    #: positions masked again, `[M]`, after the commits from a look and before those by rule
    remasked_row: Ints
    remasked_position: Ints
    #: rows of which everything that was held is final after this step, `[S]`
    settled: Ints
    #: rows that left, `[K]`, and why
    left: Ints
    outcomes: tuple[Outcome, ...]

    @staticmethod
    def of(
        rows: Ints,
        passes: Ints,
        commits: Commits,
        remasked: tuple[Ints, Ints] = (_NONE, _NONE),
        left: Ints = _NONE,
        outcomes: tuple[Outcome, ...] = (),
        held: Bools | None = None,
        settled: Ints = _NONE,
    ) -> Event:
        """An event whose commits come from a prediction. `held`: by default none is."""
        by_rule = np.zeros(len(commits.row), np.bool_)
        return Event(
            rows,
            passes,
            commits.row,
            commits.position,
            commits.token,
            commits.probability,
            commits.entropy,
            commits.confidence,
            by_rule,
            by_rule if held is None else held,
            *remasked,
            settled,
            left,
            outcomes,
        )

    def completed(self, row: Ints, position: Ints, token: Ints, left: Ints, outcomes: tuple[Outcome, ...]) -> Event:
        """The event with what stop rules wrote besides, and with the rows that left because of them."""
        count = len(row)
        return attrs.evolve(
            self,
            row=np.concatenate([self.row, row]),
            position=np.concatenate([self.position, position]),
            token=np.concatenate([self.token, token]),
            probability=np.concatenate([self.probability, np.ones(count, np.float32)]),
            entropy=np.concatenate([self.entropy, np.zeros(count, np.float32)]),
            confidence=np.concatenate([self.confidence, np.ones(count, np.float32)]),
            by_rule=np.concatenate([self.by_rule, np.ones(count, np.bool_)]),
            held=np.concatenate([self.held, np.zeros(count, np.bool_)]),
            left=np.concatenate([self.left, left]).astype(np.int32),
            outcomes=(*self.outcomes, *outcomes),
        )

    @staticmethod
    def none() -> Event:
        """Nothing happened."""
        nothing = np.zeros(0, np.float32)
        return Event.of(_NONE, _NONE, Commits(_NONE, _NONE, _NONE, nothing, nothing, nothing))


@attrs.frozen(eq=False)
class State:
    """The state of a run; arrays `[B, L]` unless said. `apply` is the only way on."""

    canvas: Canvas
    tokens: Ints
    blank: Bools
    #: written, but not final: a revision may rewrite it, or make it blank again, before its window moves on
    held: Bools
    #: step of each commit, −1 where none
    written: Ints
    #: probability of each commit, NaN where none
    probability: Floats
    #: steps and forward passes of each row, `[B]`
    step: Ints
    nfe: Ints
    #: rows still running, `[B]`
    active: Bools
    #: the step at which the present window was opened (0 where windows are not held), and how many of the last steps in
    #: a row filled no blank, `[B]`
    opened: Ints
    idle: Ints
    #: positions masked again so far, and tokens written in place of written ones, `[B]`
    remasked: Ints
    rewritten: Ints
    #: Σ b and Σ d over steps, the bounds of `parallel_bounds` on a step's commits, `[B]` float64
    error_bound: Doubles
    tv_sum: Doubles
    events: tuple[Event, ...]

    @staticmethod
    def begin(canvas: Canvas) -> State:
        """Nothing done yet."""
        shape, rows = canvas.tokens.shape, len(canvas)
        return State(
            canvas,
            canvas.tokens,
            canvas.blank,
            np.zeros(shape, np.bool_),
            np.full(shape, -1, np.int32),
            np.full(shape, np.nan, np.float32),
            np.zeros(rows, np.int32),
            np.zeros(rows, np.int32),
            np.ones(rows, np.bool_),
            np.zeros(rows, np.int32),
            np.zeros(rows, np.int32),
            np.zeros(rows, np.int32),
            np.zeros(rows, np.int32),
            np.zeros(rows),
            np.zeros(rows),
            (),
        )

    @property
    def done(self) -> bool:
        """Whether every row has left."""
        return not self.active.any()

    def batch(
        self,
        rows: Ints,
        passes: int,
        tokenizer: Tokenizer,
        block: int | None = None,
        led: bool = False,
        redraws: bool = False,
    ) -> Batch:
        """What parts may see of these rows, without padding that none of them needs.

        `block`, `led`: those of the denoiser. `redraws`: what is held is to be filled again.
        """
        canvas = self.canvas
        width = int(canvas.valid[rows].sum(1).max(initial=1))
        # arrays are never changed in place, so rows in their order need no copy
        pick = slice(None) if np.array_equal(rows, arange64(len(canvas))) else rows
        blank, held = self.blank[pick, :width], self.held[pick, :width]
        return Batch(
            self.tokens[pick, :width],
            blank | held if redraws else blank,
            held,
            canvas.blank[pick, :width],
            canvas.valid[pick, :width],
            canvas.slot[pick, :width],
            canvas.names,
            self.written[pick, :width],
            self.probability[pick, :width],
            self.error_bound[pick],
            self.tv_sum[pick],
            self.step[pick],
            (self.step - self.opened)[pick],
            self.idle[pick],
            self.nfe[pick],
            passes,
            tokenizer,
            block,
            led,
        )

    def take(self, rows: Indices) -> State:
        """Some of the rows, in any number; their ids are numbers from 0. Without the events, which name other rows."""
        return State(
            self.canvas.copies(rows),
            self.tokens[rows],
            self.blank[rows],
            self.held[rows],
            self.written[rows],
            self.probability[rows],
            self.step[rows],
            self.nfe[rows],
            self.active[rows],
            self.opened[rows],
            self.idle[rows],
            self.remasked[rows],
            self.rewritten[rows],
            self.error_bound[rows],
            self.tv_sum[rows],
            (),
        )

    def apply(self, event: Event, mask_id: int) -> State:
        """The state after an event. Replaying a trace is nothing but this."""
        tokens, blank = self.tokens.copy(), self.blank.copy()
        held, written, probability = self.held.copy(), self.written.copy(), self.probability.copy()
        filling = self.blank[event.row, event.position]

        def commit(which: Bools) -> None:
            row = event.row[which]
            at = (row, event.position[which])
            tokens[at], blank[at], held[at] = event.token[which], False, event.held[which]
            written[at], probability[at] = self.step[row], event.probability[which]

        commit(~event.by_rule)
        again = (event.remasked_row, event.remasked_position)
        tokens[again], blank[again], held[again], written[again], probability[again] = mask_id, True, False, -1, np.nan
        commit(event.by_rule)  # a stop rule writes last, in blanks that were masked again too
        step, nfe, active = self.step.copy(), self.nfe.copy(), self.active.copy()
        step[event.rows] += 1
        nfe[event.rows] += event.passes
        active[event.left] = False
        idle, opened = self.idle.copy(), self.opened.copy()
        idle[event.rows] += 1
        idle[event.row[filling]] = 0
        opened[event.settled] = step[event.settled]
        held[event.settled] = held[event.left] = False
        remasked, rewritten = self.remasked.copy(), self.rewritten.copy()
        np.add.at(remasked, event.remasked_row, 1)
        np.add.at(rewritten, event.row[~filling & ~event.by_rule], 1)
        # what is written in place of something else is no part of a set that was filled at once
        b, d = parallel_bounds(event.row[filling], event.entropy[filling], event.confidence[filling], len(step))
        return State(
            self.canvas,
            tokens,
            blank,
            held,
            written,
            probability,
            step,
            nfe,
            active,
            opened,
            idle,
            remasked,
            rewritten,
            self.error_bound + b,
            self.tv_sum + d,
            (*self.events, event),
        )
