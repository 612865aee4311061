"""Result: what a run gave, row by row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import attrs
import numpy as np

from mdsample.core.arrays import Ints
from mdsample.core.canvas import Canvas
from mdsample.core.tokens import Tokenizer
from mdsample.models.cache import read_cache
from mdsample.policy.base import Policy
from mdsample.sampling.state import UNFINISHED, Event, Outcome, State


@attrs.frozen
class Commit:
    """One token written into a blank."""

    step: int
    position: int
    token: int
    #: of the token, under the model's conditional at temperature 1
    probability: float
    #: of the position when it was written, nats
    entropy: float
    #: written by a stop rule, without asking the model
    by_rule: bool = False


@attrs.frozen(eq=False, slots=False)
class Row:
    """One row of a result."""

    id: int | str
    #: token ids of the row without padding, the mask token where a blank was left
    tokens: Ints
    #: number of the slot of each token, in the order of the template, −1 for fixed text
    slot: Ints
    #: what the model wrote, from the first slot on, with the fixed text between slots
    text: str
    #: each slot's text up to its end token, without surrounding white space; blanks left blank are skipped
    slots: dict[str, str]
    #: forward passes and steps the row was in
    nfe: int
    steps: int
    outcome: Outcome
    #: blanks filled, and blanks left blank by a stop rule
    filled: int
    unfilled: int
    #: Σ b over steps, nats, b = ΣH − max H of a step's commits: its mean over the joint's runs bounds KL(joint ‖ law).
    #: inf if tokens were masked again: nothing is promised of such a run
    error_bound: float
    #: min(1, Σ √(b/2)): its mean over runs estimates a bound on the total variation from one-at-a-time decoding; 1 if
    #: tokens were masked again
    tv_bound: float
    commits: tuple[Commit, ...]

    @property
    def tokens_per_forward(self) -> float:
        """Blanks filled per forward pass."""
        return self.filled / self.nfe if self.nfe else 0.0


class RunLog:
    """Commits and outcomes of a canvas's rows, entered event by event; a row can be read as soon as it has left."""

    def __init__(self, canvas: Canvas, tokenizer: Tokenizer) -> None:
        """Nothing entered yet."""
        self._tokenizer = tokenizer
        self._step = dict.fromkeys(range(len(canvas)), 0)
        self._commits: dict[int, list[Commit]] = {row: [] for row in range(len(canvas))}
        self._outcomes: dict[int, Outcome] = {}

    def add(self, event: Event) -> None:
        """Takes down what one step did."""
        columns = (event.row, event.position, event.token, event.probability, event.entropy, event.by_rule)
        for row, position, token, probability, entropy, by_rule in zip(*(c.tolist() for c in columns), strict=True):
            self._commits[row].append(Commit(self._step[row], position, token, probability, entropy, by_rule))
        self._outcomes.update(zip(event.left.tolist(), event.outcomes, strict=True))
        for row in event.rows.tolist():
            self._step[row] += 1

    def row(self, state: State, i: int) -> Row:
        """Row `i` in the state that it left in or a later one; if it never left, it is called unfinished."""
        canvas = state.canvas
        length = int(canvas.valid[i].sum())
        text, slots = read(self._tokenizer, state.tokens[i, :length], state.blank[i], canvas.slot[i], canvas.names)
        return Row(
            canvas.ids[i],
            state.tokens[i, :length],
            canvas.slot[i, :length],
            text,
            slots,
            int(state.nfe[i]),
            int(state.step[i]),
            self._outcomes.get(i, UNFINISHED),
            int((canvas.blank[i] & ~state.blank[i]).sum()),
            int(state.blank[i].sum()),
            math.inf if state.remasked[i] else float(state.error_bound[i]),
            1.0 if state.remasked[i] else float(min(1.0, state.tv_sum[i])),
            tuple(self._commits[i]),
        )


@attrs.frozen(eq=False, slots=False)
class Result:
    """A finished run: its last state, and what made it."""

    state: State
    tokenizer: Tokenizer
    policy: Policy
    seed: int
    model: str
    backend: str
    #: what the model kept from look to look, as `mdsample.models.cache.read_cache` reads it
    cache: str = "none"

    @property
    def approximate(self) -> bool:
        """Whether the cache made the model's own answers differ from what it says without one."""
        kept = read_cache(self.cache)
        return kept is not None and kept.approximate

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows, in the canvas's order."""
        log = RunLog(self.state.canvas, self.tokenizer)
        for event in self.state.events:
            log.add(event)
        return tuple(log.row(self.state, i) for i in range(len(self.state.canvas)))


def read(
    tokenizer: Tokenizer, tokens: Ints, blank: np.ndarray, slot: Ints, names: tuple[str, ...]
) -> tuple[str, dict[str, str]]:
    """The text from the first slot on, and the text of each slot, of one row."""
    pieces: list[tuple[int, list[int]]] = []
    slotted = slot[: len(tokens)] >= 0
    if not slotted.any():
        return "", {}
    first = int(np.argmax(slotted))
    for token, number, empty in zip(
        tokens[first:].tolist(), slot[first:].tolist(), blank[first:].tolist(), strict=False
    ):
        if not pieces or pieces[-1][0] != number:
            pieces.append((number, []))
        if not empty:
            pieces[-1][1].append(token)
    whole: dict[int, list[int]] = {}  # fixed text may part a slot
    for number, run in pieces:
        if number >= 0:
            whole[number] = whole.get(number, []) + run
    slots = {names[number]: tokenizer.decode(until_end(run, tokenizer)).strip() for number, run in whole.items()}
    texts = (tokenizer.decode(until_end(run, tokenizer) if number >= 0 else run) for number, run in pieces)
    return "".join(texts).strip(), slots


def pieces(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """The text that each token adds to those before it; together they are `tokenizer.decode(tokens)`.

    A character that is spread over several tokens comes with the last of them.
    """
    texts: list[str] = []
    said = 0
    for count in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[:count])
        # what ends in a replacement character may still become another one
        whole = text if count == len(tokens) else text.rstrip("\ufffd")
        texts.append(whole[said:])
        said = max(said, len(whole))
    return texts


def until_end(tokens: list[int], tokenizer: Tokenizer) -> list[int]:
    """The tokens before the first end token."""
    return tokens[: tokens.index(tokenizer.end_id)] if tokenizer.end_id in tokens else tokens
