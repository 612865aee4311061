"""Engine: many rows on one model, a fixed number of them at a time, each under a policy of its own.

    engine = Engine(model, batch_size=16)
    engine.add(rows, Sampler("med"), slots)     # at any time
    while engine.step():
        for number, row in engine.finished(): ...

A row that is done leaves its place at once and the next one takes it, so fewer forward passes become less time. Rows of
different policies, seeds, templates and constraints share a forward pass; only rows under different guides do not. Rows
are independent, so which rows share a pass changes the time a job takes and not its results (but for how a model
rounds).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import count

import attrs
import numpy as np

from mdsample.core.arrays import Ints
from mdsample.errors import NoTextError
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.arguments import as_batch_size
from mdsample.sampling.growth import Growing
from mdsample.sampling.lengths import Candidate, best, removed
from mdsample.sampling.observe import Asking, overheard
from mdsample.sampling.prepared import Prepared
from mdsample.sampling.ready import Chunk, Ready, Watch, fitted, made_ready
from mdsample.sampling.result import Row
from mdsample.sampling.row import Grown
from mdsample.sampling.sampler import Sampler, steps
from mdsample.sampling.shared import lockstep
from mdsample.sampling.speculate import Speculation, as_speculation, require_exact
from mdsample.sampling.state import Event, Outcome, State

#: rows in flight, unless said otherwise
BATCH_SIZE = 16
#: `fill` adds rows in chunks of this many batches: a chunk is one state, and copying a state costs little
BATCHES = 16
#: of a row that was taken out before it was done
REMOVED = Outcome("removed", "The row was taken out before it was done.")


@attrs.define(eq=False)
class _Contest:
    """The candidates of one row: how many are running, and those that are done."""

    running: int
    done: list[Candidate] = attrs.field(factory=list[Candidate])


class Engine:
    """Rows on one model; `add` at any time, `step` until nothing runs, `finished` whenever you like."""

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        batch_size: int = BATCH_SIZE,
        on_step: Callable[[State], None] | None = None,
        speculate: Speculation | int | str | None = None,
    ) -> None:
        """At most `batch_size` rows in one forward pass. `on_step` sees the state of each chunk that took part.

        `speculate`: how many steps to guess, see `mdsample.sampling.speculate`; the guesses come on top of the rows.
        `PolicyError` with an approximate cache.
        """
        self._denoiser, self._batch_size, self._on_step = denoiser, as_batch_size(batch_size), on_step
        self._speculate = as_speculation(speculate)
        if self._speculate is not None:
            require_exact(denoiser)
        self._chunks: list[Chunk] = []
        self._finished: list[tuple[int, Row]] = []
        self._contests: dict[int, _Contest] = {}
        self._numbers = count()
        self._salts = count(1)

    def add(
        self,
        rows: Sequence[Prepared],
        sampler: Sampler,
        slots: tuple[str, ...],
        *,
        speculate: Speculation | int | str | None = None,
        watch: Watch | None = None,
    ) -> list[int]:
        """Takes up rows of one policy, seed and template, whose slot names are `slots`; the rows' numbers here.

        Of a row with slots of unknown length a candidate of each length runs, if it has a text of the slot's language.
        `speculate`: for these rows, by default that of the engine. Raises `PolicyError` if the policy does not fit,
        `TemplateError` for a `watch` of rows of unknown length, and `ValueError` if ids occur twice.
        """
        return self.enter(self.ready(rows, sampler, slots, speculate=speculate, watch=watch))

    def ready(
        self,
        rows: Sequence[Prepared],
        sampler: Sampler,
        slots: tuple[str, ...],
        *,
        speculate: Speculation | int | str | None = None,
        watch: Watch | None = None,
    ) -> Ready:
        """Rows made ready for `enter`; arguments and errors are those of `add`.

        It changes nothing here and takes most of the time that `add` takes, so another thread may do it.
        """
        guessed = self._speculate if speculate is None else as_speculation(speculate)
        return made_ready(self._denoiser, rows, sampler, slots, guessed, watch)

    def enter(self, ready: Ready) -> list[int]:
        """Takes rows up; their numbers, in the order in which they were given."""
        numbers = [next(self._numbers) for _ in ready.candidates]
        for number, candidates in zip(numbers, ready.candidates, strict=True):
            if candidates:
                self._contests[number] = _Contest(candidates)
        for chunk in ready.chunks:
            chunk.numbers = [numbers[place] for place in chunk.order]
            beside = {key for other in self._chunks for key in other.plan.keys}
            chunk.salt = next(self._salts) if beside & set(chunk.plan.keys) else 0
            self._take_down(chunk, chunk.state.events[-1])
            if not chunk.state.done:
                self._chunks.append(chunk)
        return numbers

    def _grow(self, chunk: Chunk, growing: Growing, look: Grown) -> None:
        """Puts a longer row in the place of one that did not see an end."""
        if not growing.take_down(look):
            return
        try:
            longer = fitted(self._denoiser, growing, longer=True)
        except NoTextError:
            growing.over = True
            return
        longer.numbers, longer.salt = chunk.numbers, chunk.salt
        self._chunks[self._chunks.index(chunk)] = longer
        self._take_down(longer, longer.state.events[-1])

    @property
    def running(self) -> int:
        """Rows that are not done."""
        return sum(int(chunk.state.active.sum()) for chunk in self._chunks)

    def step(self, numbers: Collection[int] | None = None) -> bool:
        """One forward pass, and all steps that follow from it, for at most `batch_size` rows that are running.

        These are the rows with these numbers, by default those that came first. Returns whether there were any. If the
        model fails, all rows stay as they were.
        """
        chosen = None if numbers is None else np.fromiter(numbers, np.int64)
        free, work = self._batch_size, list[tuple[Chunk, Ints]]()
        for chunk in self._chunks:
            active = chunk.state.active
            ready = active if chosen is None else active & np.isin(chunk.numbers, chosen)
            rows = np.flatnonzero(ready)[:free].astype(np.int32)
            free -= len(rows)
            if len(rows):
                work.append((chunk, rows))
        askings = [_asking(chunk, rows) for chunk, rows in work]
        salts = [chunk.salt for chunk, _ in work]
        for (chunk, _), taken in zip(work, lockstep(self._denoiser, askings, salts), strict=True):
            if isinstance(taken, Grown):
                assert chunk.growing is not None
                self._grow(chunk, chunk.growing, taken)
                continue
            for state, event in taken:
                chunk.state = state
                self._take_down(chunk, event)
        self._chunks = [chunk for chunk in self._chunks if not chunk.state.done]
        return bool(work)

    def remove(self, number: int) -> None:
        """Takes a running row out: it finishes as it is, with the outcome `removed`; nothing if it does not run.

        Of candidates the first is what finishes, that of the fewest positions.
        """
        contest = self._contests.get(number)
        undecided = contest is not None and contest.running > 0
        for chunk in self._chunks:
            row = np.flatnonzero(chunk.state.active & (np.array(chunk.numbers) == number)).astype(np.int32)
            if len(row):
                nothing = np.zeros(0, np.int32)
                event = Event.none().completed(nothing, nothing, nothing, row, (REMOVED,))
                chunk.state = chunk.state.apply(event, self._denoiser.tokenizer.mask_id)
                self._take_down(chunk, event)
        if contest is not None and undecided:
            del self._contests[number]
            self._finished.append((number, removed(contest.done, REMOVED)))
        self._chunks = [chunk for chunk in self._chunks if not chunk.state.done]

    def finished(self) -> list[tuple[int, Row]]:
        """The rows that are done since the last call, and their numbers."""
        rows, self._finished = self._finished, []
        for number in [number for number, contest in self._contests.items() if not contest.running]:
            rows.append((number, best(self._contests.pop(number).done, self._batch_size)))
        return rows

    def _take_down(self, chunk: Chunk, event: Event) -> None:
        """Takes down an event of a chunk."""
        chunk.log.add(event)
        spent = None if chunk.speculator is None else chunk.speculator.spent
        left: list[int] = event.left.tolist()
        for place in left:
            number, row = chunk.numbers[place], chunk.log.row(chunk.state, place, spent)
            if chunk.growing is not None:
                row = chunk.growing.told(row, chunk.plan.policy.guide.passes)
            if chunk.lengths:
                contest = self._contests[number]
                contest.done.append(Candidate(chunk.lengths, row, chunk.plan))
                contest.running -= 1
            else:
                self._finished.append((number, row))
        if self._on_step is not None:
            self._on_step(chunk.state)
        if chunk.watch is not None:
            chunk.watch.event(chunk.state, event)


def _asking(chunk: Chunk, rows: Ints) -> Asking[list[tuple[State, Event]] | Grown]:
    """The next steps of some rows, or a look at one that grows."""
    if chunk.growing is not None and not chunk.growing.over:
        return (yield from chunk.growing.look(chunk.plan, chunk.state))
    asking = steps(chunk.plan, chunk.state, rows, chunk.speculator)
    look = None if chunk.watch is None or chunk.speculator is not None else chunk.watch.look
    return (yield from asking if look is None else overheard(asking, lambda query, said: look(rows, query, said)))


def require_fit(denoiser: Denoiser, sampler: Sampler, slots: tuple[str, ...], row: Prepared) -> None:
    """Raises `PolicyError` where the policy does not fit the row, at no length if its slots have none that is known."""
    Engine(denoiser).add([row], sampler, slots)


def fill(
    sampler: Sampler,
    denoiser: Denoiser,
    slots: tuple[str, ...],
    rows: Iterable[Prepared],
    *,
    batch_size: int = BATCH_SIZE,
    chunk_size: int | None = None,
    on_step: Callable[[State], None] | None = None,
    speculate: Speculation | int | str | None = None,
) -> Iterator[Row]:
    """Fills rows, at most `batch_size` in one forward pass, and yields each as soon as it is done.

    `slots` names the template's slots. Of a row with slots of unknown length the best candidate is yielded; all of them
    are rows of a pass. Rows are taken up in chunks of `chunk_size` (by default `batch_size * BATCHES`),
    the next chunk when places fall free. An iterator of rows is read no further than that, and its first chunk is one
    batch. `on_step` sees the state of a chunk after each of its steps. `speculate` as in `Engine`. Raises `PolicyError`
    before the first forward pass if the policy does not fit.
    """
    batch_size = as_batch_size(batch_size)
    engine = Engine(denoiser, batch_size=batch_size, on_step=on_step, speculate=speculate)
    if isinstance(rows, Sequence) and len({row.id for row in rows}) != len(rows):
        raise ValueError("row ids must differ: randomness is keyed by them")
    usual = max(1, chunk_size or batch_size * BATCHES)
    # rows that are made one by one: the first pass does not wait for a whole chunk of them
    size = usual if isinstance(rows, Sequence) else chunk_size or batch_size
    waiting = iter(rows)
    while True:
        while engine.running < batch_size and (chunk := _some(waiting, size)):
            engine.add(chunk, sampler, slots)
            size = usual
        more = engine.step()
        yield from (row for _, row in engine.finished())
        if not more:
            return


def _some(rows: Iterator[Prepared], size: int) -> list[Prepared]:
    """The next rows, as many as have `size` candidates, or the last ones."""
    chunk: list[Prepared] = []
    for row in rows:
        chunk.append(row)
        size -= 1 + len(row.others)
        if size <= 0:
            break
    return chunk
