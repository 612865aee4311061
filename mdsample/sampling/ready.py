"""Rows made ready for an engine: those of the same lengths together, on one canvas under one plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from mdsample.core.arrays import Ints
from mdsample.core.canvas import Canvas
from mdsample.errors import NoTextError, TemplateError
from mdsample.models.denoiser import Denoiser, Prediction, Query
from mdsample.sampling.growth import Growing
from mdsample.sampling.lengths import require_scores
from mdsample.sampling.plan import Plan
from mdsample.sampling.prepared import Prepared
from mdsample.sampling.result import RunLog
from mdsample.sampling.sampler import Sampler, begin
from mdsample.sampling.speculate import Speculation, Speculator
from mdsample.sampling.state import Event, State


@attrs.frozen(eq=False)
class Watch:
    """Who follows rows that were added together."""

    #: sees the state after each of their events, and the event; the first one tells which rows had nothing to fill
    event: Callable[[State, Event], None]
    #: sees what was predicted for some of the rows, by their numbers in the state, before the event that follows from
    #: it; not where texts are guessed
    look: Callable[[Ints, Query, Prediction], None] | None = None


@attrs.define(eq=False)
class Chunk:
    """Rows of the same lengths that are added together: one canvas under one plan."""

    plan: Plan
    state: State
    log: RunLog
    #: the place of each row among those that were given
    order: Sequence[int]
    #: what guesses its steps
    speculator: Speculator | None
    watch: Watch | None
    #: positions of slots of unknown length, of which its rows are candidates
    lengths: Mapping[str, int]
    #: of its only row, where a slot grows
    growing: Growing | None = None
    #: number of each row in the engine, once it has entered
    numbers: Sequence[int] = ()
    #: tells its rows from those of other chunks that have the same seed and id, for models that keep something of a row
    salt: int = 0


@attrs.frozen(eq=False)
class Ready:
    """Rows that are ready to enter an engine, once."""

    chunks: Sequence[Chunk]
    #: of each row, in the order in which they were given: its candidates, 0 where its lengths are known
    candidates: Sequence[int]


def made_ready(
    denoiser: Denoiser,
    rows: Sequence[Prepared],
    sampler: Sampler,
    slots: tuple[str, ...],
    speculate: Speculation | None,
    watch: Watch | None,
) -> Ready:
    """Rows of one policy, seed and template as chunks; errors are those of `Engine.add`."""
    if len({row.id for row in rows}) != len(rows):
        raise ValueError("row ids must differ: randomness is keyed by them")
    if watch is not None and any(row.lengths for row in rows):
        raise TemplateError("slots of unknown length are not followed step by step; give every slot one length")
    chunks: list[Chunk] = []
    # the reason is that of the longest
    fault: NoTextError | None = None
    for lengths, group in _by_lengths(rows):
        try:
            chunks.append(_chunk(denoiser, lengths, group, sampler, slots, speculate, watch))
        except NoTextError as reason:
            fault = reason
    for place, row in enumerate(rows):
        if row.growth is None:
            continue
        growing = Growing(row, place, sampler, slots, speculate)
        growing.require(denoiser, lambda most, g=growing: _chunk_of(denoiser, g, most))
        try:
            chunks.append(fitted(denoiser, growing, longer=False))
        except NoTextError as reason:
            fault = reason
    running = Counter(place for chunk in chunks for place in chunk.order)
    if fault is not None and (none := [row for place, row in enumerate(rows) if not running[place]]):
        tried = f"at no length of row {none[0].id!r} there is a text: " if none[0].lengths else ""
        raise NoTextError(f"{tried}{fault}")
    contest = [row.lengths and row.growth is None for row in rows]
    return Ready(chunks, [running[place] if several else 0 for place, several in enumerate(contest)])


def _chunk(
    denoiser: Denoiser,
    lengths: Mapping[str, int],
    rows: Mapping[int, Prepared],
    sampler: Sampler,
    slots: tuple[str, ...],
    speculate: Speculation | None,
    watch: Watch | None,
) -> Chunk:
    """Rows by their places, on one canvas."""
    # neighbours in length share a forward pass, so that little of it is padding
    order = sorted(rows, key=lambda place: -len(rows[place].tokens))
    sorted_rows = [rows[place] for place in order]
    tokenizer = denoiser.tokenizer
    canvas = Canvas.of_rows(
        [row.tokens for row in sorted_rows],
        [row.slot for row in sorted_rows],
        slots,
        tokenizer.mask_id,
        [row.id for row in sorted_rows],
        [row.blank for row in sorted_rows],
        tuple({name: None for row in sorted_rows for name in row.blind}),
    )
    plan = sampler.plan(denoiser, canvas)
    if lengths:
        require_scores(plan)
    state = begin(plan, canvas)
    log = RunLog(canvas, tokenizer, plan.policy, denoiser.noise)
    speculator = sampler.speculator(plan, canvas, speculate)
    return Chunk(plan, state, log, order, speculator, watch, lengths)


def fitted(denoiser: Denoiser, growing: Growing, *, longer: bool) -> Chunk:
    """A row that grows, in its length or the next one; `NoTextError` if there is none."""
    return growing.fitted(lambda row: _chunk_of(denoiser, growing, row), denoiser.tokenizer.mask_id, longer=longer)


def _chunk_of(denoiser: Denoiser, growing: Growing, row: Prepared) -> Chunk:
    """A row that grows, in one of its lengths."""
    chunk = _chunk(denoiser, {}, {growing.place: row}, growing.sampler, growing.slots, growing.speculate, None)
    chunk.growing = growing
    return chunk


def _by_lengths(rows: Sequence[Prepared]) -> Iterator[tuple[Mapping[str, int], dict[int, Prepared]]]:
    """Rows and candidates of rows that have the same lengths, by the places of the rows; shortest first.

    Without those that grow, each of which finds a length of its own.
    """
    groups: dict[tuple[int, ...], tuple[Mapping[str, int], dict[int, Prepared]]] = {(): ({}, {})} if not rows else {}
    for place, row in enumerate(rows):
        for one in () if row.growth else (row, *row.others):
            groups.setdefault(tuple(one.lengths.values()), (one.lengths, {}))[1][place] = one
    for lengths in sorted(groups):
        yield groups[lengths]
