"""Result: what a run gave, row by row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import attrs
import numpy as np

from mdsample.core import html
from mdsample.core.arrays import Bools, Ints
from mdsample.core.canvas import Canvas
from mdsample.core.tokens import Tokenizer, until_end
from mdsample.models.cache import read_cache
from mdsample.models.denoiser import Noise
from mdsample.policy.base import Policy
from mdsample.policy.complete import CompletePolicy, complete
from mdsample.sampling.row import Commit, Row
from mdsample.sampling.state import UNFINISHED, Event, Outcome, State

#: rows that a notebook shows
_SHOWN = 20


@attrs.frozen(eq=False)
class Spent:
    """What rows cost where that is not what their steps cost, because texts were guessed; arrays `[B]`."""

    #: forward passes that each was in, guesses included
    nfe: Ints
    #: how many of them followed one another
    rounds: Ints


def rounds_of(event: Event, passes: int) -> Ints:
    """How many passes followed one another in a step without guesses, of each of its rows, `[R]`.

    `passes`: what one look costs under the guide. What evidence tries out is tried after the look, all at once.
    """
    return 1 + (event.passes > passes).astype(np.int32)


def bounded(policy: CompletePolicy, noise: Noise, slot: Ints, blank: Bools, names: Sequence[str]) -> Bools:
    """Of which rows the bounds of docs/bounds.md may speak as they begin, `[B]`; `slot`, `blank` `[B, L]`.

    Of none where the noise is uniform, nor where a language weighs several blanks of a slot: each is then drawn from
    another law than the model's own, so that even one at a time the text's law is not the model's.
    """
    out = np.full(len(slot), noise == "mask")
    for name in {constraint.weighs for constraint in policy.constraints} & {*names}:
        out &= (blank & (slot == names.index(name))).sum(1) < 2
    return out


class RunLog:
    """Commits and outcomes of a canvas's rows, entered event by event; a row can be read as soon as it has left."""

    def __init__(self, canvas: Canvas, tokenizer: Tokenizer, policy: CompletePolicy, noise: Noise = "mask") -> None:
        """Nothing entered yet. `policy` makes the run; `noise`: that of the model."""
        self._tokenizer, self._passes = tokenizer, policy.guide.passes
        self._bounded = bounded(policy, noise, canvas.slot, canvas.blank, canvas.names)
        self._rounds = dict.fromkeys(range(len(canvas)), 0)
        self._step = dict.fromkeys(range(len(canvas)), 0)
        self._commits: dict[int, list[Commit]] = {row: [] for row in range(len(canvas))}
        self._outcomes: dict[int, Outcome] = {}

    def add(self, event: Event) -> None:
        """Takes down what one step did."""
        columns = (event.position, event.token, event.probability, event.entropy, event.confidence, event.by_rule)
        for row, *commit in zip(event.row.tolist(), *(c.tolist() for c in columns), strict=True):
            self._commits[row].append(Commit(self._step[row], *commit))
        self._outcomes.update(zip(event.left.tolist(), event.outcomes, strict=True))
        for row, rounds in zip(event.rows.tolist(), rounds_of(event, self._passes).tolist(), strict=True):
            self._step[row] += 1
            self._rounds[row] += rounds

    def row(self, state: State, i: int, spent: Spent | None = None) -> Row:
        """Row `i` in the state that it left in or a later one; if it never left, it is called unfinished.

        `spent`: what the rows cost, if texts were guessed.
        """
        canvas = state.canvas
        length = int(canvas.valid[i].sum())
        unbounded = not self._bounded[i] or bool(state.remasked[i] or state.rewritten[i])
        text, slots = read(self._tokenizer, state.tokens[i, :length], state.blank[i], canvas.slot[i], canvas.names)
        return Row(
            canvas.ids[i],
            state.tokens[i, :length],
            canvas.slot[i, :length],
            text,
            slots,
            int(state.nfe[i] if spent is None else spent.nfe[i]),
            int(state.step[i]),
            self._rounds[i] if spent is None else int(spent.rounds[i]),
            self._outcomes.get(i, UNFINISHED),
            int((canvas.blank[i] & ~state.blank[i]).sum()),
            int(state.blank[i].sum()),
            math.inf if unbounded else float(state.error_bound[i]),
            math.inf if unbounded else float(state.tv_sum[i]),
            tuple(self._commits[i]),
            state.blank[i, :length],
            self._tokenizer,
        )


