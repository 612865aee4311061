"""The life of a position: blank, written, final. What a step takes back, writes anew, holds and settles."""

from __future__ import annotations

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Ints, any_in_row
from mdsample.policy.complete import CompletePolicy
from mdsample.policy.holding import Holding
from mdsample.policy.view import View
from mdsample.sampling.plan import Plan
from mdsample.sampling.state import State


@attrs.frozen(eq=False)
class Ends:
    """Where a step ends windows; `[B]` both."""

    #: rows whose window is final after the step
    settled: Bools
    #: of these, those whose window then has the most probable token everywhere
    best: Bools


def ends(policy: CompletePolicy, view: View, chosen: Bools, leaving: Ints) -> Ends:
    """Which windows a step ends, of rows that stay; `chosen [B, L]` is what it fills, `leaving` the rows that go."""
    settled = np.zeros(len(chosen), np.bool_)
    for stop in policy.stops:
        stilled = stop.after_pass(view).settled
        settled = settled if stilled is None else settled | stilled
    stays = np.ones(len(chosen), np.bool_)
    stays[leaving] = False
    stays &= any_in_row(view.window)
    best, part = settled & stays, policy.revise
    if not isinstance(part, Holding):
        return Ends(best, best)
    size = view.window.sum(1, dtype=np.int32)
    own = part.settles(view, chosen) | (view.batch.age + 1 >= part.most(size))
    settled = (settled | own) & stays
    # what the end leaves blank is filled too
    unfilled = any_in_row(view.eligible & ~chosen)
    return Ends(settled, settled if part.redraws else best | (settled & unfilled))


def rewritten(plan: Plan, view: View, rows: Ints, chosen: Bools) -> tuple[Ints, Ints, Ints]:
    """Lines, positions and tokens of what is written in place of held tokens, other than what the step draws.

    `rows [B]`: of the plan. In a slot that holds a language one token gives way at a time, the first, and only while
    nothing else is written there: what may stand in a place depends on all others.
    """
    nothing = np.zeros(0, np.int32)
    part = plan.holding
    if part is None or part.redraws:
        return nothing, nothing, nothing
    token = np.where(view.window & view.batch.held & ~chosen, part.rewrite(view), np.int32(-1))
    for span in plan.restriction.spans:
        for line in np.flatnonzero(rows == span.row).tolist():
            places = span.positions[span.positions < token.shape[1]]
            changed = places[token[line, places] >= 0]
            token[line, places if chosen[line, places].any() else changed[1:]] = -1
    row, position = (index.astype(np.int32) for index in np.nonzero(token >= 0))
    return row, position, token[row, position]


def blanked(plan: Plan, view: View, chosen: Bools, leaving: Ints, spent: Ints) -> tuple[Ints, Ints]:
    """Rows and positions of what becomes blank again, in rows that stay."""
    if not plan.redraws:
        return remask(plan, view, spent)
    # a window that ends is chosen as a whole
    again = view.window & view.batch.held & ~chosen
    again[leaving] = False
    row, position = np.nonzero(again)
    return row.astype(np.int32), position.astype(np.int32)


def remask(plan: Plan, view: View, spent: Ints) -> tuple[Ints, Ints]:
    """Positions to mask again in rows that stay, within the part's budget, lowest positions first."""
    part = plan.policy.revise
    if not part.budget:
        nothing = np.zeros(0, np.int32)
        return nothing, nothing
    wish = part.remask(view) & revisable(plan, view)
    within = np.cumsum(wish, 1) <= (part.budget - spent)[:, None]
    row, position = np.nonzero(wish & within)
    return row.astype(np.int32), position.astype(np.int32)


def revisable(plan: Plan, view: View) -> Bools:
    """Where tokens may be masked again, `[B, L]`: written ones, in rows that stay."""
    where = view.batch.initially_blank & ~view.batch.blank
    for stop in plan.policy.stops:
        where = where & ~stop.after_pass(view).done[:, None]
    return where


def final(policy: CompletePolicy, state: State) -> Bools:
    """What will never change again, `[B, L]`, fixed text and padding included: it only grows from step to step.

    Under a revision that masks again, a token is final once the row has left or the revision's budget is spent.
    """
    part = policy.revise
    settled = ~state.blank & ~state.held
    if part.budget:
        settled &= (~state.canvas.blank) | ((state.remasked >= part.budget) | ~state.active)[:, None]
    return settled
