"""Speculation: the next steps are guessed from one prediction, and the guesses are further rows of the next pass.

A step is a pure function of a state and of what the model says of it, and its randomness is keyed. So what the model
says of a guessed text is what the step at that very text would be told, and a step whose text was guessed needs no
pass. Guesses change how many passes follow one another (`rounds`) and how many a row is in (`nfe`), and nothing else.
"""

from __future__ import annotations

import re

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Ints
from mdsample.core.canvas import Canvas
from mdsample.errors import PolicyError, shown
from mdsample.models.denoiser import Denoiser, Prediction, Query
from mdsample.policy.guide import Tuned
from mdsample.sampling.guess import Guesses, Said, name
from mdsample.sampling.likely import Step
from mdsample.sampling.observe import Asking
from mdsample.sampling.picked import Picked
from mdsample.sampling.plan import Plan
from mdsample.sampling.result import Spent, rounds_of
from mdsample.sampling.shared import divided, rows_of, together
from mdsample.sampling.state import Event, State

#: guesses of a row in one pass, at most: a slip of the pen must not ask for a million rows
_MOST = 1024


def _number(_: object, attribute: attrs.Attribute[int], value: object) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"the {attribute.name} of a speculation is a whole number from 1; got {shown(value)}")


@attrs.frozen
class Speculation:
    """How far to guess: `depth` steps ahead, and `width` texts for each of them on average.

    With a width of 1 a chain of the policy's own steps, else a tree of the likeliest texts, at most `depth` steps deep.
    A row brings at most `depth` · `width` guesses into a forward pass. Raises `ValueError` for what is no number above
    0, and for more than 1,024 guesses.
    """

    depth: int = attrs.field(validator=_number)
    width: int = attrs.field(default=1, validator=_number)

    def __attrs_post_init__(self) -> None:
        """Checks how many there are together."""
        if self.depth * self.width > _MOST:
            raise ValueError(f"{self} are {self.depth * self.width} guesses of a row in one pass; at most {_MOST}")

    def __str__(self) -> str:
        """As `read_speculation` reads it."""
        return f"{self.depth}" if self.width == 1 else f"{self.depth}x{self.width}"


def read_speculation(text: str) -> Speculation:
    """`8` (a chain of 8 guesses) or `8x2` (the 16 likeliest of 8 steps); `ValueError` for anything else."""
    matched = re.fullmatch(r"\s*([1-9]\d{0,5})(?:x([1-9]\d{0,5}))?\s*", text, re.ASCII)
    if matched is None:
        raise ValueError(
            f"speculate takes how many steps to guess, as in 8, and perhaps how many of each, as in 8x2; got {text!r}"
        )
    return Speculation(int(matched[1]), int(matched[2] or 1))


def as_speculation(value: Speculation | int | str | None) -> Speculation | None:
    """What callers may write: a `Speculation`, a depth, or text; `None`: no guesses. `TypeError` for anything else."""
    match value:
        case None | Speculation():
            return value
        case str():
            return read_speculation(value)
        case int() if not isinstance(value, bool):
            return Speculation(value)
        case _:
            raise TypeError(f"speculate takes a depth, as in 8, or text, as in '8x2'; got {shown(value)}")


def require_exact(denoiser: Denoiser) -> None:
    """`PolicyError` for a model of which what it says depends on more than the text."""
    if denoiser.conditioned:
        raise PolicyError(
            f"{denoiser.name} is self-conditioned: what it says depends on what it said before, so guesses of its text "
            "would change the result; do not speculate"
        )
    cache = denoiser.cache
    if cache is not None and cache.approximate:
        raise PolicyError(
            f"the cache {str(cache)!r} is approximate: what the model says depends on the passes before, so guesses "
            "would change the result; leave out the cache, or do not speculate"
        )


