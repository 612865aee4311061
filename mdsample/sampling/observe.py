"""What a step sees: the look at a board, what it is compared with, and the looks ahead that an order asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Floats, Ints, somewhere, upto
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.core.uniforms import Uniforms
from mdsample.models.denoiser import Denoiser, Prediction, Query
from mdsample.policy.view import Batch, View
from mdsample.sampling.plan import Plan
from mdsample.sampling.previous import Glance, glances_of, shifts_of
from mdsample.sampling.state import State


def see(
    plan: Plan, denoiser: Denoiser, batch: Batch, rows: Ints, glances: Sequence[Glance | None]
) -> tuple[View, Prediction]:
    """One forward pass over a board; `rows` are its rows' places in the canvas, `glances` their looks before."""
    eligible = plan.policy.window.eligible(batch) & batch.blank
    none = ~somewhere(eligible)
    if none.any():
        eligible = eligible | (batch.blank & none[:, None])
    wanted = eligible
    for stop in plan.policy.stops:
        wanted = wanted | (stop.before_pass(batch).watch & batch.blank)
    written = batch.initially_blank & ~batch.blank
    if plan.rereads:
        wanted = wanted | written
    fixed = batch.valid & ~batch.initially_blank
    restriction = restrict(plan, rows, batch.tokens, batch.blank, batch.slot)
    keys = [plan.keys[int(row)] for row in rows]
    guide = plan.policy.guide
    prediction = denoiser.predict(
        Query(batch.tokens, batch.valid, wanted, fixed, restriction, guide, Rows(keys, batch.step))
    )
    uniforms = Uniforms(keys, batch.step, batch.tokens.shape[1])
    shifts = shifts_of(prediction, eligible, glances, plan.shifts)
    untried = np.full(eligible.shape, np.inf)
    reread = standing(prediction, batch, written) if plan.rereads else None
    return View(batch, prediction.marginals, eligible, uniforms, shifts, untried, reread), prediction


def standing(prediction: Prediction, batch: Batch, written: Bools) -> Floats:
    """What a look says of the tokens that stand where `written [B, L]`: log-probabilities `[B, L]`, NaN elsewhere."""
    out = np.full(written.shape, np.nan, np.float32)
    if written.any():
        row, position = (index.astype(np.int32) for index in np.nonzero(written))
        out[row, position] = prediction.log_probabilities(row, position, batch.tokens[row, position])
    return out


def look_ahead(plan: Plan, denoiser: Denoiser, view: View, rows: Ints) -> View:
    """The view with what would remain after each position that the order tries: one look, with a row for each."""
    tried = plan.policy.order.tried(view) & view.eligible
    line, position = np.nonzero(tried & (tried.sum(1) > 1)[:, None])
    if not len(line):
        return view
    batch, here = view.batch, upto(len(line))
    tokens, blank, slot = batch.tokens[line], batch.blank[line], batch.slot[line]
    tokens[here, position], blank[here, position] = view.marginals.token[line, position], False
    valid = batch.valid[line]
    restriction = restrict(plan, rows[line], tokens, blank, slot)
    # names of their own: a cache must not take them for their row, nor for one another
    names = [
        (plan.keys[int(row)][0] ^ (1 + int(place)), plan.keys[int(row)][1])
        for row, place in zip(rows[line], position, strict=True)
    ]
    told = Rows(names, batch.step[line])
    prediction = denoiser.predict(
        Query(tokens, valid, blank, valid & ~batch.initially_blank[line], restriction, plan.policy.guide, told)
    )
    # a running sum: it does not depend on how wide the batch is
    total = np.cumsum(np.where(blank, prediction.marginals.entropy, 0), 1, dtype=np.float64)[:, -1]
    remaining = view.remaining.copy()
    remaining[line, position] = total / blank.sum(1)
    return attrs.evolve(view, remaining=remaining)


def recall(plan: Plan, denoiser: Denoiser, state: State, rows: Ints) -> Mapping[int, Glance]:
    """The glances of a state's running rows; `rows` are about to be looked at.

    Those that it lacks, in a run that was taken up or moved to another model, are looked at again as they stood in
    their last `plan.shifts` steps. What was paid for once is not counted again.
    """
    if not plan.shifts:
        return {}
    known = {row: glance for row, glance in state.glances.items() if glance.denoiser is denoiser}
    lost = np.array([row for row in rows.tolist() if state.step[row] and row not in known], np.int32)
    past = State.begin(state.canvas)
    for event in state.events if len(lost) else ():
        again = lost[np.isin(lost, event.rows) & (past.step[lost] >= state.step[lost] - plan.shifts)]
        if len(again):
            batch = past.batch(again, plan.passes, denoiser.tokenizer)
            view, prediction = see(plan, denoiser, batch, again, [known.get(row) for row in again.tolist()])
            known |= zip(again.tolist(), glances_of(denoiser, prediction, view.eligible, view.shifts), strict=True)
        past = past.apply(event, denoiser.tokenizer.mask_id)
    return known


def noted(
    plan: Plan,
    denoiser: Denoiser,
    view: View,
    prediction: Prediction,
    rows: Ints,
    glances: Mapping[int, Glance],
    after: State,
) -> dict[int, Glance]:
    """The glances after a step: its own for its rows, and none for rows that have left."""
    if not plan.shifts:
        return {}
    now = dict(zip(rows.tolist(), glances_of(denoiser, prediction, view.eligible, view.shifts), strict=True))
    return {row: glance for row, glance in {**glances, **now}.items() if after.active[row]}


def restrict(plan: Plan, rows: Ints, tokens: Ints, blank: Bools, slot: Ints) -> Restriction:
    """Which tokens may stand where, as the rows stand now."""
    static, width = plan.restriction, tokens.shape[1]
    restriction = Restriction(static.sets, static.index[rows, :width], static.group[rows, :width])
    for rule in plan.dynamic:
        restriction = restriction & rule.restrict(tokens, blank, slot)
    return restriction
