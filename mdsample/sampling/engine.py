"""Engine: many rows through one sampler, a fixed number of them at a time.

A row that is done leaves its place at once and the next one takes it, so fewer forward passes become less time. That
needs nothing but `Sampler.step` on some of the rows: a *shelf* of rows is planned as one canvas, and each step takes
the first `batch_size` of its rows that are still running. Since rows are independent, which rows share a forward pass
changes the time a job takes and not its results (but for how the model's own arithmetic rounds).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs
import numpy as np

from mdsample.core.canvas import Canvas
from mdsample.core.template import Template
from mdsample.errors import TemplateError
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.result import Row, RunLog
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.state import State

#: rows in flight, unless said otherwise
BATCH_SIZE = 16
#: a shelf holds this many batches: places stand idle only near its end, and copying its state costs little
BATCHES = 16


@attrs.frozen(eq=False)
class Prepared:
    """A row ready to be filled."""

    id: int | str
    tokens: Sequence[int]
    #: number of the slot of each position, −1 for fixed text
    slot: Sequence[int]
    #: what is to be filled
    blank: Sequence[bool]


def prepare(
    denoiser: Denoiser,
    template: Template,
    id: int | str,
    texts: Mapping[str, str],
    given: Mapping[str, str] | None = None,
) -> Prepared:
    """A row's texts, and the slots that it brings, in their template; `TemplateError` if they or the row do not fit."""
    try:
        row = template.row(denoiser.tokenizer, texts, given)
    except TemplateError:
        raise
    except ValueError as fault:  # a text that is not valid unicode
        raise TemplateError(str(fault)) from fault
    if len(row.tokens) > denoiser.max_length:
        raise TemplateError(
            f"the row is {len(row.tokens)} tokens long, slots included; {denoiser.name} takes at most "
            f"{denoiser.max_length}: shorten the text or the slots"
        )
    return Prepared(id, row.tokens, row.slot, row.blank)


def fill(
    sampler: Sampler,
    denoiser: Denoiser,
    slots: tuple[str, ...],
    rows: Sequence[Prepared],
    *,
    batch_size: int = BATCH_SIZE,
    shelf_size: int | None = None,
    watch: Callable[[State], None] | None = None,
) -> Iterator[Row]:
    """Fills rows, at most `batch_size` in one forward pass, and yields each as soon as it is done.

    Rows come in the order in which they finish, but those of one shelf (`shelf_size` rows in the order given; by
    default `batch_size * BATCHES`) before those of the next. `slots` names the template's slots. `watch` sees the state
    of the shelf at hand after every step. Raises `PolicyError` before the first forward pass if the policy does not
    fit.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}")
    if len({row.id for row in rows}) != len(rows):
        raise ValueError("row ids must differ: randomness is keyed by them")
    size = max(1, shelf_size or batch_size * BATCHES)
    for first in range(0, len(rows), size):
        # neighbours in length share a forward pass, so that little of it is padding
        shelf = sorted(rows[first : first + size], key=lambda row: -len(row.tokens))
        canvas = Canvas.of_rows(
            [row.tokens for row in shelf],
            [row.slot for row in shelf],
            slots,
            denoiser.tokenizer.mask_id,
            [row.id for row in shelf],
            [row.blank for row in shelf],
        )
        yield from _shelf(sampler, denoiser, canvas, batch_size, watch)


def _shelf(
    sampler: Sampler, denoiser: Denoiser, canvas: Canvas, batch_size: int, watch: Callable[[State], None] | None
) -> Iterator[Row]:
    plan = sampler.plan(denoiser, canvas)
    log = RunLog(canvas, denoiser.tokenizer)
    state = sampler.start(denoiser, canvas, plan)
    event = state.events[-1]
    while True:
        log.add(event)
        if watch is not None:
            watch(state)
        yield from (log.row(state, row) for row in event.left.tolist())
        if state.done:
            return
        running = np.flatnonzero(state.active)[:batch_size].astype(np.int32)
        state, event = sampler.step(denoiser, state, plan, running)