class Speculator:
    """Takes the steps of the rows of one plan, and guesses the next ones."""

    def __init__(self, plan: Plan, canvas: Canvas, speculation: Speculation, step: Step) -> None:
        """`canvas`: that the plan was made for. `PolicyError` as `require_exact` raises it."""
        require_exact(plan.denoiser)
        self._plan, self._step = plan, step
        self._shape = speculation.depth, speculation.width
        self._lengths = canvas.valid.sum(1).tolist()
        #: what the rows cost so far
        self.spent = Spent(np.zeros(len(canvas), np.int32), np.zeros(len(canvas), np.int32))
        #: of each running row, what its last step was told, and what was said of texts that it may come to
        self._last: dict[int, Said] = {}
        self._known: dict[int, dict[bytes, Said]] = {}
        # what tries texts out has asked of the next one, if that is one of them; a guess of its own would be tried, too
        self._tries = any(evidence.passes for evidence in plan.evidence)
        # a text that was tried is the next one only where nothing but its tokens decides what the model is shown
        moves = plan.redraws or plan.denoiser.noise != "mask" or isinstance(plan.policy.guide, Tuned)
        # what a guide remembers of the texts before is not what it would remember of a guess
        self._guesses = not plan.policy.guide.needs and not (self._tries and moves)

    def steps(self, state: State, rows: Ints) -> Asking[list[tuple[State, Event]]]:
        """One pass for some running rows, and all steps that follow from it: at least one."""
        if not self._guesses:
            return [(yield from self._alone(state, rows))]
        if self._tries:
            return [(yield from self._tried(state, rows))]
        steps = [(yield from self._asked(state, rows))]
        while (step := self._known_already(steps[-1][0], rows)) is not None:
            steps.append(step)
        return steps

    def _alone(self, state: State, rows: Ints) -> Asking[tuple[State, Event]]:
        """A step of the rows without guesses."""
        after, event = yield from self._step.advance(self._plan, state, rows)
        self.spent.nfe[rows] += event.passes
        self.spent.rounds[rows] += rounds_of(event, self._plan.policy.guide.passes)
        return after, event

    def _asked(self, state: State, rows: Ints) -> Asking[tuple[State, Event]]:
        """A step of the rows, with their guesses in its forward pass."""
        tree = Guesses(self._plan, state, self._said_of(rows), self._shape, self._step)
        asking = self._step.advance(self._plan, state, rows)
        query = next(asking)
        made = tree.queries()
        wider = tree.asking_ahead(query, rows)
        queries = [wider, *(guess.query for guess in made)]
        answer, *rest = divided((yield together(queries)), queries)
        self._known.update((row, {}) for row in rows.tolist())
        for guess, said in zip(made, rest, strict=True):
            for line, (row, text) in enumerate(zip(guess.of.tolist(), guess.names, strict=True)):
                self._known[row][text] = self._said(guess.query, said, line, row)
        prediction = answer if wider is query else Picked.within([(answer, n) for n in range(len(rows))], query.wanted)
        while True:
            # a run that is resumed may have asked of a text before
            if query.tokens.shape[0] == len(rows):
                told = {row: self._said(wider, answer, line, row) for line, row in enumerate(rows.tolist())}
                self._last.update(told)
            try:
                query = asking.send(prediction)
            except StopIteration as end:
                after, event = end.value
                break
            wider = query
            prediction = answer = yield query
        price = self._plan.policy.guide.passes
        guessed = [row for guess in made for row in guess.of.tolist()]
        self.spent.nfe[:] += price * np.bincount(guessed, minlength=len(self._lengths)).astype(np.int32)
        self.spent.nfe[rows] += event.passes
        self.spent.rounds[rows] += rounds_of(event, price)
        self._forget(after, rows)
        return after, event

    def _tried(self, state: State, rows: Ints) -> Asking[tuple[State, Event]]:
        """A step that tries texts out; no look at a row that has come to a text which its last step tried."""
        asking = self._step.advance(self._plan, state, rows)
        query, price = next(asking), self._plan.policy.guide.passes
        known = [self._known.get(row, {}).get(name(self._plan, state, row)) for row in rows.tolist()]
        # a part that takes tokens back wants to see written ones, too, and a trial looks at blanks alone
        known = [None if what is None or _unseen(query.wanted[line], what) else what for line, what in enumerate(known)]
        saved = np.array([what is not None for what in known])
        fresh = (yield rows_of(query, ~saved)) if not saved.all() else None
        number = np.cumsum(~saved) - 1
        of = [(fresh, int(number[n])) if what is None else (what.prediction, what.line) for n, what in enumerate(known)]
        prediction: Prediction = Picked.within([(told, line) for told, line in of if told is not None], query.wanted)
        # a pass that fails leaves what was known before
        tried: dict[int, dict[bytes, Said]] = {row: {} for row in rows.tolist()}
        of_key: dict[int, int] = {self._plan.keys[row][1]: row for row in rows.tolist()}
        while True:
            try:
                query = asking.send(prediction)
            except StopIteration as end:
                after, event = end.value
                break
            prediction = yield query
            for line, (_, key) in enumerate(query.rows.keys):
                row = of_key[key]
                said = self._said(query, prediction, line, row)
                tried[row][said.text.tobytes()] = said
        self._known.update(tried)
        self.spent.nfe[rows] += event.passes - price * saved
        self.spent.rounds[rows] += rounds_of(event, price) - saved
        self._forget(after, rows)
        return after, event

    def _said_of(self, rows: Ints) -> dict[int, list[Said]]:
        """What is known of texts of each row, that of its last step first; nothing of a row that has taken none."""
        running = [row for row in rows.tolist() if row in self._last]
        return {row: [self._last[row], *self._known.get(row, {}).values()] for row in running}

    def _known_already(self, state: State, rows: Ints) -> tuple[State, Event] | None:
        """A step of the rows that have come to a text that was guessed; `None` if none has."""
        while True:
            running = [row for row in rows.tolist() if state.active[row]]
            said = {row: self._known[row].get(name(self._plan, state, row)) for row in running}
            found = {row: what for row, what in said.items() if what is not None}
            if not found:
                return None
            ahead = np.array(list(found), np.int32)
            asking = self._step.advance(self._plan, state, ahead)
            query = next(asking)
            # a step may want to see more than its guess asked for
            short = [row for line, (row, what) in enumerate(found.items()) if _unseen(query.wanted[line], what)]
            if not short:
                of = [(what.prediction, what.line) for what in found.values()]
                try:
                    asking.send(Picked.within(of, query.wanted))
                except StopIteration as end:
                    self._last.update(found)
                    after, event = end.value
                    self._forget(after, ahead)
                    return after, event
                short = list(found)  # it asks once more, which takes a pass
            for row in short:
                del self._known[row][name(self._plan, state, row)]

    def _said(self, query: Query, prediction: Prediction, line: int, row: int) -> Said:
        length = self._lengths[row]
        return Said(prediction, line, query.wanted[line, :length], query.tokens[line, :length])

    def _forget(self, state: State, rows: Ints) -> None:
        """Lets go of what is said of rows that have left."""
        for row in rows[~state.active[rows]].tolist():
            self._last.pop(row, None)
            self._known.pop(row, None)


def _unseen(wanted: Bools, what: Said) -> bool:
    """Whether a step wants to see a place, `[L]`, that was not asked for with this text."""
    return bool((wanted[: len(what.wanted)] & ~what.wanted).any())