@attrs.frozen(eq=False, repr=False)
class Samples(Sequence[Row]):
    """Rows in the order of their prompts, and what made them."""

    rows: tuple[Row, ...]
    policy: Policy
    seed: int
    model: str
    backend: str
    #: as `Result.cache`
    cache: str = "none"
    #: wall time of the run; `None` if it was not taken
    seconds: float | None = None
    #: bytes, as `Denoiser.peak_memory`
    peak_memory: int | None = None

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, index: int | slice) -> Row | tuple[Row, ...]:
        """A row by its place, or several."""
        return self.rows[index]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def passes_per_row(self) -> float:
        """Forward passes, the mean over rows; 0 without rows."""
        return sum(row.nfe for row in self.rows) / max(1, len(self.rows))

    @property
    def tokens_per_second(self) -> float | None:
        """Blanks filled per second of wall time; `None` if it was not taken."""
        return sum(row.filled for row in self.rows) / self.seconds if self.seconds else None

    def to_dicts(self) -> list[dict[str, Any]]:
        """A flat JSON object for every row, as `pandas.DataFrame` and `datasets.Dataset.from_list` take them."""
        return [row.to_dict() for row in self.rows]

    def facts(self) -> tuple[str, ...]:
        """How many rows there are, the policy, and what they cost on average."""
        rows = f"{len(self)} row{'s' * (len(self) != 1)}"
        return rows, str(self.policy) or "default policy", f"{self.passes_per_row:.1f} passes a row"

    def __repr__(self) -> str:
        """The facts."""
        return f"Samples({', '.join(self.facts())})"

    def __rich_repr__(self) -> Iterator[tuple[str, object]]:
        """As rich shows it: the facts, and the first rows."""
        yield "policy", str(self.policy)
        yield "seconds", self.seconds
        yield "rows", [*self.rows[:_SHOWN], *["…"] * (len(self) > _SHOWN)]

    def _repr_html_(self) -> str:
        rate = self.tokens_per_second
        timing = () if rate is None else (f"{self.seconds:.2f} s", f"{rate:.0f} tokens a second")
        if self.peak_memory is not None:
            timing += (f"{self.peak_memory / 2**30:.2f} GiB at most",)
        shown = [
            f"<details{' open' * (number == 0)}><summary>{html.text(row.id)}: {html.text(row.headline())} "
            f"<small>{row.nfe} pass{'es' * (row.nfe != 1)}</small></summary>{html.cells(row.cells())}</details>"
            for number, row in enumerate(self.rows[:_SHOWN])
        ]
        more = f'<div class="key">… and {len(self) - _SHOWN} more rows</div>' if len(self) > _SHOWN else ""
        return html.picture(html.facts(*self.facts(), *timing) + "".join(shown) + more + html.key("first step", "last"))


@attrs.frozen(eq=False, repr=False, slots=False)
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
    #: wall time of the run; `None` if it was not taken
    seconds: float | None = None
    #: bytes, as `Denoiser.peak_memory`
    peak_memory: int | None = None
    #: as `Denoiser.block`
    block: int | None = None
    #: what the rows cost, if texts were guessed
    spent: Spent | None = None
    #: as `Denoiser.noise`
    noise: Noise = "mask"

    @property
    def approximate(self) -> bool:
        """Whether the cache made the model's own answers differ from what it says without one."""
        kept = read_cache(self.cache)
        return kept is not None and kept.approximate

    @cached_property
    def rows(self) -> Samples:
        """The rows, in the canvas's order."""
        log = RunLog(self.state.canvas, self.tokenizer, complete(self.policy), self.noise)
        for event in self.state.events:
            log.add(event)
        rows = tuple(log.row(self.state, i, self.spent) for i in range(len(self.state.canvas)))
        return Samples(
            rows, self.policy, self.seed, self.model, self.backend, self.cache, self.seconds, self.peak_memory
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """As `Samples.to_dicts`."""
        return self.rows.to_dicts()

    def __repr__(self) -> str:
        """How many rows there are, the policy, and what they cost on average."""
        return f"Result({', '.join(self.rows.facts())})"

    def __rich_repr__(self) -> Iterator[tuple[str, object]]:
        """As rich shows it."""
        return self.rows.__rich_repr__()

    def _repr_html_(self) -> str:
        return self.rows._repr_html_()  # pyright: ignore[reportPrivateUsage]


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
